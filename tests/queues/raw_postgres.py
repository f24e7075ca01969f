"""A queue in PostgreSQL with the words of raw.py, for tests of what both engines can do."""

from __future__ import annotations

from contextlib import closing, contextmanager
from functools import cache
from typing import TYPE_CHECKING

from glassq.database.locks import HOLDERS
from glassq.database.postgres import PostgresSession
from glassq.queues.beanstalk.protocol import JobBody, JobStats
from glassq.queues.postgres import schema
from glassq.queues.postgres.inspector import PostgresInspector

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from glassq.queues.base import Job, TubeCounts, WaitingState
    from glassq.values import QueueUrl
    from tests.postgres import PostgresServer

# The session of this holder lives as long as the queue is open.
HOLDER = 4711
TIMEOUT = 20.0


def fresh_url(server: PostgresServer) -> QueueUrl:
    """A database of its own, with the queue's tables."""
    return server.url(server.database(_with_tables(server)))


@cache
def _with_tables(server: PostgresServer) -> str:
    """The name of a database to copy: that takes half of the time that it takes to make the tables."""
    name = server.database()
    with closing(PostgresSession(server.url(name), name="tests", connect_timeout=TIMEOUT, timeout=TIMEOUT)) as session:
        schema.upgrade(session)
    return name


class PostgresQueue:
    """Puts jobs, brings them into any state, and looks at them."""

    tube = "glassq"

    def __init__(self, url: QueueUrl) -> None:
        self.url = url
        self._session = PostgresSession(url, name="tests", connect_timeout=TIMEOUT, timeout=TIMEOUT)
        self._inspector = PostgresInspector(self._session, url)

    def put(self, body: bytes, *, delay: float = 0, tube: str = "glassq") -> int:
        return int(self._inspector.insert(body, tube=tube, state="delayed" if delay else "ready", delay=delay))

    def reserve_job(self, job: int) -> None:
        self._session.rows("SELECT pg_advisory_lock(%s::int, %s::int)", [HOLDERS, HOLDER])
        self._session.rows(
            "UPDATE glassq_jobs SET state = 1, token = token + 1, holder = %s, lease_until = now() + interval '1 hour' "
            "WHERE id = %s",
            [HOLDER, job],
        )

    def reserve(self, timeout: float = 0, tubes: Sequence[str] = ("glassq",)) -> JobBody | None:
        found = self._session.rows(
            "SELECT id FROM glassq_jobs WHERE state = 0 AND due <= now() AND tube = ANY(%s) AND NOT EXISTS "
            "(SELECT FROM glassq_tubes WHERE name = tube AND paused_until > now()) ORDER BY due, id LIMIT 1",
            [list(tubes)],
        )
        for (job,) in found:
            self.reserve_job(job)
            return self.peek(job)
        return None

    def bury(self, job: int) -> None:
        self._session.rows("UPDATE glassq_jobs SET state = 2, holder = NULL WHERE id = %s", [job])

    def delete(self, job: int, *, held: bool = False) -> None:
        self._session.rows("DELETE FROM glassq_jobs WHERE id = %s", [job])

    def stats_job(self, job: int) -> JobStats:
        return _stats(self._inspector.get(str(job)))

    def stats_tube(self, tube: str = "glassq") -> TubeCounts:
        return self._inspector.counts([tube])[0]

    def peek(self, job: int) -> JobBody:
        return JobBody(job, self._inspector.peek(str(job)))

    def peek_first(self, state: WaitingState, tube: str = "glassq") -> JobBody | None:
        found = self._inspector.first(state, tube)
        return JobBody(int(found.ref), found.body) if found else None

    def scan(self, states: frozenset[str], *tubes: str) -> Iterator[JobStats]:
        found = self._inspector.find(states, tubes or ("glassq",))  # type: ignore[arg-type]
        return (_stats(job) for job in found)

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """For the block, nobody but a superuser may put jobs."""
        self._session.rows("REVOKE INSERT ON glassq_jobs FROM CURRENT_USER")
        try:
            yield
        finally:
            self._session.rows("GRANT INSERT ON glassq_jobs TO CURRENT_USER")

    def close(self) -> None:
        self._session.close()


def _stats(job: Job) -> JobStats:
    return JobStats(
        id=int(job.ref),
        tube=job.tube,
        state=job.state,
        age=int(job.age),
        delay=0,
        ttr=0,
        time_left=int(job.time_left),
        file=1,
        reserves=job.losses,
        timeouts=0,
        releases=0,
        buries=0,
        kicks=int(job.kicked),
    )
