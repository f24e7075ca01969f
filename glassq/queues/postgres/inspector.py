"""Looks at PostgreSQL's jobs and decides on them, for operators."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from glassq.errors import JobNotFound, QueueError
from glassq.queues.base import ALL_STATES, Capabilities, EngineStatus
from glassq.queues.postgres import counting, facts, looking
from glassq.queues.postgres.changing import FormChanger
from glassq.queues.postgres.gauges import gauges
from glassq.queues.postgres.limits import LIMITS, MAX_JOB, MAX_SECONDS
from glassq.queues.postgres.server import ServerState
from glassq.queues.postgres.troubles import explained
from glassq.queues.single import SingleCalls

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from glassq.database.postgres import PostgresSession
    from glassq.queues.base import Change, Fact, Job, NewForm, State, TubeCounts, WaitingState
    from glassq.queues.postgres.waking import Waker
    from glassq.values import QueueUrl

# An identity column counts from 1 to 2**63 - 1.
_REF = re.compile(r"[1-9]\d{0,18}")
_MAX_ID = (1 << 63) - 1
CAPABILITIES = Capabilities(
    lists=ALL_STATES,
    oldest=True,
    exact_counts=True,
    by_key=False,
    pause=True,
    keeps_pause=True,
    max_delay=MAX_SECONDS,
    max_lease=MAX_SECONDS,
    expires=True,
    frees_at_once=True,
    fenced=True,
    many_held=True,
    exact_losses=True,
    atomic=True,
    keeps_for=None,
)


class PostgresInspector(SingleCalls):
    """See `glassq.queues.base.Inspector`."""

    engine = "PostgreSQL"
    capabilities = CAPABILITIES

    def __init__(self, session: PostgresSession, url: QueueUrl, waker: Waker | None = None, *, needs: int = 0) -> None:
        """`waker` tells receivers what is ready; `needs` is how many connections the programs of this host open."""
        self._session = session
        self._waker = waker
        self._url = url
        self._needs = needs
        self._changer = FormChanger(session, waker)

    def set_deadline(self, deadline: float) -> None:
        self._session.set_deadline(deadline)

    def only_looks(self) -> None:
        self._session.only_reads = True

    def status(self) -> EngineStatus:
        state = ServerState.read(self._session)
        return EngineStatus(
            engine=self.engine,
            version=state.version,
            uptime=int(state.uptime),
            durable=state.durable and not state.unproven,
            unproven=state.unproven if state.durable else "",
            accepting=state.accepting,
            behind=state.in_recovery,
            consumers=state.consumers,
            max_job=MAX_JOB,
            details=state.details(),
            gauges=gauges(state),
        )

    def facts(self, tubes: Sequence[str], *, job_size: int = 0, thorough: bool = False) -> Iterator[Fact]:
        state = ServerState.read(self._session)
        if not thorough:
            yield from (fact for fact in facts.of_server(state, self._needs, self._url) if fact.ok is False)
            return
        yield facts.version(state, self._url)
        yield from facts.of_server(state, self._needs, self._url)
        yield facts.job_size(MAX_JOB, job_size)
        if state.accepting and state.durable and not state.unproven:
            yield from facts.tried(self._changer, self._url)

    def explain(self, error: QueueError) -> Fact:
        return explained(error, self._url)

    def check(self, *, aside: bool = False) -> None:
        self._changer.probe()

    def counts(self, tubes: Sequence[str] | None = None, *, states: frozenset[State] = ALL_STATES) -> list[TubeCounts]:
        self._changer.free()
        return counting.counts(self._session, tubes)

    def first(self, state: WaitingState, tube: str) -> Job | None:
        self._changer.free()
        return looking.first(self._session, state, tube)

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
        self._changer.free()
        yield from looking.find(self._session, states, tubes, int(since or 0), progress)

    def newest(self) -> str:
        return str(looking.newest(self._session))

    def is_ref(self, text: str) -> bool:
        return bool(_REF.fullmatch(text)) and text.isascii()

    def get_all(self, refs: Sequence[str]) -> list[Job | QueueError]:
        try:
            numbers = [self._number(ref) for ref in refs]
            found = looking.by_id(self._session, numbers)
            if any(job.state == "reserved" for job in found.values()):
                # perhaps by nobody
                self._changer.free()
                found = looking.by_id(self._session, numbers)
        except QueueError as error:
            return [error] * len(refs)
        return [found.get(ref) or JobNotFound(f"there is no job {ref}") for ref in refs]

    def still(self, refs: Sequence[str], state: State) -> list[bool]:
        numbers = [self._number(ref) for ref in refs]
        found = looking.still(self._session, numbers, state)
        return [number in found for number in numbers]

    def peek_all(self, refs: Sequence[str]) -> list[bytes | QueueError]:
        numbers = [self._number(ref) for ref in refs]
        try:
            found = looking.bodies(self._session, numbers)
        except QueueError as error:
            return [error] * len(refs)
        missing = (JobNotFound(f"there is no job {ref}") for ref in refs)
        return [found.get(number, error) for number, error in zip(numbers, missing, strict=True)]

    def insert_all(self, forms: Sequence[NewForm]) -> list[str | QueueError]:
        return self._changer.insert(forms)

    def change_all(self, changes: Sequence[Change]) -> list[str | QueueError]:
        return self._changer.change(changes, [self._number(change.job.ref) for change in changes])

    def delete_all(self, jobs: Sequence[Job]) -> list[QueueError | None]:
        return self._changer.delete(jobs, [self._number(job.ref) for job in jobs])

    def pause(self, tube: str, seconds: float) -> bool:
        if (error := LIMITS.bad_time(seconds)) is not None:
            raise error
        exists = counting.pause(self._session, tube, seconds)
        if exists and not seconds and self._waker is not None:
            self._waker.tell([tube])
        return exists

    def close(self) -> None:
        self._session.close()
        if self._waker is not None:
            self._waker.close()

    def _number(self, ref: str) -> int:
        """The id; 0, which no job has, for what is no reference."""
        number = int(ref) if self.is_ref(ref) else 0
        return number if number <= _MAX_ID else 0
