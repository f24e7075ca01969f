"""Puts deliveries into PostgreSQL: a batch is one statement, and its answer is the proof."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from msgspec.structs import replace

from glassq.connections import ConnectionPool
from glassq.database.postgres import Unreplicated
from glassq.errors import NotDurable, QueueError, QueueUnavailable
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
        deadline = time.monotonic() + within
        answers: dict[int, Receipt | Refusal] = {}
        good = []
        for index, job in enumerate(jobs):
            if (error := fault(job)) is None:
                good.append(index)
            else:
                answers[index] = Refusal(job.key, error)
        answers.update(self._put([(index, jobs[index]) for index in good], deadline))
        broken = [index for index in good if isinstance(getattr(answers[index], "error", None), QueueUnavailable)]
        if again and broken:
            # most likely the other idle connections broke with this one
            self._pool.close()
            for index, answer in self._put([(index, jobs[index]) for index in broken], deadline).items():
                answers[index] = _both(answers[index], answer)
        self._doubtful = any(isinstance(answers[index], Refusal) for index in good)
        return [answers[index] for index in range(len(jobs))]

    def confirm(self, receipts: Sequence[Receipt], *, within: float) -> None:
        """The commit was the proof."""

    def check(self, *, within: float, thorough: bool = False) -> None:
        with self._pool.lend(time.monotonic() + within) as session:
            [(fsync, commit, read_only)] = session.rows(statements.SAFE)
            if fsync != "on" or commit in ("off", "local"):
                raise NotDurable(LAZY)
            if read_only:
                raise QueueUnavailable("the server takes no writes any more: it became a standby")
            if self._doubtful:
                try_to_put(session)
                self._doubtful = False

    def withdraw(self, receipt: Receipt, *, within: float) -> bool:
        with self._pool.lend(time.monotonic() + within) as session:
            return bool(session.rows(statements.WITHDRAW, [int(receipt.ref)]))

    def close(self) -> None:
        self._pool.close()
        self._waker.close()

    def _put(self, jobs: Sequence[tuple[int, NewJob]], deadline: float) -> dict[int, Receipt | Refusal]:
        """The answer for each job, by its number. What follows a failure is not sent."""
        answers: dict[int, Receipt | Refusal] = {}
        failed: QueueError | None = None
        for batch in _batches(jobs):
            if failed is None:
                answers.update(self._put_batch(batch, deadline))
                failed = getattr(answers[batch[0][0]], "error", None)
            else:
                answers.update({index: Refusal(job.key, failed) for index, job in batch})
        return answers

    def _put_batch(self, batch: Sequence[tuple[int, NewJob]], deadline: float) -> dict[int, Receipt | Refusal]:
        sent = False
        try:
            with self._pool.lend(deadline) as session:
                sent = True
                ids = put(session, [job for _, job in batch])
        except QueueError as error:
            doubt = sent and in_doubt(error)
            return {index: Refusal(job.key, error, in_doubt=doubt) for index, job in batch}
        self._waker.tell({job.tube for _, job in batch if not job.delay})
        return {index: Receipt(job.key, str(ref)) for (index, job), ref in zip(batch, ids, strict=True)}


def put(session: PostgresSession, jobs: Sequence[NewJob]) -> list[int]:
    """Puts the jobs in one transaction; their ids. Raises QueueError; NotDurable in doubt if it is a warning's."""
    columns = [
        [job.tube for job in jobs],
        [job.key for job in jobs],
        [job.body for job in jobs],
        [float(job.delay) for job in jobs],
    ]
    ids = sorted(ref for (ref,) in session.rows(statements.PUT, columns))
    if not ids:
        raise NotDurable(LAZY)
    return ids


def try_to_put(session: PostgresSession) -> None:
    """Raises QueueError if no job can be put now. Leaves none."""
    with session.transaction(keep=False):
        session.rows("INSERT INTO glassq_jobs (tube, body, state) VALUES ('glassq-probe', '', 2)")


def in_doubt(error: QueueError) -> bool:
    """Whether what was sent may have happened though this is its answer."""
    state = getattr(error.__cause__, "sqlstate", None)
    if isinstance(error, Unreplicated):
        return True
    # the server has said no, and did not say it as it went down
    return isinstance(error, QueueUnavailable) and (not state or state.startswith(("57P", "08")))


def _batches(jobs: Sequence[tuple[int, NewJob]]) -> Iterator[list[tuple[int, NewJob]]]:
    batch: list[tuple[int, NewJob]] = []
    size = 0
    for each in jobs:
        if batch and (len(batch) == MANY or size + len(each[1].body) > MUCH):
            yield batch
            batch, size = [], 0
        batch.append(each)
        size += len(each[1].body)
    if batch:
        yield batch


def _both(first: Receipt | Refusal, second: Receipt | Refusal) -> Receipt | Refusal:
    """The answer for a job after two attempts: if the first may have put it, it stays in doubt."""
    if isinstance(second, Refusal) and isinstance(first, Refusal) and first.in_doubt:
        return replace(second, in_doubt=True)
    return second
