"""Connections lent to threads, before and after a fork."""

from __future__ import annotations

import os
import time
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

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


class ConnectionPool(Generic[Lent]):
    """As many connections as are in use at once; each is lent to one thread at a time, in the process that made it."""

    def __init__(self, connect: Callable[[], Lent]) -> None:
        """`connect` makes an unconnected connection."""
        self._connect = connect
        # (time.monotonic() of its last use, connection). The last one used is lent first: it most likely still works.
        self._idle: deque[tuple[float, Lent]] = deque()
        self._pid = os.getpid()

    @contextmanager
    def lend(self, deadline: float) -> Iterator[Lent]:
        """A connection whose calls end by `deadline` (time.monotonic()). Raises QueueError."""
        idle = self._take()
        connection = idle[1] if idle else self._connect()
        try:
            connection.set_deadline(deadline)
            if idle is None:
                connection.connect()
            elif time.monotonic() - idle[0] > IDLE:
                _test(connection)
            yield connection
        except (JobNotFound, JobTooBig):
            self._give_back(connection)
            raise
        except BaseException:
            connection.close()
            raise
        self._give_back(connection)

    def close(self) -> None:
        """Closes the idle connections. A later call opens new ones."""
        while (idle := self._take()) is not None:
            idle[1].close()

    def _give_back(self, connection: Lent) -> None:
        self._idle.append((time.monotonic(), connection))

    def _take(self) -> tuple[float, Lent] | None:
        if self._pid != os.getpid():
            inherited, self._idle, self._pid = self._idle, deque(), os.getpid()
            for _, connection in inherited:
                connection.close_inherited()
        try:
            return self._idle.pop()
        except IndexError:
            return None


def _test(connection: Lendable) -> None:
    try:
        connection.test()
    except QueueUnavailable:
        # It broke while it was idle.
        connection.connect()
