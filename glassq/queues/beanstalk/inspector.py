"""Looks at beanstalkd's jobs and decides on them, for operators."""

from __future__ import annotations

import re
from array import array
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from glassq.errors import JobNotFound, QueueError, SearchIncomplete
from glassq.queues.base import (
    ALL_STATES,
    Capabilities,
    Change,
    EngineGauge,
    EngineStatus,
    Job,
    TubeCounts,
)
from glassq.queues.beanstalk import commands, facts, syncer_facts
from glassq.queues.beanstalk.connection import whole_seconds
from glassq.queues.beanstalk.forms import PROOF_WITHIN, FormItem, FormWriter
from glassq.queues.beanstalk.proof import prove
from glassq.queues.beanstalk.protocol import MAX_ID, MAX_SECONDS, PROBE_TUBE, SYNCER_TUBE, JobStats, ScanShort
from glassq.queues.beanstalk.scan import FIRST, Scan
from glassq.queues.single import SingleCalls

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from glassq.queues.base import Fact, NewForm, State, WaitingState
    from glassq.queues.beanstalk.commands import Command
    from glassq.queues.beanstalk.connection import BeanstalkConnection
    from glassq.queues.beanstalk.protocol import JobBody, ServerStats, TubeStats
    from glassq.queues.beanstalk.prover import Prover
    from glassq.values import QueueUrl

# beanstalkd's ids have no leading zero; our delivery ids will have one for some centuries.
_REF = re.compile(r"[1-9]\d{0,19}")
# So many bodies are asked for at once: each may be as large as the server takes.
BODIES = 64
_FILES_HELP = "Binlog files that beanstalkd must keep; old jobs pin them."
_CONNECTIONS_HELP = "Connections that beanstalkd has."
CAPABILITIES = Capabilities(
    lists=ALL_STATES,
    oldest=True,
    exact_counts=True,
    by_key=False,
    pause=True,
    max_delay=MAX_SECONDS,
    max_lease=MAX_SECONDS,
    # Its timer compares with >=, and then often misses the end of a lease (beanstalkd's issues 262 and 380).
    expires=False,
    frees_at_once=True,
    fenced=True,
    many_held=True,
    exact_losses=True,
    atomic=False,
    keeps_for=None,
)


