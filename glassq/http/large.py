"""The part of the worker that has large bodies: they go to disk while they come (spilling.py), within a budget."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from gunicorn.http.errors import ParseException

from glassq.http import framing
from glassq.http.gathering import MORE, GatheringWorker, send
from glassq.http.priority import SmallFirst
from glassq.http.problem import refusal
from glassq.http.request import Environ, RequestParser
from glassq.http.spilling import Ended, SpillThread

if TYPE_CHECKING:
    from glassq.http.connection import Connection
    from glassq.http.framing import Arrival
    from glassq.http.loop_calls import LoopCalls

# One in this many of a worker's connections may send a large body. Beyond that, the slowest of them is cut off.
LARGE_SHARE = 4
# A stopping worker has waited for its connections; so long it waits for the thread that receives, in seconds.
_STOP_WAIT = 2.0


class SpillingWorker(GatheringWorker):
    """Receives a body that is too large for memory beside the loop, if its path may have one."""

    _calls: LoopCalls

    #: maximum size of all large bodies that are being received or worked, in bytes; who comes then takes the place of
    #: a slow one, or gets 503 at once
    spill_max = 1 << 30

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._parser, self._environ = RequestParser(self.cfg), Environ(self.cfg)
        # the connections whose large bodies are being received or worked, with the sizes
        self._large: dict[Connection, int] = {}
        self._spilled = 0
        self._max_large = max(1, self._max_open // LARGE_SHARE)
        self._small_first = SmallFirst()

    def run(self) -> None:
        """gunicorn calls it in the worker, once the app is loaded."""
        limits = self.app.body_limits
        # what is longer than any of these needs a look at its path
        self.max_body = min(self.max_body, self.app.inline, *limits.values())
        ended = partial(self._calls.defer, self._on_large)
        self._spilling = SpillThread(
            self.app.begin_body, ended, patience=self.request_timeout, small_first=self._small_first
        )
        if any(limit > self.app.inline for limit in limits.values()):
            self._spilling.start()
        super().run()
        self._spilling.stop(_STOP_WAIT)
        for conn in self._large:
            send(conn.sock, refusal(503), MORE)

    def look_at_large(self, conn: Connection, found: Arrival) -> Arrival:
        """What has arrived of a request whose body is longer than `max_body`; nothing, if it is received beside."""
        limit = self._limit(conn.buffer)
        if found.large > limit:
            # the app refuses it, and reads nothing of it
            return framing.HEAD_ONLY
        if found.large <= self.app.inline:
            return framing.classify(conn.buffer, found.large)
        if self._refuses(conn, found):
            # it says so in its turn, and reads no more of it either
            return framing.HEAD_ONLY
        self._receive(conn, found)
        return framing.WAIT

    def _limit(self, head: bytearray) -> int:
        """The limit of a body by its path, in bytes: of its first two parts."""
        limit: int = self.app.body_limits.get(_place_in(head), 0)
        return limit

    def _refuses(self, conn: Connection, found: Arrival) -> bool:
        """Whether the request needs no body to be refused, by gunicorn's parser or by the app."""
        try:
            request = self._parser.parse(bytes(conn.buffer[: found.head]), conn.client)
        except ParseException:
            return True
        return bool(self.app.refuses(self._environ.of(request, conn)))

    def _receive(self, conn: Connection, found: Arrival) -> None:
        fits = self._spilled + found.large <= self.spill_max
        if len(self._large) >= self._max_large:
            self._spilling.end_slowest()
        self.pending_conns.remove(conn)
        self._unwatch(conn)
        self._large[conn] = found.large
        self._spilled += found.large
        if found.expects and not conn.continued:
            send(conn.sock, b"HTTP/1.1 100 Continue\r\n\r\n")
        first = bytes(conn.buffer[found.head : found.size])
        # the head stays, with what follows the body
        del conn.buffer[found.head : found.size]
        conn.size = found.head
        self._spilling.receive(conn, found.large, first, fits=fits)

    def _on_large(self, conn: Connection, ended: Ended) -> None:
        """A large body is here, or will never be."""
        conn.large = ended.body
        if ended.status:
            self.app.not_received(_place_in(conn.buffer), ended.reason)
            self.forget_large(conn)
            self.refuse(conn, ended.status, ended.why)
        else:
            self._is_ready(conn, whole=True, size=conn.size)

    def forget_large(self, conn: Connection) -> None:
        """Its large body is over."""
        conn.large = None
        self._spilled -= self._large.pop(conn, 0)


def _place_in(head: bytearray) -> str:
    """The place of a request's path."""
    # a line without spaces is left to the parser, which refuses it
    _, _, rest = bytes(head[: framing.MAX_LINE]).partition(b" ")
    return place(unquote(rest.partition(b" ")[0].partition(b"?")[0].decode("latin-1")))


def place(path: str) -> str:
    """The first two parts of a path: whose it is."""
    return "/".join(path.split("/")[:3])
