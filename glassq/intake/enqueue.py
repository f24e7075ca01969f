"""Puts deliveries into the queue for many request threads, within the time a sender waits."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, TypeVar

from glassq.errors import JobNotFound, QueueUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from glassq.queues import JobStats, Queue, ServerStats

T = TypeVar("T")

# A sender has its answer within this, in seconds, whatever the queue does.
BUDGET = 5.0


class Enqueue:
    """A few queue connections, each lent to one thread at a time. Made after the fork."""

    def __init__(self, connect: Callable[[], Queue], slowest: float) -> None:
        """`connect` makes an unconnected queue; `slowest` is how long one call on it can take, in seconds."""
        self._connect = connect
        self._slowest = slowest
        # the one used last is the likeliest to live, and few are ever made
        self._idle: deque[Queue] = deque()

    def put(self, job: bytes) -> int:
        """The id of the job that the queue has taken.

        Raises QueueUnavailable or QueueRefused within BUDGET seconds. The job may have been put all the same: kept
        once more elsewhere, it is worked twice.
        """
        return self._call(lambda queue: queue.put(job))

    def stats(self) -> ServerStats:
        """What the server says of itself, on the same connections and within the same time. Raises QueueError."""
        return self._call(lambda queue: queue.stats())

    def stats_job(self, job_id: int) -> JobStats:
        """A job's state and counters. Raises JobNotFound, or QueueError like `put`."""
        return self._call(lambda queue: queue.stats_job(job_id))

    def _call(self, command: Callable[[Queue], T]) -> T:
        started = time.monotonic()
        try:
            return self._on(self._borrow(), command)
        except QueueUnavailable:
            # A connection that broke while it lay idle shows only now; its like in the pool broke with it.
            self._forget()
            if time.monotonic() - started + self._slowest > BUDGET:
                raise
        return self._on(self._connect(), command)

    def _on(self, queue: Queue, command: Callable[[Queue], T]) -> T:
        try:
            result = command(queue)
        except JobNotFound:
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

    def _forget(self) -> None:
        while self._idle:
            self._borrow().close()
