"""Puts deliveries into PostgreSQL: a batch is one statement, and its answer is the proof."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

from glassq.connections import ConnectionPool
from glassq.database.postgres import Unreplicated
from glassq.errors import JobTooBig, NotDurable, QueueError, QueueUnavailable
from glassq.queues.again import put_again
from glassq.queues.base import Receipt, Refusal
from glassq.queues.postgres import statements
from glassq.queues.postgres.limits import fault

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from glassq.database.postgres import PostgresSession
    from glassq.queues.base import NewJob
    from glassq.queues.postgres.waking import Waker

# A statement takes at most so many jobs and bytes: the server holds it in memory whole.
MANY, MUCH = 1000, 4 << 20
# A job of this many bytes is tried, as an empty one finds room in a page even where the disk is full.
PROBE = 64 << 10
LAZY = "the server does not wait for its disk (fsync or synchronous_commit): a crash would lose what is put now"


class PostgresProducer:
    """See `glassq.queues.base.Producer`."""

    def __init__(self, session: Callable[[], PostgresSession], waker: Waker) -> None:
        """`session` makes an unconnected one."""
        self._pool: ConnectionPool[PostgresSession] = ConnectionPool(session)
        self._waker = waker
        # whether a put has failed since one went well
        self._doubtful = False

    def put(self, jobs: Sequence[NewJob], *, within: float, again: bool = False) -> list[Receipt | Refusal]:
        attempt = partial(self._attempt, deadline=time.monotonic() + within)
        faults = [fault(job) for job in jobs]
        good = [job for job, error in zip(jobs, faults, strict=True) if error is None]
        answers = put_again(attempt, good, again=again, reconnect=self._pool.close)
        if answers:
            self._doubtful = any(map(_is_trouble, answers))
        left = iter(answers)
        return [
            next(left) if error is None else Refusal(job.key, error) for job, error in zip(jobs, faults, strict=True)
        ]

    def confirm(self, receipts: Sequence[Receipt], *, within: float) -> None:
        """The commit was the proof."""

    def check(self, *, within: float) -> None:
        with self._pool.lend(time.monotonic() + within) as session:
            [(fsync, commit, read_only)] = session.rows(statements.SAFE)
            if fsync != "on" or commit in ("off", "local"):
                raise NotDurable(LAZY)
            if read_only:
                raise QueueUnavailable("the server takes no writes any more: it became a standby")
            if self._doubtful:
                try_to_put(session)
                session.rows(statements.COMMIT_NOTHING)
                self._doubtful = False

    def withdraw(self, receipt: Receipt, *, within: float) -> bool:
        with self._pool.lend(time.monotonic() + within) as session:
            return bool(session.rows(statements.WITHDRAW, [int(receipt.ref)]))

    def close(self) -> None:
        self._pool.close()
        self._waker.close()

    def _attempt(self, jobs: Sequence[NewJob], deadline: float) -> list[Receipt | Refusal]:
        """One answer for each job, in order. What follows a failure is not sent."""
        answers: list[Receipt | Refusal] = []
        for batch in _batches(jobs):
            answers += self._put_batch(batch, deadline)
            if isinstance(failed := answers[-1], Refusal):
                return answers + [Refusal(job.key, failed.error) for job in jobs[len(answers) :]]
        return answers

    def _put_batch(self, batch: Sequence[NewJob], deadline: float) -> list[Receipt | Refusal]:
        sent = False
        try:
            with self._pool.lend(deadline) as session:
                sent = True
                ids = put(session, batch)
        except QueueError as error:
            doubt = sent and in_doubt(error)
            return [Refusal(job.key, error, in_doubt=doubt) for job in batch]
        self._waker.tell({job.tube for job in batch if not job.delay})
        return [Receipt(job.key, str(ref)) for job, ref in zip(batch, ids, strict=True)]


def put(session: PostgresSession, jobs: Sequence[NewJob]) -> list[int]:
    """Puts the jobs in one transaction; their ids. Raises QueueError; NotDurable in doubt if it is a warning's."""
    columns = [
        [job.tube for job in jobs],
        [job.key for job in jobs],
        [job.body for job in jobs],
        [float(job.delay) for job in jobs],
    ]
    ids = sorted(ref for (ref,) in session.quick_rows(statements.PUT, columns))
    if not ids:
        raise NotDurable(LAZY)
    return ids


def try_to_put(session: PostgresSession) -> None:
    """Raises QueueError if no job can be put now. Leaves none."""
    with session.transaction(keep=False):
        session.rows("INSERT INTO glassq_jobs (tube, body, state) VALUES ('glassq-probe', %s, 2)", [bytes(PROBE)])


def in_doubt(error: QueueError) -> bool:
    """Whether what was sent may have happened though this is its answer."""
    state = getattr(error.__cause__, "sqlstate", None)
    if isinstance(error, Unreplicated):
        return True
    # the server has said no, and did not say it as it went down
    return isinstance(error, QueueUnavailable) and (not state or state.startswith(("57P", "08")))


def _is_trouble(answer: Receipt | Refusal) -> bool:
    """Whether it tells of an engine that takes nothing now; a job that is too big is a job's own fault."""
    return isinstance(answer, Refusal) and not isinstance(answer.error, JobTooBig)


def _batches(jobs: Sequence[NewJob]) -> Iterator[list[NewJob]]:
    batch: list[NewJob] = []
    size = 0
    for job in jobs:
        if batch and (len(batch) == MANY or size + len(job.body) > MUCH):
            yield batch
            batch, size = [], 0
        batch.append(job)
        size += len(job.body)
    if batch:
        yield batch
