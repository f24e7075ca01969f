"""Gathers the bytes of requests, on many connections, until each request is whole; waits for nobody.

A request that is too slow gets 408, a closing client is dropped without waiting. When all connections are in use, the
one that has been without a whole request for longest is closed (with 503 if a request has begun), so slow clients
(slowloris) keep nobody out. gunicorn_worker.py lists what this builds on.
"""

from __future__ import annotations

import errno
import selectors
import socket
import time
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from gunicorn.workers.gthread import STOP_KEEPALIVE_LINGER, ThreadWorker

from glassq.http import framing
from glassq.http.connection import Connection, ConnectionQueue
from glassq.http.lingering import Lingering
from glassq.http.log_limiter import LogLimiter
from glassq.http.problem import refusal
from glassq.log import fields

if TYPE_CHECKING:
    import logging
    from collections.abc import Collection, Mapping, Sequence

    from glassq.http.connection import LargeBody
    from glassq.http.framing import Arrival

# One read of a socket, in bytes; a usual request fits into one.
CHUNK = 64 << 10
# One in this many of a worker's connections is reserved for lingering ones. Beyond that, the oldest of them ends early.
LINGERING_SHARE = 5
# New connections are accepted in bursts of at most this many, so that a crowd does not fill the listen backlog.
ACCEPTED_AT_ONCE = 256
# Minimum time between log lines about connections that were closed to make room, in seconds.
CROWDED_EVERY = 60.0

# The connection is closed right after such an answer; with this the kernel sends both in one packet (Linux only).
MORE = getattr(socket, "MSG_MORE", 0)

# The client is gone, or the kernel is out of memory: leave the other connections in the backlog.
_NOT_NOW = (errno.EAGAIN, errno.ECONNABORTED, errno.ENOBUFS, errno.ENOMEM)
_NO_DESCRIPTOR = (errno.EMFILE, errno.ENFILE)


class RequestCounters(Protocol):
    """Counts the requests that the worker refuses before the app sees them."""

    def refused(self, status: int) -> None:
        """A request was answered with this status, 400 or above."""

    def crowded(self) -> None:
        """A connection was closed to make room for others, before a whole request had arrived on it."""


class BufferedApplication(Protocol):
    """What the worker needs of its gunicorn application."""

    #: set once the app is loaded
    counters: RequestCounters
    request_log: logging.Logger
    #: paths of requests that may take long: they are worked in threads beside
    aside: Collection[str]
    #: whose pings somebody else's code looks at, by the first two parts of the path: that may hang
    foreign: Collection[str]
    #: listening sockets of the app's own, which gunicorn does not know
    listeners: Sequence[socket.socket]
    #: the largest body that a path takes, in bytes, by its first two parts; others take none beyond `inline`
    body_limits: Mapping[str, int]
    #: larger bodies are not kept in memory
    inline: int

    def refuses(self, environ: Mapping[str, Any]) -> bool:
        """Whether the app refuses a request with a large body by its head; then it gets that without the body.

        It is quick: called in the loop.
        """

    def not_received(self, path: str, reason: str) -> None:
        """A large body for this path (its first two parts) was not received: one of glassq.http.spilling's reasons."""

    def begin_body(self, size: int) -> LargeBody:
        """A body of this size that is about to be received. Raises GlassqError if it cannot be stored now.

        The app finds it in `glassq.body` of its environ. Called in a thread beside.
        """

    def forsake(self, items: Sequence[Any]) -> None:
        """These, which the app has handed over, are not going to be kept. Called in a thread beside."""

    def keep(self, items: Sequence[Any]) -> Sequence[bool]:
        """Makes durable what the app has put into `glassq.turn` of its environs; whether each item is now.

        It may take long.
        """

    def close(self) -> None:
        """The worker ends, after its last answer."""


