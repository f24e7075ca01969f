"""gunicorn's threaded worker with a gate: a request reaches a thread only when all of it has arrived.

In the stock worker a sender of one byte a second holds a thread for as long as it likes, a dozen of them stop the
service, and a client that does not close after an error holds up the main loop. Here the main loop gathers bytes
(they are few: a ping has at most `max_body`), ends what is too slow with 408, and lets go of a closing client without
waiting. Threads only ever work.
"""

from __future__ import annotations

import errno
import selectors
import socket
import time
from collections import deque
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from gunicorn.http import errors, wsgi
from gunicorn.http.wsgi import Response
from gunicorn.util import http_date
from gunicorn.workers.gthread import STOP_KEEPALIVE_LINGER, ThreadWorker

from glassq.intake import arrival
from glassq.intake.connection import Connection
from glassq.intake.line_budget import LineBudget
from glassq.intake.problem import last_answer
from glassq.log import fields, logger

if TYPE_CHECKING:
    from concurrent.futures import Future

log = logger("glassq.intake")

# One read of a socket, in bytes; a ping fits into one.
CHUNK = 64 << 10
# How long a closing connection may take to hear of it, in seconds (RFC 9112, section 9.6).
LINGER = 2.0
# Who has waited so long for a thread is told to come again, in seconds: with the longest that the queue may then take
# (glassq/intake/enqueue.py, BUDGET) he would give up on us.
PATIENCE = 2.0

# Of the connections that a worker may hold, one in so many is left to those that linger. Where there are more, the
# oldest of them ends early.
LINGERING_SHARE = 5
# New connections are accepted in bursts of at most this many, so that a crowd does not fill the listen backlog.
ACCEPTED_AT_ONCE = 256
# Log lines about connections that were closed to make room are at least this far apart, in seconds.
CROWDED_EVERY = 60.0

# The end of the connection follows an error answer: the kernel sends both in one packet (Linux alone can).
_MORE = getattr(socket, "MSG_MORE", 0)

# The client is gone, or the kernel is out of memory: the others wait in the listen backlog.
_NOT_NOW = (errno.EAGAIN, errno.ECONNABORTED, errno.ENOBUFS, errno.ENOMEM)
_NO_DESCRIPTOR = (errno.EMFILE, errno.ENFILE)

_STATUS: tuple[tuple[type[Exception], int], ...] = (
    (errors.LimitRequestLine, 414),
    (errors.LimitRequestHeaders, 431),
    (errors.ExpectationFailed, 417),
    (errors.ParseException, 400),
)


class Answer(Response):  # type: ignore[misc]
    """A response whose Date is made once a second: else it is the dearest of all headers."""

    date = (0, "")

    def default_headers(self) -> list[str]:
        """The status line and the headers that every answer has."""
        now = int(time.time())
        second, date = Answer.date
        if now != second:
            date = http_date(now)
            Answer.date = (now, date)
        end = "close" if self.should_close() else "keep-alive"
        return [f"HTTP/1.1 {self.status}\r\n", f"Date: {date}\r\n", f"Connection: {end}\r\n"]


