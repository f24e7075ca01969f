"""Connections to a PostgreSQL database that the threads of a process share, each for one block."""

from __future__ import annotations

import math
import os
import threading
import time
import weakref
from contextlib import contextmanager
from typing import TYPE_CHECKING

from glassq.database.postgres import PostgresSession

if TYPE_CHECKING:
    from collections.abc import Iterator

    from glassq.values import QueueUrl

# Seconds to connect.
CONNECT = 2.0
# Connections that stay open while nobody uses them, and for how many seconds.
MAX_IDLE, IDLE = 2, 60.0


class Sessions:
    """Made before a fork or after it: a process uses its own connections only."""

    def __init__(self, url: QueueUrl, name: str, timeout: float) -> None:
        """`name` is what the server shows; `timeout` is for one statement, in seconds. Connects to nothing."""
        self._url = url
        self._name = name
        self._timeout = timeout
        self._lock = threading.Lock()
        # with the time since when each is idle
        self._idle: list[tuple[float, PostgresSession]] = []
        self._process = os.getpid()
        weakref.finalize(self, _close, self._idle, self._process)

    @contextmanager
    def borrowed(self, *, keep: bool = True) -> Iterator[PostgresSession]:
        """A connection for the block, without a deadline; it goes on with others then, unless `keep` is False.

        It connects at its first call, and raises QueueError then.
        """
        session = self._taken() if keep else self._new()
        try:
            yield session
        except BaseException:
            session.close()
            raise
        session.set_deadline(math.inf)
        if keep:
            self._give_back(session)
        else:
            session.close()

    def _new(self) -> PostgresSession:
        return PostgresSession(self._url, name=self._name, connect_timeout=CONNECT, timeout=self._timeout)

    def _taken(self) -> PostgresSession:
        oldest = time.monotonic() - IDLE
        with self._lock:
            if self._process != os.getpid():
                _close(self._idle, self._process)
                self._process = os.getpid()
            _close(self._idle, self._process, before=oldest)
            return self._idle.pop()[1] if self._idle else self._new()

    def _give_back(self, session: PostgresSession) -> None:
        with self._lock:
            if session.connected and len(self._idle) < MAX_IDLE:
                self._idle.append((time.monotonic(), session))
                return
        session.close()


def _close(idle: list[tuple[float, PostgresSession]], process: int, before: float = math.inf) -> None:
    """Closes those that have been idle since a time before this one; `process` is the one that has opened them."""
    for each in [each for each in idle if each[0] < before]:
        idle.remove(each)
        if process == os.getpid():
            each[1].close()
        else:
            each[1].close_inherited()
