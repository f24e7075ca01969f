"""gunicorn's threaded worker with a gate: a request reaches a thread only when all of it has arrived.

In the stock worker a sender of one byte a second holds a thread for as long as it likes, a dozen of them stop the
service, and a client that does not close after an error holds up the main loop. Here the main loop gathers bytes
(they are few: a ping has at most `max_body`), ends what is too slow with 408, and lets go of a closing client without
waiting. Threads only ever work.
"""

from __future__ import annotations

import errno
import select
import selectors
import socket
import struct
import time
from collections import deque
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from gunicorn.http import errors, get_parser, wsgi
from gunicorn.http.wsgi import Response
from gunicorn.util import http_date
from gunicorn.workers.gthread import STOP_KEEPALIVE_LINGER, TConn, ThreadWorker

from glassq.intake import arrival
from glassq.intake.problem import PROBLEM_JSON, RETRY_AFTER, problem
from glassq.log import kv, logger

if TYPE_CHECKING:
    from concurrent.futures import Future

log = logger("glassq.intake")

# One read of a socket, in bytes; a ping fits into one.
CHUNK = 64 << 10
# How long a closing connection may take to hear of it, in seconds (RFC 9112, section 9.6).
LINGER = 2.0
# Should a thread ever wait for a client after all, it waits so long: struct timeval of seconds and microseconds.
_SEND_TIMEOUT = struct.pack("@ll", 1, 0)
# How much may lie unread by a client, in bytes; some hundred answers.
_SEND_BUFFER = 64 << 10
# So many answers lie in a small part of it: it is enough to look that often whether a client reads.
LOOK_EVERY = 32
# Who has waited so long for a thread is told to come again, in seconds: with the longest that the queue may then take
# (glassq/intake/enqueue.py, BUDGET) he would give up on us.
PATIENCE = 2.0

# Nobody is there any more, or there is no descriptor for him: he waits in the backlog.
_NOT_NOW = (errno.EAGAIN, errno.ECONNABORTED, errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

_STATUS: tuple[tuple[type[Exception], int], ...] = (
    (errors.LimitRequestLine, 414),
    (errors.LimitRequestHeaders, 431),
    (errors.ExpectationFailed, 417),
    (errors.ParseException, 400),
)


class Connection(TConn):  # type: ignore[misc]
    """A client's connection and what has arrived on it since its last request."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.buffer = bytearray()
        self.whole = False
        #: kept alive, and nothing of a next request is here
        self.idle = False
        #: "100 Continue" has been sent for the request that arrives now
        self.continued = False
        #: how many requests have arrived
        self.asked = 0
        #: when the request that waits for a thread had arrived
        self.arrived = 0.0
        # the stock worker would wait for data in a thread
        self.data_ready = True
        # the parser gets what the gate gathered and never the socket: in a thread nothing can be waited for
        self.parser = get_parser(self.cfg, iter(()), self.client)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _SEND_TIMEOUT)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)

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
        # every look into gunicorn's settings costs a microsecond
        self._keepalive = self.cfg.keepalive

    # -- the main loop: gather ----------------------------------------------------------------------------------

    def accept(self, listener: Any) -> None:
        """A new connection: nothing of its request is here yet."""
        try:
            sock, client = listener.accept()
        except OSError as error:
            if error.errno not in _NOT_NOW:
                raise
            return
        self.nr_conns += 1
        self._wait(Connection(self.cfg, sock, client, listener.getsockname()))
        if self.nr_conns >= self.worker_connections:
            self._make_room()

    def _make_room(self) -> None:
        """Of many who hold a connection and say nothing, the one who has been silent for longest goes."""
        if self.keepalived_conns:
            idle = self.keepalived_conns.popleft()
            self.poller.unregister(idle.sock)
            self._close(idle)
            return
        silent = next((conn for conn in self.pending_conns if not conn.buffer), None)
        if silent is not None:
            self._unwait(silent)
            self._close(silent)

    def _wait(self, conn: Connection) -> None:
        self._await_request(conn)
        self.poller.register(conn.sock, selectors.EVENT_READ, partial(self._on_bytes, conn))

    def _await_request(self, conn: Connection) -> None:
        conn.timeout = time.monotonic() + self.request_timeout
        self.pending_conns.append(conn)

    def _on_bytes(self, conn: Connection, sock: Any) -> None:
        if sock.fileno() < 0:
            # a connection accepted in the same round took its place
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
            log.warning("dropped %s", kv(why="reads no answers", sender=conn.client[0] if conn.client else ""))
            self._unwait(conn)
            self._linger(conn)
        elif found.expects and not conn.continued:
            conn.continued = True
            with suppress(OSError):
                conn.sock.send(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _unwait(self, conn: Connection) -> None:
        self.pending_conns.remove(conn)
        self.poller.unregister(conn.sock)

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
        conn.parser.unreader.unread(bytes(conn.buffer))
        conn.buffer.clear()
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
        conn.idle = True
        conn.timeout = time.monotonic() + (self._keepalive if self.alive else STOP_KEEPALIVE_LINGER)
        self.keepalived_conns.append(conn)
        self.poller.register(conn.sock, selectors.EVENT_READ, partial(self._on_bytes, conn))

    def _refuse(self, conn: Connection, status: int) -> None:
        self._unwait(conn)
        self._answer(conn.sock, conn.client, status, "no request arrived")
        self._linger(conn)

    def _answer(self, sock: Any, addr: Any, status: int, why: str) -> None:
        self.app.meter.refused(status)
        log.warning("refused %s", kv(status=status, why=why, sender=addr[0] if addr else ""))
        title = HTTPStatus(status).phrase
        body = problem(status, title)
        head = [f"HTTP/1.1 {status} {title}", f"Date: {http_date()}", "Connection: close"]
        head += [f"Content-Type: {PROBLEM_JSON}", f"Content-Length: {len(body)}"]
        if status == 503:
            head.append(f"Retry-After: {RETRY_AFTER}")
        with suppress(OSError):
            sock.send("\r\n".join(head).encode() + b"\r\n\r\n" + body)

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
        self._close(conn)

    def _close(self, conn: Connection) -> None:
        self.nr_conns -= 1
        conn.close()
