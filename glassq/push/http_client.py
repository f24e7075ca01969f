"""An HTTP client for one request to a target: no redirects, no cookies, no proxies, no decoding.

Each thread that sends has a connection of its own. A connection is reused only after its response was read to the end,
by any thread. While a request runs, its connection is stored nowhere: an attempt may be interrupted at
any point (see `errors.Interrupt`), and then no later request can read this one's response.
Not built on h11: in interleaved runs it took 1.5 times the CPU for small responses.
"""

from __future__ import annotations

import os
import re
import socket
import ssl
import threading
import time
from contextlib import closing, nullcontext, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from http.client import HTTPException, IncompleteRead
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    NameResolutionError,
    NewConnectionError,
    SSLError,
)

from glassq import descriptors
from glassq.final_response import FinalResponse, UnaskedUpgrade
from glassq.push.http_request import WITH_BODY

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from http.client import HTTPResponse

    from glassq.event_loop import Stoppable
    from glassq.push.http_request import HttpRequest

# Connecting fails after this many seconds: a target that takes longer does not answer later either.
CONNECT = 10.0
# A request on a reused connection that fails within this many seconds was not begun by the target.
AT_ONCE = 1.0
# How much of a response's body is kept, in bytes: enough to see what went wrong.
KEPT = 4 << 10
# How much of a body is read, in bytes, so that the connection can be reused. Beyond it, connecting again costs less.
MAX_READ = 64 << 10

_BREAKS = re.compile(r"[\r\n\0]")
# A socket's timeout must be finite. In seconds; the deadlines of attempts are well below.
_MAX_TIMEOUT = 86_400.0


class Origin(NamedTuple):
    """Where to connect to. `port` None: the scheme's own."""

    scheme: str
    host: str
    port: int | None


def split(url: str) -> tuple[Origin, str]:
    """An http or https URL as its origin, and its path and query."""
    parts = urlsplit(url)
    query = f"?{parts.query}" if parts.query else ""
    return Origin(parts.scheme, parts.hostname or "", parts.port), (parts.path or "/") + query


@dataclass(frozen=True, slots=True)
class TargetResponse:
    """A target's response, or why there is none.

    `status` 0: there is none. `failure` says why it is missing or incomplete, in words that follow "the target"; "": it
    is complete. `body` holds the first bytes, as many as were asked for; `cut`: there were more.
    """

    status: int = 0
    reason: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    cut: bool = False
    failure: str = ""


class _Response(FinalResponse):
    """A final response whose body has a certain end."""

    def begin(self) -> None:
        super().begin()
        lengths = self.headers.get_all("content-length", [])
        if len(set(lengths)) > 1 or (lengths and self.length is None and not self.chunked):
            # the body's end is unknown (RFC 9112, section 6.3)
            raise HTTPException("a Content-Length that is none")


