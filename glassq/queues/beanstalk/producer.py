"""Puts deliveries into beanstalkd, and proves that they are in its binlog.

After one failed write beanstalkd goes on without its binlog until it is restarted, and answers INSERTED as before. So
an answer proves nothing: a job is durable once stats-job shows it in a binlog file. beanstalkd never resumes writing by
itself, so a proof of the newest job that still exists holds for all jobs before it.
"""

from __future__ import annotations

import time
from contextlib import contextmanager, suppress
from heapq import nlargest
from typing import TYPE_CHECKING

from msgspec.structs import replace

from glassq.errors import JobNotFound, JobTooBig, NotDurable, QueueError, QueueRefused, QueueUnavailable
from glassq.queues.base import Receipt, Refusal
from glassq.queues.beanstalk.connection import IN_MEMORY_ONLY, WITHOUT_BINLOG, whole_seconds
from glassq.queues.beanstalk.pool import ConnectionPool
from glassq.queues.beanstalk.protocol import DRAINING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from glassq.queues.base import NewJob
    from glassq.queues.beanstalk.connection import BeanstalkConnection
    from glassq.queues.beanstalk.protocol import ServerStats

# A proof looks for this many of the newest jobs at most, until it finds one that no consumer has finished.
SAMPLE = 8


class BeanstalkProducer:
    """See `glassq.queues.base.Producer`."""

    def __init__(self, connect: Callable[[], BeanstalkConnection], *, require_durable: bool = True) -> None:
        """`connect` makes an unconnected connection. Without `require_durable` nothing is proven."""
        self._pool = ConnectionPool(connect)
        self._require_durable = require_durable
        self._last: ServerStats | None = None
        # whether a call has failed since a put was last seen in the binlog
        self._doubtful = False

    def put(self, jobs: Sequence[NewJob], *, within: float, again: bool = False) -> list[Receipt | Refusal]:
        deadline = time.monotonic() + within
        answers = self._attempt(jobs, deadline)
        refused = {index: answer.error for index, answer in enumerate(answers) if isinstance(answer, Refusal)}
        if not refused:
            return answers
        broken = [index for index, error in refused.items() if isinstance(error, QueueUnavailable)]
        if again and broken:
            # most likely the other idle connections broke with this one
            self._pool.close()
            repeated = self._attempt([jobs[index] for index in broken], deadline)
            for index, answer in zip(broken, repeated, strict=True):
                answers[index] = _both(answers[index], answer)
        if any(isinstance(answer, Refusal) and not isinstance(answer.error, JobTooBig) for answer in answers):
            self._doubtful = True
        return answers

    def confirm(self, receipts: Sequence[Receipt], *, within: float) -> None:
        if not (self._require_durable and receipts):
            return
        with self._doubting_failures(), self._pool.lend(time.monotonic() + within) as connection:
            if not _in_binlog(connection, receipts):
                raise NotDurable(IN_MEMORY_ONLY)

    def check(self, *, within: float, thorough: bool = False) -> None:
        with self._doubting_failures(), self._pool.lend(time.monotonic() + within) as connection:
            now = connection.stats()
            if now.draining:
                raise QueueRefused(DRAINING)
            if self._require_durable and not now.durable:
                raise NotDurable(WITHOUT_BINLOG)
            if thorough:
                self._check_that_it_writes(connection, now)

    def withdraw(self, receipt: Receipt, *, within: float) -> bool:
        try:
            with self._pool.lend(time.monotonic() + within) as connection:
                connection.delete(int(receipt.ref))
        except JobNotFound:
            return False
        return True

    def close(self) -> None:
        self._pool.close()

    def _attempt(self, jobs: Sequence[NewJob], deadline: float) -> list[Receipt | Refusal]:
        """One answer for each job, in order."""
        answers: list[Receipt | Refusal] = []
        sending = False
        try:
            with self._pool.lend(deadline) as connection:
                for job in jobs:
                    sending = True
                    answers.append(_put(connection, job))
                    sending = False
        except QueueError as error:
            for job in jobs[len(answers) :]:
                answers.append(Refusal(job.key, error, in_doubt=sending and isinstance(error, QueueUnavailable)))
                sending = False
        return answers

    def _check_that_it_writes(self, connection: BeanstalkConnection, now: ServerStats) -> None:
        # Counters alone prove nothing: they include refused puts, and start at 0 with the server.
        before, self._last = self._last, now
        stands_still = before is not None and now.puts > before.puts and now.records == before.records
        if (self._doubtful or stands_still) and connection.probe_durability().file == 0 and self._require_durable:
            raise NotDurable(IN_MEMORY_ONLY)
        self._doubtful = False

    @contextmanager
    def _doubting_failures(self) -> Iterator[None]:
        try:
            yield
        except QueueError:
            self._doubtful = True
            raise


def _put(connection: BeanstalkConnection, job: NewJob) -> Receipt | Refusal:
    """Raises QueueUnavailable or QueueRefused, which hold for all other jobs too."""
    try:
        return Receipt(job.key, str(connection.put(job.body, delay=whole_seconds(job.delay), tube=job.tube)))
    except (QueueUnavailable, QueueRefused):
        raise
    except QueueError as error:
        return Refusal(job.key, error)


def _both(first: Receipt | Refusal, second: Receipt | Refusal) -> Receipt | Refusal:
    """The answer for a job after two attempts: if the first may have put it, it stays in doubt."""
    if isinstance(second, Refusal) and isinstance(first, Refusal) and first.in_doubt:
        return replace(second, in_doubt=True)
    return second


def _in_binlog(connection: BeanstalkConnection, receipts: Sequence[Receipt]) -> bool:
    """Whether the newest of these that still exists is in the binlog; a probe, where consumers have finished all."""
    # By id, which is the order of the puts: threads may hand over their receipts in another one.
    for job_id in nlargest(SAMPLE, (int(receipt.ref) for receipt in receipts)):
        with suppress(JobNotFound):
            return connection.stats_job(job_id).file > 0
    return connection.probe_durability().file > 0
