"""Looks at what is in SQS, and decides on what lies on the shelf, for operators.

A message that waits can be received, and nothing else: no search finds it, and no operator changes it. Counts are the
service's, which calls them approximate.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from glassq.errors import JobNotFound, QueueError
from glassq.queues.aws.inspector import AwsInspector
from glassq.queues.base import ALL_STATES, Capabilities, EngineStatus, Job
from glassq.queues.shelf import id_of, ref_of
from glassq.queues.sqs import facts
from glassq.queues.sqs.leases import MAX_LEASE
from glassq.queues.sqs.looking import SqsQueue, look, look_at_all
from glassq.queues.sqs.messages import LIMITS, MAX_JOB, MAX_SECONDS
from glassq.queues.sqs.place import NAME
from glassq.queues.sqs.shelving import ShelfChanger
from glassq.queues.sqs.troubles import explained
from glassq.queues.sqs.tubes import RETENTION

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from glassq.queues.base import Change, Fact, NewForm, State, TubeCounts, WaitingState
    from glassq.queues.shelf import Shelf, Shelved
    from glassq.queues.sqs.client import SqsClient

# That of the service's interface.
VERSION = "2012-11-05"
UNSEEN = "SQS cannot show a delivery that waits: it can only be received. `glassq buried` and `glassq status` work"
CAPABILITIES = Capabilities(
    # of those that are delayed, the ones that lie on the shelf
    lists=frozenset({"buried", "delayed"}),
    oldest=False,
    exact_counts=False,
    by_key=False,
    pause=True,
    keeps_pause=True,
    max_delay=MAX_SECONDS,
    max_lease=MAX_LEASE,
    expires=True,
    frees_at_once=False,
    fenced=False,
    many_held=True,
    exact_losses=False,
    atomic=False,
    keeps_for=RETENTION,
    withdraws=False,
    bearer=True,
    sees_consumers=False,
    buries_in_place=False,
    never_forgets=True,
    metered=True,
    unseen=UNSEEN,
)
# So many rows of the shelf are read at once.
_BATCH = 100


class SqsInspector(AwsInspector[list[SqsQueue]]):
    """See `glassq.queues.base.Inspector`."""

    engine = NAME
    capabilities = CAPABILITIES

    def __init__(self, client: SqsClient, shelf: Shelf, *, tube: str) -> None:
        """`tube` is one whose queue must be there."""
        super().__init__(client)
        self._client = client
        self._shelf = shelf
        self._tube = tube
        self._changer = ShelfChanger(client, shelf, self.left)

    def status(self) -> EngineStatus:
        queues = self._queues()
        problem = self._problem(queues)
        return EngineStatus(
            engine=self.engine,
            version=VERSION,
            uptime=0,
            durable=True,
            accepting=not problem,
            consumers=0,
            max_job=MAX_JOB,
            details={"queues": len(queues), "region": self._client.place.region, "problem": problem},
            gauges=facts.gauges(queues, sum(self._shelf.counts().values())),
        )

    def facts(self, tubes: Sequence[str], *, job_size: int = 0, thorough: bool = False) -> Iterator[Fact]:
        found = facts.of_queues(self._queues(), tubes)
        shelf = facts.of_shelf(self._shelf)
        if not thorough:
            yield from (fact for fact in (*found, *shelf) if fact.ok is False)
            return
        yield facts.place(self._client.place)
        yield from found
        yield from shelf
        yield facts.job_size(MAX_JOB, job_size)

    def explain(self, error: QueueError) -> Fact:
        return explained(error)

    def check(self, *, aside: bool = False) -> None:
        self._changer.probe(self._tube, aside=aside)

    def counts(self, tubes: Sequence[str] | None = None, *, states: frozenset[State] = ALL_STATES) -> list[TubeCounts]:
        shelved, paused = self._shelf.counts(), self._shelf.paused()
        if states == {"buried"}:
            # the service has none of them
            there = {tube for tube, state in shelved if state in states}
            queues = [SqsQueue(tube) for tube in (sorted(there) if tubes is None else tubes)]
        elif tubes is None:
            queues = self._queues()
            there = {queue.tube for queue in queues}
            queues = [*queues, *(SqsQueue(tube) for tube in sorted({tube for tube, _ in shelved} - there))]
        elif self.remembers:
            by_tube = {queue.tube: queue for queue in self._queues()}
            queues = [by_tube.get(tube) or SqsQueue(tube) for tube in tubes]
        else:
            queues = [look(self._client, tube, self.left()) for tube in tubes]
        return [queue.counts(shelved, paused.get(queue.tube, 0.0)) for queue in queues]

    def first(self, state: WaitingState, tube: str) -> Job | None:
        if state == "ready":
            raise QueueError(UNSEEN)
        row = self._shelf.first(state, tube)
        return None if row is None else job_of(row)

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
        ids = self._shelf.ids(states & CAPABILITIES.lists, tubes, int(since or 0))
        for done in range(0, len(ids), _BATCH):
            batch = ids[done : done + _BATCH]
            rows = self._shelf.by_id(batch)
            yield from (job_of(rows[number]) for number in batch if number in rows)
            if progress is not None and done + _BATCH < len(ids):
                progress(done + _BATCH, len(ids))

    def newest(self) -> str:
        self.left()
        return str(self._shelf.newest())

    def is_ref(self, text: str) -> bool:
        return bool(id_of(text))

    def get_all(self, refs: Sequence[str]) -> list[Job | QueueError]:
        try:
            rows = self._shelf.by_id([number for ref in refs if (number := id_of(ref))])
        except QueueError as error:
            return [error] * len(refs)
        missing = [JobNotFound(f"there is no job {ref} on the shelf") for ref in refs]
        return [
            job_of(rows[number]) if (number := id_of(ref)) in rows else error
            for ref, error in zip(refs, missing, strict=True)
        ]

    def insert_all(self, forms: Sequence[NewForm]) -> list[str | QueueError]:
        return self._changer.insert(forms)

    def change_all(self, changes: Sequence[Change]) -> list[str | QueueError]:
        return [self._changer.change(change) for change in changes]

    def delete_all(self, jobs: Sequence[Job]) -> list[QueueError | None]:
        return [self._changer.delete(job) for job in jobs]

    def pause(self, tube: str, seconds: float) -> bool:
        if (error := LIMITS.bad_time(seconds)) is not None:
            raise error
        if not look(self._client, tube, self.left()).retention:
            return False
        self._shelf.pause(tube, seconds)
        return True

    def _queues(self) -> list[SqsQueue]:
        return self.seen(lambda: look_at_all(self._client, self.left))

    def _problem(self, queues: Sequence[SqsQueue]) -> str:
        """Why no jobs are taken now; "" if they are."""
        try:
            self._changer.try_shelf()
        except QueueError as error:
            return str(error)
        if self._changer.refused is not None:
            return str(self._changer.refused)
        return "" if queues else "there are no queues: `glassq queue init` makes them"


def job_of(row: Shelved) -> Job:
    """A row of the shelf as operators see it."""
    now = time.time()
    return Job(
        ref=ref_of(row.id),
        tube=row.tube,
        state=row.state,
        body=row.body,
        age=max(0.0, now - row.put_at),
        time_left=max(0.0, row.due - now) if row.state == "delayed" else 0.0,
        losses=row.losses,
        kicked=row.kicked,
    )
