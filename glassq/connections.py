"""Connections lent to threads, before and after a fork."""

from __future__ import annotations

import math
import os
import time
import weakref
from collections import deque
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Generic, NamedTuple, Protocol, TypeVar

from glassq.errors import JobNotFound, JobTooBig, QueueUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Lendable(Protocol):
    """A connection that may be lent."""

    def connect(self) -> None:
        """Connects now. Raises QueueError."""

    def test(self) -> None:
        """Raises QueueUnavailable if it is broken."""

    def set_deadline(self, deadline: float) -> None:
        """Calls end by then (time.monotonic())."""

    def close(self) -> None:
        """Closes it."""

    def close_inherited(self) -> None:
        """Closes a forked child's copy of the socket."""


Lent = TypeVar("Lent", bound=Lendable)

# A connection that was idle for longer than this, in seconds, is tested before it is lent: if it broke meanwhile, a put
# would fail in doubt.
IDLE = 1.0


class _Idle(NamedTuple, Generic[Lent]):
    """A connection that nobody uses `since` a time (time.monotonic()), and the process that made it."""

    connection: Lent
    process: int
    since: float

    def close(self) -> None:
        if self.process == os.getpid():
            self.connection.close()
        else:
            self.connection.close_inherited()


class ConnectionPool(Generic[Lent]):
    """As many connections as are in use at once; each is lent to one thread at a time, in the process that made it."""

    def __init__(self, connect: Callable[[], Lent], *, most_idle: float = math.inf, idle_for: float = math.inf) -> None:
        """`connect` makes an unconnected connection.

        At most so many stay open while nobody uses them, each for so many seconds.
        """
        self._connect = connect
        self._most_idle, self._idle_for = most_idle, idle_for
        # The last one used is lent first: it most likely still works.
        self._idle: deque[_Idle[Lent]] = deque()
        weakref.finalize(self, _close_all, self._idle)

    @contextmanager
    def lend(self, deadline: float, *, keep: bool = True) -> Iterator[Lent]:
        """A connection whose calls end by `deadline` (time.monotonic()). Raises QueueError.

        Without `keep` it is a new one, which nobody uses afterwards.
        """
        idle = self._take() if keep else None
        connection, process = (idle.connection, idle.process) if idle else (self._connect(), os.getpid())
        try:
            connection.set_deadline(deadline)
            if idle is None:
                connection.connect()
            elif time.monotonic() - idle.since > IDLE:
                _test(connection)
            yield connection
        except (JobNotFound, JobTooBig):
            self._give_back(connection, process, keep=keep)
            raise
        except BaseException:
            connection.close()
            raise
        self._give_back(connection, process, keep=keep)

    def close(self) -> None:
        """Closes the idle connections. A later call opens new ones."""
        _close_all(self._idle)

    def _give_back(self, connection: Lent, process: int, *, keep: bool) -> None:
        now = time.monotonic()
        given = _Idle(connection, process, now)
        if keep and len(self._idle) < self._most_idle:
            self._idle.append(given)
        else:
            given.close()
        with suppress(IndexError):
            while self._idle[0].since < now - self._idle_for:
                self._idle.popleft().close()

    def _take(self) -> _Idle[Lent] | None:
        with suppress(IndexError):
            while (idle := self._idle.pop()).process != os.getpid():
                idle.close()
            return idle
        return None


def _close_all(idle: deque[_Idle[Lent]]) -> None:
    with suppress(IndexError):
        while True:
            idle.pop().close()


def _test(connection: Lendable) -> None:
    try:
        connection.test()
    except QueueUnavailable:
        # It broke while it was idle.
        connection.connect()
