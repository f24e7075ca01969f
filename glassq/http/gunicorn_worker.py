"""gunicorn's threaded worker, with a buffer in front: a request reaches a thread only after all of it has arrived.

In the stock worker a client that sends a byte a second holds a thread for as long as it likes, a dozen of them stop
the service, and a client that does not close after an error blocks the main loop. Here the main loop collects the bytes
(few: a body has at most `max_body`), answers a request that is too slow with 408, and drops a closing client without
waiting. When all connections are in use, it closes the one that has been without a whole request for longest (with 503
if a request has begun), so slow clients (slowloris) keep nobody out. Threads only parse complete requests and answer
them.

gunicorn documents none of what this builds on, so setup.py pins it below its next major version.
tests/http/test_gunicorn_internals.py compares this list with the installed gunicorn:

    ThreadWorker, overridden
      accept             accepts in bursts, into a buffer instead of a thread; makes room when there are too many
      murder_pending     408 for what is too slow, and the end of closing connections
      _cap_keepalive     a stopping worker limits the wait for the rest of a request, too
      handle             503 for a request that waited too long for a thread; parses the buffer instead of the socket
      handle_request     without hooks, access log and files, which no server of ours uses
      handle_error       our own error answers, which echo nothing of the request
      _keepalive_after   the unread rest of a body is in memory, so it is skipped without a deadline
      finish_request     waits for the next request in the main loop, or closes the connection without waiting
    ThreadWorker, used
      enqueue_req, wsgi, app, cfg, alive, poller, nr_conns, worker_connections, max_keepalived, keepalived_conns,
      pending_conns; the main loop calls poller's callbacks with the socket, and murder_keepalived closes by
      conn.timeout and conn.close
    STOP_KEEPALIVE_LINGER
    TConn                init keeps a parser that is there; with data_ready no thread waits for data
    wsgi.create          takes the class of the response
    wsgi.Response        default_headers overridden; start_response, write, close, force_close, should_close used
    the parser           unreader.unread, unreader.take_buffered, finish_body; a request's _expected_100_continue
    Arbiter              murder_workers overridden in glassq/intake/wsgi.py; LISTENERS, WORKERS, num_workers,
                         spawn_worker, manage_workers used there
"""

from __future__ import annotations

import errno
import selectors
import socket
import time
from collections import deque
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from gunicorn.http import errors, wsgi
from gunicorn.http.wsgi import Response
from gunicorn.util import http_date
from gunicorn.workers.gthread import STOP_KEEPALIVE_LINGER, ThreadWorker

from glassq.http import framing
from glassq.http.connection import BufferedConnection
from glassq.http.log_limiter import LogLimiter
from glassq.http.problem import last_answer
from glassq.log import fields

if TYPE_CHECKING:
    import logging
    from concurrent.futures import Future

# One read of a socket, in bytes; a usual request fits into one.
CHUNK = 64 << 10
# How long we wait for the client to close after we have closed our side, in seconds (RFC 9112, section 9.6).
LINGER = 2.0
# A request that waited longer than this for a thread gets 503, in seconds: added to the app's worst case (intake:
# BUDGET in glassq/intake/durable_store.py) it would exceed the sender's own timeout.
MAX_THREAD_WAIT = 2.0

# One in this many of a worker's connections is reserved for lingering ones. Beyond that, the oldest of them ends early.
LINGERING_SHARE = 5
# New connections are accepted in bursts of at most this many, so that a crowd does not fill the listen backlog.
ACCEPTED_AT_ONCE = 256
# Minimum time between log lines about connections that were closed to make room, in seconds.
CROWDED_EVERY = 60.0

# The connection is closed right after an error answer; with this the kernel sends both in one packet (Linux only).
_MORE = getattr(socket, "MSG_MORE", 0)

# The client is gone, or the kernel is out of memory: leave the other connections in the backlog.
_NOT_NOW = (errno.EAGAIN, errno.ECONNABORTED, errno.ENOBUFS, errno.ENOMEM)
_NO_DESCRIPTOR = (errno.EMFILE, errno.ENFILE)