class BeanstalkInspector(SingleCalls):
    """See `glassq.queues.base.Inspector`."""

    engine = "beanstalkd"
    capabilities = CAPABILITIES

    def __init__(self, connection: BeanstalkConnection, url: QueueUrl, prover: Prover | None = None) -> None:
        """Without a prover, beanstalkd's own answers are the proof (see `proof.prove`)."""
        self._connection = connection
        self._url = url
        self._prover = prover
        self._last: ServerStats | None = None
        self._writes = True

    def set_deadline(self, deadline: float) -> None:
        self._connection.set_deadline(deadline)

    def status(self) -> EngineStatus:
        now = self._connection.stats()
        syncer = syncer_facts.told(self._connection, self._prover)
        unproven = syncer_facts.unproven(syncer) if now.durable else ""
        return EngineStatus(
            engine=self.engine,
            version=now.version,
            uptime=now.uptime,
            durable=now.durable and self._still_writes(now) and not unproven,
            unproven=unproven,
            accepting=not now.draining,
            consumers=facts.consumers(self._connection, now),
            max_job=now.max_job,
            details={
                "id": now.id,
                "connections": now.connections,
                "puts": now.puts,
                "records": now.records,
                "files": now.files,
                "newest_file": now.newest_file,
                "jobs": now.jobs,
                "pid": now.pid,
                "reserved": now.reserved,
            },
            gauges=(
                EngineGauge("glassq_binlog_files", _FILES_HELP, now.files),
                EngineGauge("glassq_queue_connections", _CONNECTIONS_HELP, now.connections),
                *syncer_facts.gauges(syncer),
            ),
        )

    def facts(self, tubes: Sequence[str], *, job_size: int = 0, thorough: bool = False) -> Iterator[Fact]:
        if thorough:
            yield from facts.all_facts(self._connection, self._url, tubes, job_size)
        else:
            yield from facts.wrong(self._connection, self._url)
        yield from syncer_facts.facts(self._connection, self._prover, self._url, thorough=thorough)

    def explain(self, error: QueueError) -> Fact:
        return facts.explained(error, self._url)

    def check(self, *, aside: bool = False) -> None:
        probe = self._connection.probe_durability()
        prove(self._connection, [probe.id], self._prover, within=PROOF_WITHIN)

    def counts(self, tubes: Sequence[str] | None = None, *, states: frozenset[State] = ALL_STATES) -> list[TubeCounts]:
        names = self.tubes() if tubes is None else tubes
        return [_counts(self._connection.stats_tube(name)) for name in names]

    def tubes(self) -> list[str]:
        return [name for name in self._connection.tubes() if name not in (PROBE_TUBE, SYNCER_TUBE)]

    def first(self, state: WaitingState, tube: str) -> Job | None:
        while (job := self._connection.peek_first(state, tube)) is not None:
            # If a consumer took it between the two commands, another job is the first.
            with suppress(JobNotFound):
                return _job(self._connection.stats_job(job.id), job.body)
        return None

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
        ids = array("Q", filter(None, map(self._number, hints)))
        # there may be very many of them
        del hints
        scan = Scan(self._connection, states, frozenset(tubes), int(since or 0))
        # found, and not looked at yet; few at first, as whoever looks may want the newest ones only
        waiting: list[JobStats] = []
        most = FIRST
        for seen in scan.run(ids):
            if isinstance(seen, JobStats):
                waiting.append(seen)
                if len(waiting) < most:
                    continue
                most = min(2 * most, BODIES)
            yield from self._with_bodies(waiting)
            waiting = []
            if isinstance(seen, ScanShort):
                raise SearchIncomplete(seen.found, seen.promised, seen.looked)
            if progress is not None and not isinstance(seen, JobStats):
                progress(*seen)
        yield from self._with_bodies(waiting)

    def _with_bodies(self, found: Sequence[JobStats]) -> Iterator[Job]:
        """These jobs with their bodies, without those that are gone by now."""
        bodies = self._connection.pipeline([commands.peek(stats.id) for stats in found]) if found else ()
        for stats, body in zip(found, bodies, strict=True):
            if isinstance(body, QueueError) and not isinstance(body, JobNotFound):
                raise body
            if not isinstance(body, QueueError):
                yield _job(stats, body.body)

    def newest(self) -> str:
        return str(self._connection.max_job_id())

    def is_ref(self, text: str) -> bool:
        return bool(_REF.fullmatch(text))

    def get_all(self, refs: Sequence[str]) -> list[Job | QueueError]:
        numbers = [self._number(ref) for ref in refs]
        pairs: list[tuple[Command[Any], ...]] = [(commands.peek(one), commands.stats_job(one)) for one in numbers]
        replies = self._connection.pipeline([command for pair in pairs for command in pair])
        return [_seen(body, stats) for body, stats in zip(replies[::2], replies[1::2], strict=True)]

    def still(self, refs: Sequence[str], state: State) -> list[bool]:
        replies = self._connection.pipeline([commands.stats_job(self._number(ref)) for ref in refs])
        for reply in replies:
            if isinstance(reply, QueueError) and not isinstance(reply, JobNotFound):
                raise reply
        return [not isinstance(reply, QueueError) and reply.state == state for reply in replies]

    def peek_all(self, refs: Sequence[str]) -> list[bytes | QueueError]:
        bodies = self._connection.pipeline([commands.peek(self._number(ref)) for ref in refs])
        return [body if isinstance(body, QueueError) else body.body for body in bodies]

    def insert_all(self, forms: Sequence[NewForm]) -> list[str | QueueError]:
        return FormWriter(self._connection, self._prover).write([FormItem(form) for form in forms])

    def change_all(self, changes: Sequence[Change]) -> list[str | QueueError]:
        items = [FormItem.of(change, self._number(change.job.ref)) for change in changes]
        return FormWriter(self._connection, self._prover).write(items)

    def delete_all(self, jobs: Sequence[Job]) -> list[QueueError | None]:
        items = [FormItem.of(Change(job, "buried"), self._number(job.ref)) for job in jobs]
        return FormWriter(self._connection, self._prover).delete(items)

    def pause(self, tube: str, seconds: float) -> bool:
        return self._connection.pause(whole_seconds(seconds), tube)

    def close(self) -> None:
        self._connection.close()
        if self._prover is not None:
            self._prover.close()

    def _still_writes(self, now: ServerStats) -> bool:
        """Whether the server wrote the jobs put since the last look. After a failure, only new records prove it."""
        before, self._last = self._last, now
        if before is None or before.id != now.id:
            self._writes = True
        else:
            self._writes = now.records > before.records or (self._writes and now.jobs == before.jobs)
        return self._writes

    def _number(self, ref: str) -> int:
        """The id; 0, which no job has, for what is no reference."""
        number = int(ref) if self.is_ref(ref) else 0
        return number if number <= MAX_ID else 0


def _seen(body: JobBody | QueueError, stats: JobStats | QueueError) -> Job | QueueError:
    if isinstance(body, QueueError):
        return body
    return stats if isinstance(stats, QueueError) else _job(stats, body.body)


def _job(stats: JobStats, body: bytes) -> Job:
    at_work = stats.state == "reserved"
    known = stats.state == "ready" and not (stats.releases or stats.kicks)
    return Job(
        ref=str(stats.id),
        tube=stats.tube,
        state=stats.state,
        body=body,
        age=stats.age,
        time_left=stats.time_left,
        # A job's age counts from its put, so its delay is subtracted. Nothing tells when a kicked job became ready.
        ready_for=max(0, stats.age - stats.delay) if known else None,
        losses=stats.lost if at_work else stats.lost_before,
        kicked=stats.kicks > 0,
        durable=stats.file > 0,
        counters={
            "delay": stats.delay,
            "ttr": stats.ttr,
            "file": stats.file,
            "reserves": stats.reserves,
            "timeouts": stats.timeouts,
            "releases": stats.releases,
            "buries": stats.buries,
            "kicks": stats.kicks,
        },
    )


def _counts(tube: TubeStats) -> TubeCounts:
    states = (tube.ready, tube.reserved, tube.delayed, tube.buried)
    return TubeCounts(tube.name, *states, tube.waiting, tube.paused_for, tube.total, tube.deleted, tube.pause or None)