class HttpClient:
    """Sends requests on the connections of one process."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        # as many as have been used at once; each operation on them is a single one, so threads need no lock
        self._idle: dict[Origin, list[HTTPConnection]] = {}
        self._tls: ssl.SSLContext | None = None

    def send(
        self,
        origin: Origin,
        request: HttpRequest,
        remaining: Callable[[], float],
        stoppable: Stoppable = nullcontext,
        kept: int = KEPT,
    ) -> TargetResponse:
        """Sends the request; `remaining()` is how many seconds are left for all of it. Network errors are not raised.

        Of the response's body `kept` bytes are kept. `stoppable` is `Context.stoppable` in a thread that no signal
        interrupts: it ends the request there.

        The target may close an idle connection just when we write to it. If a reused connection ends without a
        response, the request is sent once more on a new one; unless so much time has passed that the target may have
        begun to work on it.
        """
        try:
            idle, began = self._take(origin), time.monotonic()
            if idle is not None:
                try:
                    return self._send_on(idle, origin, request, remaining, stoppable, kept)
                except ConnectionError:
                    if time.monotonic() - began > AT_ONCE:
                        raise
            connection = self._connect(origin, remaining, stoppable)
            return self._send_on(connection, origin, request, remaining, stoppable, kept)
        except UnaskedUpgrade:
            return TargetResponse(HTTPStatus.SWITCHING_PROTOCOLS.value, failure="no other protocol was asked for")
        except _TROUBLE as error:
            return TargetResponse(failure=_words(error))

    def close(self) -> None:
        """Closes all connections. Later requests open others."""
        while self._idle:
            for connection in self._idle.popitem()[1]:
                connection.close()

    def _take(self, origin: Origin) -> HTTPConnection | None:
        """The idle connection to this origin, if it is still open."""
        if self._pid != os.getpid():
            # inherited over a fork: closing our copies does not harm the parent's connections, writing would
            self.close()
            self._pid = os.getpid()
        idle = self._idle.setdefault(origin, [])
        while True:
            try:
                connection = idle.pop()
            except IndexError:
                return None
            if connection.is_connected:
                return connection
            connection.close()

    def _connect(self, origin: Origin, remaining: Callable[[], float], stoppable: Stoppable) -> HTTPConnection:
        timeout = min(CONNECT, _bounded(remaining()))
        connection: HTTPConnection
        if origin.scheme == "https":
            # verifies certificates by the system's authorities
            self._tls = self._tls or ssl.create_default_context()
            connection = HTTPSConnection(origin.host, origin.port, timeout=timeout, ssl_context=self._tls)
        else:
            connection = HTTPConnection(origin.host, origin.port, timeout=timeout)
        try:
            if stoppable is nullcontext:
                connection.connect()
            else:
                connect_within(timeout, connection, stoppable)
        except BaseException:
            connection.close()
            raise
        descriptors.own(connection.sock, "a connection to a target", shared=False)
        return connection

    def _send_on(
        self,
        connection: HTTPConnection,
        origin: Origin,
        request: HttpRequest,
        remaining: Callable[[], float],
        stoppable: Stoppable,
        kept: int,
    ) -> TargetResponse:
        """One request and its response. Raises ConnectionError if the target hangs up without one."""
        keep = False
        sock = connection.sock
        try:
            with stoppable(lambda: _shut(sock)):
                sock.settimeout(_bounded(remaining()))
                # a target that refuses the body may respond, and close, before it has read all of it
                with suppress(ConnectionError):
                    sock.sendall(_bytes(origin, request))
                with closing(_Response(sock, method=request.method)) as response:
                    response.begin()
                    answer, whole = _read(response, remaining, kept)
            keep = whole and not response.will_close
        finally:
            if not keep:
                connection.close()
        if keep:
            self._idle.setdefault(origin, []).append(connection)
        return answer


def connect_within(seconds: float, connection: HTTPConnection, stoppable: Stoppable) -> None:
    """Connects in another thread, because looking a name up has no timeout. Raises what `connect` does.

    In the main thread of a child a signal ends it.
    """
    ended, failures, late = threading.Event(), list[BaseException](), threading.Event()

    def connect() -> None:
        try:
            connection.connect()
        except BaseException as error:
            failures.append(error)
        ended.set()
        if late.is_set():
            connection.close()

    thread = threading.Thread(target=connect, name="connect", daemon=True)
    thread.start()
    try:
        with stoppable(ended.set):
            if not ended.wait(seconds):
                raise ConnectTimeoutError(connection, "connecting took too long")
    except BaseException:
        late.set()
        raise
    if failures:
        raise failures[0]


def _shut(sock: socket.socket) -> None:
    """Ends what another thread waits for on it."""
    with suppress(OSError):
        # not that of TLS, which would wait for the other side
        socket.socket.shutdown(sock, socket.SHUT_RDWR)


def _bytes(origin: Origin, request: HttpRequest) -> bytes:
    """The whole request, for a single send: http.client sends head and body separately, which takes twice as long.

    Raises ValueError if a header would break its line.
    """
    host = f"[{origin.host}]" if ":" in origin.host else origin.host
    port = f":{origin.port}" if origin.port else ""
    lines = [f"{request.method} {request.path} HTTP/1.1", f"Host: {host}{port}", "Accept-Encoding: identity"]
    lines += [f"{name}: {value}" for name, value in request.headers.items()]
    if request.body or request.method in WITH_BODY:
        lines.append(f"Content-Length: {len(request.body)}")
    if any(_BREAKS.search(line) for line in lines):
        raise ValueError("a header has more than one line")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + request.body


def _read(response: HTTPResponse, remaining: Callable[[], float], kept: int) -> tuple[TargetResponse, bool]:
    """The response, and whether it was read to its end."""
    most = max(MAX_READ, kept + 1)
    body, seen, whole, failure = bytearray(), 0, False, ""
    try:
        while not whole and seen < most:
            piece = response.read1(min(MAX_READ, most - seen))
            body += piece[: kept - len(body)]
            seen += len(piece)
            whole = not piece
            if whole and response.length:
                raise IncompleteRead(bytes(body), response.length)
            if not whole and not remaining():
                raise TimeoutError
    except _TROUBLE as error:
        failure = _words(error)
    reason, cut = response.reason or "", seen > len(body) or not whole
    return TargetResponse(response.status, reason, dict(response.getheaders()), bytes(body), cut, failure), whole


def _bounded(seconds: float) -> float:
    # a timeout of 0 would make the socket non-blocking
    return min(max(seconds, 0.001), _MAX_TIMEOUT)


_TROUBLE = (HTTPError, HTTPException, OSError)

# What went wrong, in words that follow "the target". The first match counts.
_WORDS: tuple[tuple[tuple[type[Exception], ...], str], ...] = (
    ((NameResolutionError,), "has a name that cannot be resolved"),
    ((NewConnectionError,), "cannot be reached"),
    ((ConnectTimeoutError,), "took no connection in time"),
    ((ssl.SSLError, SSLError), "cannot be talked to by TLS"),
    ((TimeoutError,), "did not answer in time"),
    ((ConnectionError,), "closed the connection without an answer"),
    ((IncompleteRead,), "broke its answer off"),
    ((OSError,), "cannot be talked to"),
)


def _words(error: Exception) -> str:
    """Why there is no complete response. Quotes nothing from the response."""
    words = next((words for kinds, words in _WORDS if isinstance(error, kinds)), "")
    if not words:
        return f"answered what is not HTTP ({type(error).__name__})"
    # the system's own words help only if there never was a connection
    cause = error.__cause__ if isinstance(error, NewConnectionError | SSLError) else error
    why = None if isinstance(error, ConnectionError) else getattr(cause, "strerror", None)
    return f"{words}: {why}" if why else words
