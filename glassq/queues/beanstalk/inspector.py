"""Looks at beanstalkd's jobs and decides on them, for operators."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING

from glassq.errors import JobNotFound, SearchIncomplete
from glassq.queues.base import ALL_STATES, Capabilities, EngineGauge, EngineStatus, Job, TubeCounts
from glassq.queues.beanstalk import facts
from glassq.queues.beanstalk.connection import whole_seconds
from glassq.queues.beanstalk.protocol import MAX_SECONDS, JobStats, ScanShort
from glassq.queues.beanstalk.receiver import BURY_DELAY
from glassq.queues.beanstalk.scan import Scan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from glassq.errors import QueueError
    from glassq.queues.base import Fact, State, WaitingState
    from glassq.queues.beanstalk.connection import BeanstalkConnection
    from glassq.queues.beanstalk.protocol import ServerStats, TubeStats
    from glassq.values import QueueUrl

# beanstalkd's ids have no leading zero; our delivery ids will have one for some centuries.
_REF = re.compile(r"[1-9]\d{0,19}")
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


class BeanstalkInspector:
    """See `glassq.queues.base.Inspector`."""

    engine = "beanstalkd"
    capabilities = CAPABILITIES

    def __init__(self, connection: BeanstalkConnection, url: QueueUrl) -> None:
        self._connection = connection
        self._url = url
        self._last: ServerStats | None = None
        self._writes = True

    def set_deadline(self, deadline: float) -> None:
        self._connection.set_deadline(deadline)

    def status(self) -> EngineStatus:
        now = self._connection.stats()
        return EngineStatus(
            engine=self.engine,
            version=now.version,
            uptime=now.uptime,
            durable=now.durable and self._still_writes(now),
            accepting=not now.draining,
            consumers=now.workers,
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
            ),
        )

    def facts(self, tubes: Sequence[str], *, job_size: int = 0, thorough: bool = False) -> Iterator[Fact]:
        if thorough:
            return facts.all_facts(self._connection, self._url, tubes, job_size)
        return facts.wrong(self._connection, self._url)

    def explain(self, error: QueueError) -> Fact:
        return facts.explained(error, self._url)

    def check(self) -> None:
        self._connection.probe_durability()

    def counts(self, tubes: Sequence[str] | None = None) -> list[TubeCounts]:
        names = self._connection.tubes() if tubes is None else tubes
        return [_counts(self._connection.stats_tube(name)) for name in names]

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
        progress: Callable[[int, int], None] | None = None,
    ) -> Iterator[Job]:
        ids = [int(ref) for ref in hints if self.is_ref(ref)]
        scan = Scan(self._connection, states, frozenset(tubes), int(since or 0))
        for seen in scan.run(ids):
            if isinstance(seen, ScanShort):
                raise SearchIncomplete(seen.found, seen.promised, seen.looked)
            if isinstance(seen, JobStats):
                with suppress(JobNotFound):
                    yield _job(seen, self._connection.peek(seen.id).body)
            elif progress is not None:
                progress(*seen)

    def newest(self) -> str:
        return str(self._connection.max_job_id())

    def is_ref(self, text: str) -> bool:
        return bool(_REF.fullmatch(text))

    def get(self, ref: str) -> Job:
        job = self._connection.peek(self._id(ref))
        return _job(self._connection.stats_job(job.id), job.body)

    def peek(self, ref: str) -> bytes:
        return self._connection.peek(self._id(ref)).body

    def insert(self, body: bytes, *, tube: str, state: WaitingState, delay: float = 0.0) -> str:
        wait = BURY_DELAY if state == "buried" else whole_seconds(delay) if state == "delayed" else 0
        job = self._connection.put(body, delay=wait, tube=tube)
        if state == "buried":
            self._bury(job)
        return str(job)

    def change(
        self, job: Job, *, state: WaitingState, body: bytes | None = None, tube: str = "", delay: float = 0.0
    ) -> str:
        old, body, tube = self._id(job.ref), job.body if body is None else body, tube or job.tube
        if (body, tube) != (job.body, job.tube) or state == "delayed":
            return str(self._replace(old, job, body, tube, state, delay))
        self._check_seen(old, job)
        if state == "buried":
            self._bury(old)
        elif job.state != "ready":
            self._connection.kick(old)
        return job.ref

    def delete(self, job: Job) -> None:
        old = self._id(job.ref)
        self._check_seen(old, job)
        self._connection.delete(old)

    def pause(self, tube: str, seconds: float) -> bool:
        return self._connection.pause(whole_seconds(seconds), tube)

    def close(self) -> None:
        self._connection.close()

    def _replace(self, old: int, job: Job, body: bytes, tube: str, state: WaitingState, delay: float) -> int:
        """Puts the new job before it deletes the old one: a crash in between leaves two jobs, never none.

        The new job is delayed until the old one is ours, so that no consumer works both.
        """
        new = self._connection.put(body, delay=whole_seconds(delay) if state == "delayed" else BURY_DELAY, tube=tube)
        try:
            self._check_seen(old, job)
            self._connection.reserve_job(old)
        except JobNotFound:
            self._connection.delete(new)
            raise
        if state == "buried":
            self._bury(new)
        self._connection.delete(old, held=True)
        if state == "ready":
            # Its delay may have ended meanwhile, and a consumer works it: then there is nothing to release.
            with suppress(JobNotFound):
                self._connection.reserve_job(new)
                self._connection.release(new)
        return new

    def _bury(self, job: int) -> None:
        self._connection.reserve_job(job)
        self._connection.bury(job)

    def _check_seen(self, job_id: int, job: Job) -> None:
        if self._connection.peek(job_id).body != job.body:
            raise JobNotFound("this job id now belongs to another delivery")

    def _still_writes(self, now: ServerStats) -> bool:
        """Whether the server wrote the jobs put since the last look. After a failure, only new records prove it."""
        before, self._last = self._last, now
        if before is None or before.id != now.id:
            self._writes = True
        else:
            self._writes = now.records > before.records or (self._writes and now.jobs == before.jobs)
        return self._writes

    def _id(self, ref: str) -> int:
        if not self.is_ref(ref):
            raise JobNotFound(f"there is no job {ref}")
        return int(ref)


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
    return TubeCounts(tube.name, tube.ready, tube.reserved, tube.delayed, tube.buried, tube.waiting, tube.paused_for)
