"""Puts deliveries into the queue for many request threads, within the time a sender waits."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, TypeVar

from glassq.errors import JobNotFound, JobTooBig, QueueUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from glassq.queues import JobStats, Queue, ServerStats

T = TypeVar("T")

# A sender has its answer within 5 s, whatever the queue does; so much of it is the queue's, the rest the spool's.
BUDGET = 4.5


class Enqueue:
    """A few queue connections, each lent to one thread at a time. Made after the fork."""

    def __init__(self, connect: Callable[[], Queue]) -> None:
        """`connect` makes an unconnected queue."""
        self._connect = connect
        # the one used last is the likeliest to live, and few are ever made
        self._idle: deque[Queue] = deque()

    def put(self, job: bytes) -> int:
        """The id of the job that the queue has taken.

        Raises QueueUnavailable, QueueRefused or JobTooBig within BUDGET seconds. The job may have been put all the
        same: kept once more elsewhere, it is worked twice.
        """
        return self._call(lambda queue: queue.put(job))

    def stats(self) -> ServerStats:
        """What the server says of itself, on the same connections and within the same time. Raises QueueError."""
        return self._call(lambda queue: queue.stats())

    def stats_job(self, job_id: int) -> JobStats:
        """A job's state and counters. Raises JobNotFound, or QueueError like `put`."""
        return self._call(lambda queue: queue.stats_job(job_id))

    def probe(self) -> JobStats:
        """What becomes of a job put now, tried with one that nobody works. Raises QueueError like `put`."""
        return self._call(lambda queue: queue.probe())

    def close(self) -> None:
        """Closes the connections that nobody uses now; more are made where they are needed."""
        while self._idle:
            self._borrow().close()

    def _call(self, command: Callable[[Queue], T]) -> T:
        over = time.monotonic() + BUDGET
        try:
            return self._on(self._borrow(), command, over)
        except QueueUnavailable:
            # A connection that broke while it lay idle shows only now; its like in the pool broke with it.
            self.close()
        return self._on(self._connect(), command, over)

    def _on(self, queue: Queue, command: Callable[[Queue], T], over: float) -> T:
        queue.set_deadline(over)
        try:
            result = command(queue)
        except (JobNotFound, JobTooBig):
            self._idle.append(queue)
            raise
        except BaseException:
            queue.close()
            raise
        self._idle.append(queue)
        return result

    def _borrow(self) -> Queue:
        try:
            return self._idle.pop()
        except IndexError:
            return self._connect()
