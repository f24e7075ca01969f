"""A client's connection, with the bytes that have arrived on it."""

from __future__ import annotations

import select
import socket
import struct
from typing import Any

from gunicorn.http import get_parser
from gunicorn.workers.gthread import TConn

# Maximum time that a thread waits while it sends, if it ever has to: struct timeval of seconds and microseconds.
_SEND_TIMEOUT = struct.pack("@ll", 1, 0)
# Maximum number of bytes that a client may leave unread: some hundred answers.
_SEND_BUFFER = 64 << 10
# This many answers fill a small part of the send buffer, so it is enough to check that often whether the client reads.
CHECK_EVERY = 32


class BufferedConnection(TConn):  # type: ignore[misc]
    """A client's connection and what has arrived on it since its last request."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.parser: Any = None
        self.buffer = bytearray()
        self.whole = False
        #: kept alive, and no byte of a next request is here
        self.idle = False
        #: since when we wait for a whole request, on time.monotonic()
        self.since = 0.0
        #: the main loop waits for bytes of a request
        self.waiting = False
        #: "100 Continue" has been sent for the request that arrives now
        self.continued = False
        #: how many requests have arrived
        self.requests = 0
        #: when the request that waits for a thread had arrived, on time.monotonic()
        self.arrived = 0.0
        # the stock worker would wait for data in a thread
        self.data_ready = True
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _SEND_TIMEOUT)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)

    def parse_buffer(self) -> None:
        """Gives the buffer to the parser, which never gets the socket: so a thread cannot wait for bytes."""
        if self.parser is None:
            # made for the first whole request: in a crowd most connections never send one
            self.parser = get_parser(self.cfg, iter(()), self.client)
        self.parser.unreader.unread(bytes(self.buffer))
        self.buffer.clear()

    def reads_answers(self) -> bool:
        """Whether the socket has room for answers, so that no thread waits for a client that never reads.

        The socket is checked once in CHECK_EVERY requests; there is room for the answers in between.
        """
        self.requests += 1
        if self.requests % CHECK_EVERY:
            return True
        poll = select.poll()
        poll.register(self.sock, select.POLLOUT)
        return bool(poll.poll(0))
