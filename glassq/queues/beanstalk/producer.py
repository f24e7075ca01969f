"""Puts deliveries into beanstalkd, in packets, and proves that they are on disk (proof.py)."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from glassq.connections import ConnectionPool
from glassq.errors import JobNotFound, JobTooBig, NotDurable, QueueError, QueueRefused
from glassq.queues.again import put_again
from glassq.queues.base import Receipt, Refusal
from glassq.queues.beanstalk import commands
from glassq.queues.beanstalk.connection import IN_MEMORY_ONLY, WITHOUT_BINLOG, whole_seconds
from glassq.queues.beanstalk.packet import Unanswered
from glassq.queues.beanstalk.proof import prove_by_answer
from glassq.queues.beanstalk.protocol import DRAINING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from glassq.queues.base import NewJob
    from glassq.queues.beanstalk.commands import Command
    from glassq.queues.beanstalk.connection import BeanstalkConnection
    from glassq.queues.beanstalk.protocol import ServerStats
    from glassq.queues.beanstalk.prover import Prover

# The error of a proof for what another run of the server has answered.
RESTARTED = "beanstalkd was restarted before what it answered was proven to be on disk"


class BeanstalkProducer:
    """See `glassq.queues.base.Producer`."""

    def __init__(
        self,
        connect: Callable[[], BeanstalkConnection],
        prover: Prover | None = None,
    ) -> None:
        """`connect` makes an unconnected connection.

        `prover` asks the syncer; None: there is no syncer, and beanstalkd's answers are proof enough.
        """
        self._pool = ConnectionPool(connect)
        self._prover = prover
        self._last: ServerStats | None = None
        # whether a call has failed since a put was last seen in the binlog
        self._doubtful = False

    def put(self, jobs: Sequence[NewJob], *, within: float, again: bool = False) -> list[Receipt | Refusal]:
        deadline = time.monotonic() + within
        answers = put_again(lambda jobs: self._attempt(jobs, deadline), jobs, again=again, reconnect=self._pool.close)
        if any(isinstance(answer, Refusal) and not isinstance(answer.error, JobTooBig) for answer in answers):
            self._doubtful = True
        return answers

    def confirm(self, receipts: Sequence[Receipt], *, within: float) -> None:
        deadline = time.monotonic() + within
        with self._doubting_failures():
            for server in {receipt.server for receipt in receipts}:
                if self._prover is not None:
                    self._prover.prove(server, deadline=deadline)
                else:
                    self._prove_by_answer([each for each in receipts if each.server == server], server, deadline)

    def check(self, *, within: float) -> None:
        deadline = time.monotonic() + within
        with self._doubting_failures(), self._pool.lend(deadline) as connection:
            now = connection.stats()
            if now.draining:
                raise QueueRefused(DRAINING)
            if not now.durable:
                raise NotDurable(WITHOUT_BINLOG)
            if self._prover is None:
                connection.check_interval()
            self._check_that_it_writes(connection, now, deadline)

    def withdraw(self, receipt: Receipt, *, within: float) -> bool:
        try:
            with self._pool.lend(time.monotonic() + within) as connection:
                if receipt.server != connection.server_id():
                    # Since the server's restart the id may be another job's.
                    return False
                connection.delete(int(receipt.ref))
        except JobNotFound:
            return False
        return True

    def close(self) -> None:
        self._pool.close()
        if self._prover is not None:
            self._prover.close()

    def _attempt(self, jobs: Sequence[NewJob], deadline: float) -> list[Receipt | Refusal]:
        """One answer for each job, in order."""
        if not jobs:
            return []
        try:
            with self._pool.lend(deadline) as connection:
                # asked before anything is put, so that a failure leaves no doubt
                server = connection.server_id()
                answers = _put(connection, jobs, server)
                if any(isinstance(each, Refusal) and isinstance(each.error, QueueRefused) for each in answers):
                    # it ends, or will be restarted
                    connection.close()
                return answers
        except QueueError as error:
            return [Refusal(job.key, error) for job in jobs]

    def _prove_by_answer(self, receipts: Sequence[Receipt], server: str, deadline: float) -> None:
        with self._pool.lend(deadline) as connection:
            if connection.server_id() != server:
                raise NotDurable(RESTARTED)
            prove_by_answer(connection, [int(receipt.ref) for receipt in receipts])

    def _check_that_it_writes(self, connection: BeanstalkConnection, now: ServerStats, deadline: float) -> None:
        # Counters alone prove nothing: they include refused puts, and start at 0 with the server.
        before, self._last = self._last, now
        stands_still = before is not None and now.puts > before.puts and now.records == before.records
        if (self._doubtful or stands_still) and connection.probe_durability().file == 0:
            raise NotDurable(IN_MEMORY_ONLY)
        if self._prover is not None:
            self._prover.prove(now.id, deadline=deadline)
        self._doubtful = False

    @contextmanager
    def _doubting_failures(self) -> Iterator[None]:
        try:
            yield
        except QueueError:
            self._doubtful = True
            raise


def _put(connection: BeanstalkConnection, jobs: Sequence[NewJob], server: str) -> list[Receipt | Refusal]:
    """One answer for each job, in order. Never raises QueueError."""
    made = [_command(job, connection.ttr) for job in jobs]
    sent: list[Command[int]] = [each for each in made if not isinstance(each, QueueError)]
    replies = iter(connection.pipeline(sent))
    answers: list[Receipt | Refusal] = []
    for job, command in zip(jobs, made, strict=True):
        reply = command if isinstance(command, QueueError) else next(replies)
        if isinstance(reply, QueueError):
            answers.append(Refusal(job.key, reply, in_doubt=isinstance(reply, Unanswered) and reply.sent))
        else:
            answers.append(Receipt(job.key, str(reply), server))
    return answers


def _command(job: NewJob, ttr: int) -> Command[int] | QueueError:
    """The command that puts the job; its error if the server could not understand it."""
    try:
        return commands.put(job.body, tube=job.tube, ttr=ttr, delay=whole_seconds(job.delay))
    except QueueError as error:
        return error
