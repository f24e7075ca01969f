"""Looks at deliveries' executions, and decides on them, for operators."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from glassq.errors import JobNotFound, QueueError, QueueUnavailable
from glassq.queues.aws.inspector import AwsInspector
from glassq.queues.base import ALL_STATES, Capabilities, EngineStatus, Job
from glassq.queues.key import is_delivery_id
from glassq.queues.swf import facts
from glassq.queues.swf.changing import RunChanger
from glassq.queues.swf.counting import CountedDomain, counted, counted_buried, counted_domain
from glassq.queues.swf.decider import YEAR
from glassq.queues.swf.forms import LIMITS, MAX_JOB, MAX_SECONDS
from glassq.queues.swf.looking import KnownRuns, job_of, may_be, open_runs, probe, tag_for
from glassq.queues.swf.names import id_of, key_in, ref_of, tube_in, tube_tag, workflow_id
from glassq.queues.swf.pauses import pause, paused
from glassq.queues.swf.place import NAME
from glassq.queues.swf.telling import told
from glassq.queues.swf.troubles import explained

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from glassq.queues.base import Change, Fact, Happened, NewForm, State, TubeCounts, WaitingState
    from glassq.queues.swf.client import SwfClient
    from glassq.queues.swf.looking import OpenRun

# So often a search tells how far it is, in seconds.
TOLD_EVERY = 0.5
# That of the service's interface.
VERSION = "2012-01-25"
CAPABILITIES = Capabilities(
    lists=ALL_STATES,
    # no task list promises an order
    oldest=False,
    exact_counts=False,
    by_key=True,
    pause=True,
    keeps_pause=True,
    max_delay=MAX_SECONDS,
    max_lease=MAX_SECONDS,
    expires=True,
    frees_at_once=False,
    fenced=True,
    many_held=True,
    exact_losses=True,
    atomic=True,
    keeps_for=YEAR,
    bearer=True,
    sees_consumers=False,
    never_forgets=True,
    metered=True,
)


class SwfInspector(AwsInspector[CountedDomain]):
    """See `glassq.queues.base.Inspector`."""

    engine = NAME
    capabilities = CAPABILITIES

    def __init__(self, client: SwfClient, *, lease: int) -> None:
        """`lease` is that of the attempts of what is put, in seconds."""
        super().__init__(client)
        self._client = client
        self._runs = KnownRuns(client, self.left)
        self._changer = RunChanger(client, self._runs, self.left, lease=lease)

    def status(self) -> EngineStatus:
        problem = self._problem()
        place = self._client.place
        return EngineStatus(
            engine=self.engine,
            version=VERSION,
            uptime=0,
            durable=True,
            accepting=not problem,
            consumers=0,
            max_job=MAX_JOB,
            details={"domain": place.domain, "region": place.region, "problem": problem},
            gauges=facts.gauges(self._client, self.left),
        )

    def facts(self, tubes: Sequence[str], *, job_size: int = 0, thorough: bool = False) -> Iterator[Fact]:
        if self._changer.refused is not None:
            yield self.explain(self._changer.refused)
        if thorough:
            yield from facts.of_place(self._client, self.left, job_size)
        found = facts.of_domain(self._client, self.left)
        yield from (fact for fact in found if thorough or fact.ok is False)

    def explain(self, error: QueueError) -> Fact:
        return explained(error)

    def check(self, *, aside: bool = False) -> None:
        if self._changer.refused is not None:
            raise self._changer.refused
        facts.try_to_put(self._client, self.left)

    def counts(self, tubes: Sequence[str] | None = None, *, states: frozenset[State] = ALL_STATES) -> list[TubeCounts]:
        if states == {"buried"}:
            return counted_buried(self._client, tubes, self.left)
        if not self.remembers:
            return counted(self._client, self._runs, tubes, paused(self._client, self.left()), self.left)
        return self.seen(lambda: counted_domain(self._client, self._runs, self.left)).of(tubes)

    def tubes(self) -> list[str]:
        found = {tube_in(list(run.tags)) for page in open_runs(self._client, self.left) for run in page}
        return sorted(found - {""})

    def first(self, state: WaitingState, tube: str) -> Job | None:
        states: frozenset[State] = frozenset({state})
        found = self._in_tube(states, tube)
        return min(found, key=lambda job: job.time_left, default=None) if state == "delayed" else next(found, None)

    def find(
        self,
        states: frozenset[State],
        tubes: Sequence[str],
        *,
        hints: Sequence[str] = (),
        since: str = "",
        wanted: Callable[[str], bool] | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Iterator[Job]:
        # hints would cost more: a list by a tag has a thousand runs in one call
        begin = datetime.fromtimestamp(float(since), UTC) if since else None
        tell = _now_and_then(progress)
        runs: list[OpenRun] = []
        there = set(tubes)
        for run in self._open(states, tubes, since=begin):
            tell(0, len(runs))
            there.add(tube_in(list(run.tags)))
            key = key_in(run.workflow)
            if may_be(run, states, tubes) and (wanted is None or not is_delivery_id(key) or wanted(key)):
                runs.append(run)
        for done, run in enumerate(runs):
            tell(done, len(runs))
            seen = self._runs.see(run)
            if seen is None or seen.run.state not in states:
                continue
            # one that was moved a moment ago is in the lists of its old tube, and perhaps no list knows of the new one
            if seen.run.form.tube in tubes or seen.run.form.tube not in there:
                yield job_of(seen)

    def newest(self) -> str:
        for page in open_runs(self._client, self.left, page=1):
            for run in page:
                return repr(run.began.timestamp())
        return "0"

    def is_ref(self, text: str) -> bool:
        return bool(id_of(text))

    def get_all(self, refs: Sequence[str]) -> list[Job | QueueError]:
        return [self._get(ref) for ref in refs]

    def history(self, key: str) -> list[Happened]:
        return told(self._client, key, self.left)

    def insert_all(self, forms: Sequence[NewForm]) -> list[str | QueueError]:
        return self._changer.insert(forms)

    def change_all(self, changes: Sequence[Change]) -> list[str | QueueError]:
        return self._changer.change(changes)

    def delete_all(self, jobs: Sequence[Job]) -> list[QueueError | None]:
        return [self._changer.delete(job) for job in jobs]

    def pause(self, tube: str, seconds: float) -> bool:
        if (error := LIMITS.bad_time(seconds)) is not None:
            raise error
        if seconds and not any(open_runs(self._client, self.left, tag=tube_tag(tube), page=1)):
            return False
        pause(self._client, tube, seconds, self.left)
        return True

    def ref_of(self, key: str) -> str:
        return ref_of(workflow_id(key))

    def _open(
        self,
        states: frozenset[State],
        tubes: Sequence[str],
        *,
        since: datetime | None = None,
        oldest_first: bool = False,
    ) -> Iterator[OpenRun]:
        """The runs among which such jobs are, as far as a tag tells; those that began after `since`."""
        tag = tag_for(states, tubes)
        for page in open_runs(self._client, self.left, tag=tag, since=since, oldest_first=oldest_first):
            yield from (run for run in page if since is None or run.began > since)

    def _in_tube(self, states: frozenset[State], tube: str) -> Iterator[Job]:
        """The jobs of this tube, the one that was put first before the others."""
        for run in self._open(states, [tube], oldest_first=True):
            seen = self._runs.see(run) if may_be(run, states, [tube]) else None
            if seen is not None and seen.run.state in states and seen.run.form.tube == tube:
                yield job_of(seen)

    def _get(self, ref: str) -> Job | QueueError:
        try:
            seen = self._runs.find(id_of(ref))
        except QueueError as error:
            return error
        return JobNotFound(f"there is no job {ref}") if seen is None else job_of(seen)

    def _problem(self) -> str:
        """Why no jobs are taken now; "" if they are."""
        if self._changer.refused is not None:
            return str(self._changer.refused)
        try:
            probe(self._client, self.left())
        except QueueUnavailable:
            raise
        except QueueError as error:
            return str(error)
        return ""


def _now_and_then(progress: Callable[[int, int], None] | None) -> Callable[[int, int], None]:
    """What tells how far a search is, each TOLD_EVERY."""
    told = time.monotonic()

    def tell(done: int, total: int) -> None:
        nonlocal told
        if progress is not None and (now := time.monotonic()) - told >= TOLD_EVERY:
            told = now
            progress(done, total)

    return tell
