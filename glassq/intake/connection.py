"""A client's connection, as the gate sees it."""

from __future__ import annotations

import select
import socket
import struct
from typing import Any

from gunicorn.http import get_parser
from gunicorn.workers.gthread import TConn

# Should a thread ever wait for a client after all, it waits so long: struct timeval of seconds and microseconds.
_SEND_TIMEOUT = struct.pack("@ll", 1, 0)
# How much may lie unread by a client, in bytes; some hundred answers.
_SEND_BUFFER = 64 << 10
# So many answers lie in a small part of it: it is enough to look that often whether a client reads.
LOOK_EVERY = 32


class Connection(TConn):  # type: ignore[misc]
    """A client's connection and what has arrived on it since its last request."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.parser: Any = None
        self.buffer = bytearray()
        self.whole = False
        #: kept alive, and nothing of a next request is here
        self.idle = False
        #: since when we wait for a whole request, on time.monotonic()
        self.since = 0.0
        #: we wait for bytes of a request
        self.waiting = False
        #: "100 Continue" has been sent for the request that arrives now
        self.continued = False
        #: how many requests have arrived
        self.asked = 0
        #: when the request that waits for a thread had arrived
        self.arrived = 0.0
        # the stock worker would wait for data in a thread
        self.data_ready = True
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _SEND_TIMEOUT)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)

    def parse_gathered(self) -> None:
        """Hands what was gathered to the parser, which never gets the socket: in a thread nothing can be waited for."""
        if self.parser is None:
            # made for the first whole request: most connections of a crowd never have one
            self.parser = get_parser(self.cfg, iter(()), self.client)
        self.parser.unreader.unread(bytes(self.buffer))
        self.buffer.clear()

    def reads_answers(self) -> bool:
        """Whether there is room for answers, so that no thread waits for a client who asks and never reads.

        There is for the next LOOK_EVERY of them each time it was looked at.
        """
        self.asked += 1
        if self.asked % LOOK_EVERY:
            return True
        poll = select.poll()
        poll.register(self.sock, select.POLLOUT)
        return bool(poll.poll(0))
