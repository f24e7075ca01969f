"""A client's connection, with the bytes that have arrived on it; and the order in which connections wait."""

from __future__ import annotations

import socket
from collections import OrderedDict
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

# Maximum number of bytes that a client may leave unread: some hundred answers.
_SEND_BUFFER = 64 << 10


class LargeBody(Protocol):
    """A body that is being received. What it is written to is the app's affair."""

    def write(self, data: bytes | memoryview) -> None:
        """Appends to it. Raises GlassqError if it cannot be stored now."""

    def close(self) -> None:
        """It is over; what the app has not kept by then is gone. Never raises; may be called twice."""


class Connection:
    """A client's connection. Nothing ever waits for its socket, so that one client cannot hold up another."""

    __slots__ = (
        "arrived",
        "buffer",
        "claim",
        "client",
        "continued",
        "gone",
        "large",
        "queue",
        "server",
        "since",
        "size",
        "sock",
        "timeout",
        "watched",
        "whole",
    )

    def __init__(self, sock: Any, client: Any, server: Any) -> None:
        """`client` and `server` are the addresses of both ends."""
        self.sock = sock
        self.client = client
        self.server = server
        self.buffer = bytearray()
        #: where it waits for a request; None while a request of it is worked
        self.queue: ConnectionQueue | None = None
        #: the loop looks for bytes on it
        self.watched = False
        #: it is closed, or only waits for the client to close
        self.gone = False
        #: since when it waits, and until when, on time.monotonic()
        self.since = self.timeout = 0.0
        #: "100 Continue" has been sent for the request that arrives now
        self.continued = False
        #: when the request that is worked had arrived, on time.monotonic(); whether its body is here; its size
        self.arrived, self.whole, self.size = 0.0, False, 0
        #: its body, if it is too large for the buffer; the buffer then has the head
        self.large: LargeBody | None = None
        #: what it counts for in the budget of memory while it arrives, in bytes
        self.claim = 0
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)

    def take(self) -> bytes:
        """The bytes of the request that is to be worked. What follows them stays in the buffer."""
        size = self.size if self.whole else len(self.buffer)
        data = bytes(self.buffer[:size])
        del self.buffer[:size]
        return data

    def make_room(self, size: int) -> None:
        """An answer of this size is to be sent in one go; as far as the kernel allows it (net.core.wmem_max)."""
        if size > _SEND_BUFFER:
            with suppress(OSError):
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size)

    def close(self) -> None:
        """Closes the socket."""
        self.gone = True
        with suppress(OSError):
            self.sock.close()


class ConnectionQueue:
    """Connections that wait for a request, by the time since when they do. gunicorn's own loop uses it as a deque."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[Connection, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._waiting)

    def __iter__(self) -> Iterator[Connection]:
        return iter(self._waiting)

    def __getitem__(self, index: int) -> Connection:
        # only the first one is ever asked for
        return next(iter(self._waiting))

    def append(self, conn: Connection) -> None:
        """It waits from now on, as the last one."""
        self._waiting[conn] = None
        conn.queue = self

    def remove(self, conn: Connection) -> None:
        """It waits no longer."""
        del self._waiting[conn]
        conn.queue = None

    def popleft(self) -> Connection:
        """Removes and returns the one that has waited longest."""
        conn, _ = self._waiting.popitem(last=False)
        conn.queue = None
        return conn