class GatheringWorker(ThreadWorker):  # type: ignore[misc]
    """The half of the worker that has the connections. What is whole waits in `_ready`."""

    app: BufferedApplication

    #: maximum time for a request to arrive, in seconds
    request_timeout = 10.0
    #: longer bodies are not simply waited for, in bytes
    max_body = 16 << 10
    #: maximum memory of the requests that arrive in parts, and of those whose answers are held; in bytes
    memory_max = 64 << 20
    #: lines of headers of the answers that are made before a request reaches the app
    early_headers: tuple[str, ...] = ()

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.sockets: list[Any] = [*self.sockets, *self.app.listeners]
        self.keepalived_conns = ConnectionQueue()
        self.pending_conns = ConnectionQueue()
        # connections with a whole request that is not worked yet
        self._ready: deque[Connection] = deque()
        self._log_limiter = LogLimiter()
        # the size of the requests that have begun to arrive, and of those whose answers are held
        self._claimed = self._held_size = 0
        # maximum number of open connections beside the lingering ones
        self._max_open = self.worker_connections - max(1, self.worker_connections // LINGERING_SHARE)
        # a burst is a small part of all connections, so that none of it is closed before it could send anything
        self._burst = max(1, min(ACCEPTED_AT_ONCE, self._max_open // 4))
        # connections closed to make room since the last log line about them, and when the next line may be written
        self._crowded, self._crowded_next = 0, 0.0
        # reading gunicorn's settings costs a microsecond each time
        self._keepalive = self.cfg.keepalive

    def run(self) -> None:
        """gunicorn calls it in the worker, once the app is loaded."""
        self._lingering = Lingering(self.poller, self._forget)
        super().run()

    def accept(self, listener: Any) -> None:
        """Accepts new connections; no byte of their requests is here yet."""
        for _ in range(self._burst):
            if self.nr_conns >= self.worker_connections:
                return
            try:
                sock, client = listener.accept()
            except OSError as error:
                if error.errno in _NO_DESCRIPTOR:
                    self._free_descriptor()
                elif error.errno not in _NOT_NOW:
                    raise
                return
            self.nr_conns += 1
            conn = Connection(sock, client, listener.getsockname())
            self._await_request(conn)
            self._watch(conn)
            if self.nr_conns - len(self._lingering) > self._max_open:
                self._make_room()
            if self.nr_conns >= self.worker_connections and self._lingering:
                # gunicorn would stop accepting otherwise
                self._lingering.end_oldest()

    def _free_descriptor(self) -> None:
        """Closes one connection at once: the process has fewer descriptors than the connections it may hold."""
        if not self._lingering:
            self._make_room()
        if self._lingering:
            self._lingering.end_oldest()

    def _make_room(self) -> None:
        """Closes the connection that has been without a whole request for longest; never the newest one.

        A client that has begun a request gets 503, so that it tries again: the crowd is not its fault.
        """
        conn = self._longest_waiting()
        if conn is None:
            # all others are being answered
            return
        if conn.queue is self.pending_conns:
            self._crowded += 1
            self.app.counters.crowded()
        if conn.buffer:
            send(conn.sock, refusal(503, headers=self.early_headers), MORE)
        self.hang_up(conn)

    def _longest_waiting(self) -> Connection | None:
        """The connection that has waited longest, unless it is the only one. Its pending bytes are read first."""
        queues = (self.pending_conns, self.keepalived_conns)
        while sum(map(len, queues)) > 1:
            conn: Connection = min((conns[0] for conns in queues if len(conns)), key=lambda conn: conn.since)
            since = conn.since
            self._on_bytes(conn, conn.sock)
            if conn.queue is not None and conn.since == since:
                return conn
        return None

    def _log_crowded(self, now: float) -> None:
        if self._crowded and now >= self._crowded_next:
            words = "too many connections: those without a whole request for longest were closed %s"
            self.app.request_log.warning(words, fields(closed=self._crowded, open=self.nr_conns))
            self._crowded, self._crowded_next = 0, now + CROWDED_EVERY

    def _watch(self, conn: Connection) -> None:
        conn.watched = True
        self.poller.register(conn.sock, selectors.EVENT_READ, partial(self._on_bytes, conn))

    def _unwatch(self, conn: Connection) -> None:
        if conn.watched:
            conn.watched = False
            self.poller.unregister(conn.sock)

    def _await_request(self, conn: Connection) -> None:
        conn.since = time.monotonic()
        conn.timeout = conn.since + self.request_timeout
        self.pending_conns.append(conn)

    def _on_bytes(self, conn: Connection, sock: Any) -> None:
        if conn.queue is None:
            # the next request may wait in the socket until this one is answered; or it was closed in the same round
            if not conn.gone:
                self._unwatch(conn)
            return
        try:
            chunk = sock.recv(CHUNK)
        except BlockingIOError:
            return
        except OSError:
            chunk = b""
            conn.buffer.clear()
        if conn.queue is self.keepalived_conns:
            conn.queue.remove(conn)
            self._await_request(conn)
        conn.buffer += chunk
        if chunk:
            self._dispatch(conn)
        elif conn.buffer:
            self.refuse(conn, 400, "no request arrived")
        else:
            self._drop(conn)

    def _dispatch(self, conn: Connection) -> None:
        """Looks at what has arrived. A bug in that costs this connection, and not the worker with all others."""
        try:
            self._look_at(conn)
        except Exception as error:
            self.app.request_log.error("bug in the HTTP server", exc_info=error)
            self.refuse(conn, 500, type(error).__name__)

    def _look_at(self, conn: Connection) -> None:
        """Has the request worked if all of it is here; refuses what can never become one."""
        # an empty line before a request is not part of it (RFC 9112, section 2.2)
        if conn.buffer.startswith(b"\r\n"):
            del conn.buffer[:2]
        found = framing.classify(conn.buffer, self.max_body)
        if found.large:
            found = self.look_at_large(conn, found)
        if found.refuse:
            self.refuse(conn, found.refuse, "no request arrived")
        elif found.arrived:
            self.pending_conns.remove(conn)
            self._is_ready(conn, whole=found.whole, size=found.size)
        elif found.size and not self._claim(conn, found.size):
            self.refuse(conn, 503, "too many requests arrive at once")
        elif found.expects and not conn.continued:
            conn.continued = True
            send(conn.sock, b"HTTP/1.1 100 Continue\r\n\r\n")

    def look_at_large(self, conn: Connection, found: Arrival) -> Arrival:
        """What has arrived of a request whose body is longer than `max_body`, unless somebody else receives it now."""
        raise NotImplementedError

    def _is_ready(self, conn: Connection, *, whole: bool, size: int) -> None:
        """The request, or as much of it as the app needs, is to be worked."""
        self._release(conn)
        conn.whole, conn.size, conn.arrived, conn.continued = whole, size, time.monotonic(), False
        self._ready.append(conn)

    def _claim(self, conn: Connection, size: int) -> bool:
        """Counts a request of this size against the budget of memory while it arrives; whether it fits."""
        if not conn.claim:
            if self._claimed + self._held_size + size > self.memory_max:
                return False
            conn.claim = size
            self._claimed += size
        return True

    def _release(self, conn: Connection) -> None:
        if conn.claim:
            self._claimed -= conn.claim
            conn.claim = 0

    def murder_pending(self) -> None:
        """Ends what is too slow: a request with 408, a silent or closing connection without an answer."""
        now = time.monotonic()
        while len(self.pending_conns) and self.pending_conns[0].timeout < now:
            conn = self.pending_conns[0]
            if conn.buffer:
                self.refuse(conn, 408, "no request arrived")
            else:
                self._drop(conn)
        self._lingering.end_late(now)
        self._log_crowded(now)

    def murder_keepalived(self, force: bool = False) -> None:
        """Closes the connections that have been idle for long enough, or all idle ones."""
        now = time.monotonic()
        while len(self.keepalived_conns) and (force or self.keepalived_conns[0].timeout <= now):
            self._drop(self.keepalived_conns[0])

    def _cap_keepalive(self, deadline: float) -> None:
        """A stopping worker waits no longer for the rest of a request than for a next request."""
        for conns in (self.keepalived_conns, self.pending_conns):
            for conn in conns:
                conn.timeout = min(conn.timeout, deadline)

    # -- keep the connection, or close it ---------------------------------------------------------------------------

    def next_request(self, conn: Connection) -> None:
        """Waits for the next request of a connection, or has it worked, if it is here already."""
        if conn.buffer:
            self._await_request(conn)
            self._dispatch(conn)
        else:
            conn.since = time.monotonic()
            conn.timeout = conn.since + (self._keepalive if self.alive else STOP_KEEPALIVE_LINGER)
            self.keepalived_conns.append(conn)
        if not (conn.watched or conn.gone):
            self._watch(conn)

    def refuse(self, conn: Connection, status: int, why: str) -> None:
        self.app.counters.refused(status)
        self.log_refused(conn, status, why)
        # a bug is ours to mend: whoever sent this is to try again
        send(conn.sock, refusal(503 if status == 500 else status, headers=self.early_headers), MORE)
        self.hang_up(conn)

    def log_refused(self, conn: Connection, status: int, why: str) -> None:
        if (left_out := self._log_limiter.admit()) is not None:
            sender = conn.client[0] if conn.client else ""
            self.app.request_log.warning("refused %s", fields(status=status, why=why, sender=sender, **left_out))

    def hang_up(self, conn: Connection) -> None:
        """Announces the connection's end; the client closes it, or a moment passes."""
        if conn.queue is not None:
            conn.queue.remove(conn)
        self._release(conn)
        self._unwatch(conn)
        self._lingering.add(conn)

    def _drop(self, conn: Connection) -> None:
        """Closes a connection that waits, without a word."""
        if conn.queue is not None:
            conn.queue.remove(conn)
        self._release(conn)
        self._unwatch(conn)
        conn.close()
        self._forget()

    def _forget(self) -> None:
        self.nr_conns -= 1


def send(sock: Any, data: bytes, flags: int = 0) -> int:
    """Sends as much as the socket takes without waiting; how many bytes, or -1 if the client is gone."""
    try:
        return int(sock.send(data, flags))
    except BlockingIOError:
        return 0
    except OSError:
        return -1
