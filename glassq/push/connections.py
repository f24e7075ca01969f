"""Queue connections for adding tasks from any thread, before and after a fork."""

from __future__ import annotations

import os
import time
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING

from glassq.errors import JobNotFound, QueueError, QueueRefused, QueueUnavailable
from glassq.log import logger
from glassq.push.task_errors import InternalError, TransientError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from glassq.queues import Queue

log = logger("glassq.push")

# A new connection, and one that lay idle for longer than this (in seconds), is tried before it is lent: whatever a put
# breaks on, nobody can say whether it happened.
IDLE = 1.0


class Connections:
    """As many as are in use at once; each is lent to one thread at a time, in the process that made it."""

    def __init__(self, connect: Callable[[], Queue]) -> None:
        """`connect` makes an unconnected queue."""
        self._connect = connect
        # the one used last is the likeliest to live; beside each, when that was, on time.monotonic()
        self._idle: deque[tuple[float, Queue]] = deque()
        self._pid = os.getpid()

    @contextmanager
    def lend(self, over: float) -> Iterator[Queue]:
        """A queue until `over` (time.monotonic()).

        Raises JobNotFound, else TransientError or InternalError for what the queue raised.
        """
        idle = self._take()
        queue = idle[1] if idle else self._connect()
        try:
            queue.set_deadline(over)
            if idle is None or time.monotonic() - idle[0] > IDLE:
                _try_out(queue, again=idle is not None)
            yield queue
        except JobNotFound:
            self._give_back(queue)
            raise
        except (QueueUnavailable, QueueRefused) as error:
            queue.close()
            raise TransientError(str(error)) from error
        except QueueError as error:
            queue.close()
            raise InternalError(str(error)) from error
        except BaseException:
            queue.close()
            raise
        self._give_back(queue)

    def close(self) -> None:
        """Closes those that nobody uses now; more are made where they are needed."""
        while (idle := self._take()) is not None:
            idle[1].close()

    def _give_back(self, queue: Queue) -> None:
        self._idle.append((time.monotonic(), queue))

    def _take(self) -> tuple[float, Queue] | None:
        if self._pid != os.getpid():
            inherited, self._idle, self._pid = self._idle, deque(), os.getpid()
            for _, queue in inherited:
                queue.close_inherited()
        try:
            return self._idle.pop()
        except IndexError:
            return None


def _try_out(queue: Queue, *, again: bool) -> None:
    try:
        queue.stats_tube()
    except QueueUnavailable:
        if not again:
            raise
        log.debug("queue connection broke while it lay idle")
        # it connects anew
        queue.stats_tube()
