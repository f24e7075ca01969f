"""Connections whose end we have announced, until the client closes too."""

from __future__ import annotations

import selectors
import socket
import time
from collections import deque
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from glassq.http.connection import Connection

# How long we wait for the client to close after we have closed our side, in seconds (RFC 9112, section 9.6).
LINGER = 2.0
# One read of a socket, in bytes.
_CHUNK = 64 << 10


class Lingering:
    """Closes our side and reads on for a moment: a reset would discard the answer before the client has read it."""

    def __init__(self, poller: selectors.BaseSelector, closed: Callable[[], None]) -> None:
        """`closed` is called for each connection that is closed in the end."""
        self._poller = poller
        self._closed = closed
        self._lingering: deque[Connection] = deque()

    def __len__(self) -> int:
        return len(self._lingering)

    def add(self, conn: Connection) -> None:
        """Announces the end of a connection that the poller does not watch now."""
        conn.gone = True
        try:
            conn.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self._close(conn)
            return
        conn.timeout = time.monotonic() + LINGER
        self._lingering.append(conn)
        self._poller.register(conn.sock, selectors.EVENT_READ, partial(self._on_bytes, conn))

    def end_oldest(self) -> None:
        """Closes the one that has lingered longest."""
        self._end(self._lingering[0])

    def end_late(self, now: float) -> None:
        """Closes those that have lingered long enough; `now` is time.monotonic()."""
        while self._lingering and self._lingering[0].timeout < now:
            self.end_oldest()

    def _on_bytes(self, conn: Connection, sock: socket.socket) -> None:
        if sock.fileno() < 0:
            # it was closed in the same round, to make room for another one
            return
        try:
            gone = not sock.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            gone = True
        if gone:
            self._end(conn)

    def _end(self, conn: Connection) -> None:
        self._lingering.remove(conn)
        self._poller.unregister(conn.sock)
        # closing a socket with unread bytes would send a reset
        with suppress(OSError):
            conn.sock.recv(_CHUNK)
        self._close(conn)

    def _close(self, conn: Connection) -> None:
        conn.close()
        self._closed()