_STATUS: tuple[tuple[type[Exception], int], ...] = (
    (errors.LimitRequestLine, 414),
    (errors.LimitRequestHeaders, 431),
    (errors.ExpectationFailed, 417),
    (errors.ParseException, 400),
)


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


class CachedDateResponse(Response):  # type: ignore[misc]
    """Caches the Date header for a second; formatting it is the costliest header."""

    date = (0, "")

    def default_headers(self) -> list[str]:
        """The status line and the headers of every response."""
        now = int(time.time())
        second, date = CachedDateResponse.date
        if now != second:
            date = http_date(now)
            CachedDateResponse.date = (now, date)
        end = "close" if self.should_close() else "keep-alive"
        return [f"HTTP/1.1 {self.status}\r\n", f"Date: {date}\r\n", f"Connection: {end}\r\n"]


class BufferingWorker(ThreadWorker):  # type: ignore[misc]
    """The worker class named in conf/gunicorn.conf.py, which also sets `request_timeout` and `max_body` here."""

    app: BufferedApplication

    #: maximum time for a request to arrive, in seconds
    request_timeout = 10.0
    #: the worker does not wait for longer bodies, in bytes
    max_body = 16 << 10

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._lingering: deque[BufferedConnection] = deque()
        self._log_limiter = LogLimiter()
        # maximum number of open connections beside the lingering ones
        self._max_open = self.worker_connections - max(1, self.worker_connections // LINGERING_SHARE)
        self.max_keepalived = self._max_open - self.cfg.threads
        # a burst is a small part of all connections, so that none of it is closed before it could send anything
        self._burst = max(1, min(ACCEPTED_AT_ONCE, self._max_open // 4))
        # connections closed to make room since the last log line about them, and when the next line may be written
        self._crowded, self._crowded_next = 0, 0.0
        # reading gunicorn's settings costs a microsecond each time
        self._keepalive = self.cfg.keepalive

    # -- the main loop: collect bytes ---------------------------------------------------------------------------

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
            self._wait(BufferedConnection(self.cfg, sock, client, listener.getsockname()))
            if self.nr_conns - len(self._lingering) > self._max_open:
                self._make_room()
            if self.nr_conns >= self.worker_connections and self._lingering:
                # gunicorn would stop accepting otherwise
                self._end_linger(self._lingering[0])

    def _free_descriptor(self) -> None:
        """Closes one connection at once: the process has fewer descriptors than the connections it may hold."""
        if not self._lingering:
            self._make_room()
        if self._lingering:
            self._end_linger(self._lingering[0])

    def _make_room(self) -> None:
        """Closes the connection that has been without a whole request for longest; never the newest one.

        A client that has begun a request gets 503, so that it tries again: the crowd is not its fault.
        """
        conn = self._longest_waiting()
        if conn is None:
            # all others are being answered
            return
        if conn.idle:
            self.keepalived_conns.popleft()
            self._unwatch(conn)
        else:
            self._unwait(conn)
            self._crowded += 1
            self.app.counters.crowded()
        if conn.buffer:
            _send(conn.sock, 503)
        self._linger(conn)

    def _longest_waiting(self) -> BufferedConnection | None:
        """The connection that has waited longest, unless it is the only one. Its pending bytes are read first."""
        queues = (self.pending_conns, self.keepalived_conns)
        while sum(map(len, queues)) > 1:
            conn: BufferedConnection = min((conns[0] for conns in queues if conns), key=lambda conn: conn.since)
            since = conn.since
            self._on_bytes(conn, conn.sock)
            if conn.waiting and conn.since == since:
                return conn
        return None

    def _log_crowded(self, now: float) -> None:
        if self._crowded and now >= self._crowded_next:
            words = "too many connections: those without a whole request for longest were closed %s"
            self.app.request_log.warning(words, fields(closed=self._crowded, open=self.nr_conns))
            self._crowded, self._crowded_next = 0, now + CROWDED_EVERY

    def _wait(self, conn: BufferedConnection) -> None:
        self._await_request(conn)
        self._watch(conn)

    def _watch(self, conn: BufferedConnection) -> None:
        conn.waiting = True
        self.poller.register(conn.sock, selectors.EVENT_READ, partial(self._on_bytes, conn))

    def _unwatch(self, conn: BufferedConnection) -> None:
        conn.waiting = False
        self.poller.unregister(conn.sock)

    def _await_request(self, conn: BufferedConnection) -> None:
        conn.since = time.monotonic()
        conn.timeout = conn.since + self.request_timeout
        self.pending_conns.append(conn)

    def _on_bytes(self, conn: BufferedConnection, sock: Any) -> None:
        if not conn.waiting:
            # accepting a new connection in the same round has closed this one, or has read it already
            return
        try:
            chunk = sock.recv(CHUNK)
        except BlockingIOError:
            return
        except OSError:
            chunk = b""
            conn.buffer.clear()
        if conn.idle:
            conn.idle = False
            self.keepalived_conns.remove(conn)
            self._await_request(conn)
        conn.buffer += chunk
        if chunk:
            self._dispatch(conn)
        elif conn.buffer:
            self._refuse(conn, 400)
        else:
            self._unwait(conn)
            self._close(conn)

    def _dispatch(self, conn: BufferedConnection) -> None:
        """Gives the request to a thread if all of it is here; refuses what can never become one."""
        # an empty line before a request is not part of it (RFC 9112, section 2.2)
        if conn.buffer.startswith(b"\r\n"):
            del conn.buffer[:2]
        found = framing.classify(conn.buffer, self.max_body)
        if found.refuse:
            self._refuse(conn, found.refuse)
        elif found.arrived and conn.reads_answers():
            self._unwait(conn)
            conn.whole, conn.arrived, conn.continued = found.whole, time.monotonic(), False
            self.enqueue_req(conn)
        elif found.arrived:
            sender = conn.client[0] if conn.client else ""
            self.app.request_log.warning("dropped %s", fields(why="reads no answers", sender=sender))
            self._unwait(conn)
            self._linger(conn)
        elif found.expects and not conn.continued:
            conn.continued = True
            with suppress(OSError):
                conn.sock.send(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _unwait(self, conn: BufferedConnection) -> None:
        self.pending_conns.remove(conn)
        self._unwatch(conn)

    def murder_pending(self) -> None:
        """Ends what is too slow: a request with 408, a silent or closing connection without an answer."""
        now = time.monotonic()
        while self.pending_conns and self.pending_conns[0].timeout < now:
            conn = self.pending_conns[0]
            if conn.buffer:
                self._refuse(conn, 408)
            else:
                self._unwait(conn)
                self._close(conn)
        while self._lingering and self._lingering[0].timeout < now:
            self._end_linger(self._lingering[0])
        self._log_crowded(now)

    def _cap_keepalive(self, deadline: float) -> None:
        """A stopping worker waits no longer for the rest of a request than for a next request."""
        super()._cap_keepalive(deadline)
        for conn in self.pending_conns:
            conn.timeout = min(conn.timeout, deadline)

    # -- a thread: answer ---------------------------------------------------------------------------------------

    def handle(self, conn: BufferedConnection) -> Any:
        """Parses and answers one request, which is complete in the connection's buffer."""
        if time.monotonic() - conn.arrived > MAX_THREAD_WAIT:
            self._answer(conn.sock, conn.client, 503, "all threads are busy")
            return False
        conn.parse_buffer()
        return super().handle(conn)

    def handle_request(self, req: Any, conn: BufferedConnection) -> bool:
        """Answers one parsed request; returns whether the connection stays open.

        As in the stock worker, without hooks, access log, file responses and max_requests. The app finds in its environ
        `glassq.arrived`, when the request had arrived (time.monotonic()), and `glassq.listener`, where (getsockname).
        """
        # the main loop has sent "100 Continue", or need not: the answer comes at once
        req._expected_100_continue = False
        answer, environ = wsgi.create(req, conn.sock, conn.client, conn.server, self.cfg, CachedDateResponse)
        environ["wsgi.multithread"] = True
        environ["glassq.arrived"], environ["glassq.listener"] = conn.arrived, conn.server
        if not (conn.whole and self.alive) or len(self.keepalived_conns) >= self.max_keepalived:
            answer.force_close()
        for chunk in self.wsgi(environ, answer.start_response):
            answer.write(chunk)
        answer.close()
        return not answer.should_close()

    def handle_error(self, req: Any, client: Any, addr: Any, exc: Exception) -> None:
        """Answers a request that could not be parsed; the answer echoes nothing of it."""
        status = next((status for kind, status in _STATUS if isinstance(exc, kind)), 500)
        if status == 500:
            self.app.request_log.exception("bug in the HTTP server")
        self._answer(client, addr, status, type(exc).__name__)

    def _keepalive_after(self, conn: BufferedConnection, keepalive: Any) -> bool:
        # the unread rest of a body must not be taken for the next request; all of it is in memory
        return bool(keepalive) and bool(conn.parser.finish_body())

    # -- the main loop: keep the connection, or close it --------------------------------------------------------

    def finish_request(self, conn: BufferedConnection, fs: Future[Any]) -> None:
        """A thread has answered on a connection: waits for its next request, or closes it."""
        if fs.cancelled() or fs.exception() is not None or not fs.result():
            self._linger(conn)
            return
        conn.sock.setblocking(False)
        conn.buffer += conn.parser.unreader.take_buffered()
        if conn.buffer:
            self._wait(conn)
            self._dispatch(conn)
            return
        conn.idle, conn.since = True, time.monotonic()
        conn.timeout = conn.since + (self._keepalive if self.alive else STOP_KEEPALIVE_LINGER)
        self.keepalived_conns.append(conn)
        self._watch(conn)

    def _refuse(self, conn: BufferedConnection, status: int) -> None:
        self._unwait(conn)
        self._answer(conn.sock, conn.client, status, "no request arrived")
        self._linger(conn)

    def _answer(self, sock: Any, addr: Any, status: int, why: str) -> None:
        self.app.counters.refused(status)
        if (left_out := self._log_limiter.admit()) is not None:
            sender = addr[0] if addr else ""
            self.app.request_log.warning("refused %s", fields(status=status, why=why, sender=sender, **left_out))
        _send(sock, status)

    def _linger(self, conn: BufferedConnection) -> None:
        """Closes our side and reads on for a moment: a reset would discard the answer before the client has read it."""
        try:
            conn.sock.setblocking(False)
            conn.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self._close(conn)
            return
        conn.timeout = time.monotonic() + LINGER
        self._lingering.append(conn)
        self.poller.register(conn.sock, selectors.EVENT_READ, partial(self._on_lingering_bytes, conn))

    def _on_lingering_bytes(self, conn: BufferedConnection, sock: Any) -> None:
        if sock.fileno() < 0:
            # it was closed in the same round, to make room for another one
            return
        try:
            gone = not sock.recv(CHUNK)
        except BlockingIOError:
            return
        except OSError:
            gone = True
        if gone:
            self._end_linger(conn)

    def _end_linger(self, conn: BufferedConnection) -> None:
        self._lingering.remove(conn)
        self.poller.unregister(conn.sock)
        # closing a socket with unread bytes would send a reset
        with suppress(OSError):
            conn.sock.recv(CHUNK)
        self._close(conn)

    def _close(self, conn: BufferedConnection) -> None:
        self.nr_conns -= 1
        conn.close()


def _send(sock: Any, status: int) -> None:
    """Sends an error answer, as much of it as the socket takes without waiting; then the connection is closed."""
    with suppress(OSError):
        sock.send(last_answer(status), _MORE)