class Gate(ThreadWorker):  # type: ignore[misc]
    """The worker class named in conf/gunicorn.conf.py, which also sets `request_timeout` and `max_body` here."""

    #: a request must have arrived within this, in seconds
    request_timeout = 10.0
    #: longer bodies are not waited for, in bytes
    max_body = 16 << 10

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._lingering: deque[Connection] = deque()
        self._budget = LineBudget()
        # how many may be open beside those that linger
        self._max_open = self.worker_connections - max(1, self.worker_connections // LINGERING_SHARE)
        self.max_keepalived = self._max_open - self.cfg.threads
        # a burst is small beside all others, so that none of it is closed before it could send anything
        self._burst = max(1, min(ACCEPTED_AT_ONCE, self._max_open // 4))
        # connections closed to make room that no log line has told yet, and when the next line may
        self._crowded, self._crowded_next = 0, 0.0
        # every look into gunicorn's settings costs a microsecond
        self._keepalive = self.cfg.keepalive

    # -- the main loop: gather ----------------------------------------------------------------------------------

    def accept(self, listener: Any) -> None:
        """Takes new connections; nothing of their requests is here yet."""
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
            self._wait(Connection(self.cfg, sock, client, listener.getsockname()))
            if self.nr_conns - len(self._lingering) > self._max_open:
                self._make_room()
            if self.nr_conns >= self.worker_connections and self._lingering:
                # gunicorn would stop accepting
                self._end_linger(self._lingering[0])

    def _free_descriptor(self) -> None:
        """Fewer descriptors than connections that we may hold: one is closed at once, and gives its own back."""
        if not self._lingering:
            self._make_room()
        if self._lingering:
            self._end_linger(self._lingering[0])

    def _make_room(self) -> None:
        """Closes the connection that has been without a whole request for longest; the newest one never.

        A client that has begun a request is told by 503 to come again: that there is no room is not its fault.
        """
        conn = self._longest_waiting()
        if conn is None:
            # all others are at work
            return
        if conn.idle:
            self.keepalived_conns.popleft()
            self._unwatch(conn)
        else:
            self._unwait(conn)
            self._crowded += 1
            self.app.meter.crowded()
        if conn.buffer:
            _send(conn.sock, 503)
        self._linger(conn)

    def _longest_waiting(self) -> Connection | None:
        """The connection waiting longest, unless it is the only one. Its pending bytes are read first."""
        queues = (self.pending_conns, self.keepalived_conns)
        while sum(map(len, queues)) > 1:
            conn: Connection = min((conns[0] for conns in queues if conns), key=lambda conn: conn.since)
            since = conn.since
            self._on_bytes(conn, conn.sock)
            if conn.waiting and conn.since == since:
                return conn
        return None

    def _tell_crowded(self, now: float) -> None:
        if self._crowded and now >= self._crowded_next:
            words = "too many connections: those without a whole request for longest were closed %s"
            log.warning(words, fields(closed=self._crowded, open=self.nr_conns))
            self._crowded, self._crowded_next = 0, now + CROWDED_EVERY

    def _wait(self, conn: Connection) -> None:
        self._await_request(conn)
        self._watch(conn)

    def _watch(self, conn: Connection) -> None:
        conn.waiting = True
        self.poller.register(conn.sock, selectors.EVENT_READ, partial(self._on_bytes, conn))

    def _unwatch(self, conn: Connection) -> None:
        conn.waiting = False
        self.poller.unregister(conn.sock)

    def _await_request(self, conn: Connection) -> None:
        conn.since = time.monotonic()
        conn.timeout = conn.since + self.request_timeout
        self.pending_conns.append(conn)

    def _on_bytes(self, conn: Connection, sock: Any) -> None:
        if not conn.waiting:
            # a connection that was accepted in the same round took its place, or had it read before
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
            self._judge(conn)
        elif conn.buffer:
            self._refuse(conn, 400)
        else:
            self._unwait(conn)
            self._close(conn)

    def _judge(self, conn: Connection) -> None:
        # an empty line before a request is no part of it (RFC 9112, section 2.2)
        if conn.buffer.startswith(b"\r\n"):
            del conn.buffer[:2]
        found = arrival.look(conn.buffer, self.max_body)
        if found.refuse:
            self._refuse(conn, found.refuse)
        elif found.arrived and conn.reads_answers():
            self._unwait(conn)
            conn.whole, conn.arrived, conn.continued = found.whole, time.monotonic(), False
            self.enqueue_req(conn)
        elif found.arrived:
            log.warning("dropped %s", fields(why="reads no answers", sender=conn.client[0] if conn.client else ""))
            self._unwait(conn)
            self._linger(conn)
        elif found.expects and not conn.continued:
            conn.continued = True
            with suppress(OSError):
                conn.sock.send(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _unwait(self, conn: Connection) -> None:
        self.pending_conns.remove(conn)
        self._unwatch(conn)

    def murder_pending(self) -> None:
        """Ends what has been too slow: requests with 408; the silent and the closing without a word."""
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
        self._tell_crowded(now)

    def _cap_keepalive(self, deadline: float) -> None:
        """A worker that stops: it waits no longer for the rest of a request than for the next one."""
        super()._cap_keepalive(deadline)
        for conn in self.pending_conns:
            conn.timeout = min(conn.timeout, deadline)

    # -- a thread: work -----------------------------------------------------------------------------------------

    def handle(self, conn: Connection) -> Any:
        """Parses and answers one request, all of which lies in the connection's buffer."""
        if time.monotonic() - conn.arrived > PATIENCE:
            self._answer(conn.sock, conn.client, 503, "all threads are busy")
            return False
        conn.parse_gathered()
        return super().handle(conn)

    def handle_request(self, req: Any, conn: Connection) -> bool:
        """Answers one request that could be parsed; whether the connection goes on.

        The stock worker's, less what nobody uses here: hooks, access log, file responses, max_requests.
        """
        # the gate has said "100 Continue" itself, or will not: the answer is at hand
        req._expected_100_continue = False
        answer, environ = wsgi.create(req, conn.sock, conn.client, conn.server, self.cfg, Answer)
        environ["wsgi.multithread"] = True
        environ["glassq.arrived"], environ["glassq.listener"] = conn.arrived, conn.server
        if not (conn.whole and self.alive) or len(self.keepalived_conns) >= self.max_keepalived:
            answer.force_close()
        for chunk in self.wsgi(environ, answer.start_response):
            answer.write(chunk)
        answer.close()
        return not answer.should_close()

    def handle_error(self, req: Any, client: Any, addr: Any, exc: Exception) -> None:
        """Answers what could not be parsed, without a word of it."""
        status = next((status for kind, status in _STATUS if isinstance(exc, kind)), 500)
        if status == 500:
            log.exception("bug in intake")
        self._answer(client, addr, status, type(exc).__name__)

    def _keepalive_after(self, conn: Connection, keepalive: Any) -> bool:
        # what the app did not read of the body must not be taken for the next request; all of it is in memory
        return bool(keepalive) and bool(conn.parser.finish_body())

    # -- the main loop: go on, or let go ------------------------------------------------------------------------

    def finish_request(self, conn: Connection, fs: Future[Any]) -> None:
        """A thread is done with a connection: wait for its next request, or close."""
        if fs.cancelled() or fs.exception() is not None or not fs.result():
            self._linger(conn)
            return
        conn.sock.setblocking(False)
        conn.buffer += conn.parser.unreader.take_buffered()
        if conn.buffer:
            self._wait(conn)
            self._judge(conn)
            return
        conn.idle, conn.since = True, time.monotonic()
        conn.timeout = conn.since + (self._keepalive if self.alive else STOP_KEEPALIVE_LINGER)
        self.keepalived_conns.append(conn)
        self._watch(conn)

    def _refuse(self, conn: Connection, status: int) -> None:
        self._unwait(conn)
        self._answer(conn.sock, conn.client, status, "no request arrived")
        self._linger(conn)

    def _answer(self, sock: Any, addr: Any, status: int, why: str) -> None:
        self.app.meter.refused(status)
        if (left_out := self._budget.admit()) is not None:
            log.warning("refused %s", fields(status=status, why=why, sender=addr[0] if addr else "", **left_out))
        _send(sock, status)

    def _linger(self, conn: Connection) -> None:
        """Says that we close, and reads on for a moment: a reset would take the answer away from the client."""
        try:
            conn.sock.setblocking(False)
            conn.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self._close(conn)
            return
        conn.timeout = time.monotonic() + LINGER
        self._lingering.append(conn)
        self.poller.register(conn.sock, selectors.EVENT_READ, partial(self._on_lingering_bytes, conn))

    def _on_lingering_bytes(self, conn: Connection, sock: Any) -> None:
        if sock.fileno() < 0:
            # another one that lingers took its place in the same round
            return
        try:
            gone = not sock.recv(CHUNK)
        except BlockingIOError:
            return
        except OSError:
            gone = True
        if gone:
            self._end_linger(conn)

    def _end_linger(self, conn: Connection) -> None:
        self._lingering.remove(conn)
        self.poller.unregister(conn.sock)
        # closing a socket with unread bytes is a reset
        with suppress(OSError):
            conn.sock.recv(CHUNK)
        self._close(conn)

    def _close(self, conn: Connection) -> None:
        self.nr_conns -= 1
        conn.close()


def _send(sock: Any, status: int) -> None:
    """Sends an error answer, or as much of it as the socket takes without waiting; the connection ends after it."""
    with suppress(OSError):
        sock.send(last_answer(status), _MORE)
