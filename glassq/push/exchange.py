"""One HTTP request to a target, and what came of it: no redirects, no cookies, no proxies, nothing decoded.

A process works one delivery at a time, so one connection for each place it talks to is all it needs. A connection is
kept only once an answer was read to its end. While it is in use it is kept nowhere: whatever ends an attempt, and
wherever (see `errors.Interrupt`), no later request can read what was meant for this one.
"""

from __future__ import annotations

import os
import re
import ssl
import time
from contextlib import closing, suppress
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

from glassq.final_response import FinalResponse, UnaskedUpgrade
from glassq.push.call import WITH_BODY

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from http.client import HTTPResponse

    from glassq.push.call import Call

# A target that does not take a connection in this time, in seconds, will not take it later either.
CONNECT = 10.0
# A kept connection that was closed while nothing was asked shows it within this, in seconds.
AT_ONCE = 1.0
# So much of an answer's body is kept, in bytes: enough to see what went wrong.
KEPT = 4 << 10
# So much of it is read, in bytes, so that the connection can be used again. A longer one is cut: it costs less to
# connect anew.
MAX_READ = 64 << 10
_BREAKS = re.compile(r"[\r\n\0]")
# A socket takes no endless timeout. In seconds; an attempt's deadline is well below.
_LONGEST = 86_400.0


class Origin(NamedTuple):
    """Whom to connect to."""

    scheme: str
    host: str
    port: int | None


def split(url: str) -> tuple[Origin, str]:
    """An http or https URL as its origin, and its path and query."""
    parts = urlsplit(url)
    query = f"?{parts.query}" if parts.query else ""
    return Origin(parts.scheme, parts.hostname or "", parts.port), (parts.path or "/") + query


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of it.

    `status` 0: no answer came. `failure` says in words why none did, or why it is not whole; "": it is. `body` has the
    first bytes (KEPT); `cut`: there were more.
    """

    status: int = 0
    reason: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    cut: bool = False
    failure: str = ""


class _Response(FinalResponse):
    """A final response that says where its body ends."""

    def begin(self) -> None:
        super().begin()
        lengths = self.headers.get_all("content-length", [])
        if len(set(lengths)) > 1 or (lengths and self.length is None and not self.chunked):
            # nobody can say where this answer ends (RFC 9112, section 6.3)
            raise HTTPException("a Content-Length that is none")


class Exchange:
    """The connections of one process; for one thread."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._idle: dict[Origin, HTTPConnection] = {}
        self._tls: ssl.SSLContext | None = None

    def ask(self, origin: Origin, call: Call, remaining: Callable[[], float]) -> Answer:
        """Makes the request; `remaining()` is how many seconds there are for it. Raises nothing of the network's.

        A connection that was kept may be closed by the target just as we write to it. Where it ends without an answer,
        the request is made once more on a fresh one; not where that took so long that the target may be at work on it.
        """
        try:
            kept, began = self._take(origin), time.monotonic()
            if kept is not None:
                try:
                    return self._over(kept, origin, call, remaining)
                except ConnectionError:
                    if time.monotonic() - began > AT_ONCE:
                        raise
            return self._over(self._connect(origin, remaining), origin, call, remaining)
        except UnaskedUpgrade:
            return Answer(HTTPStatus.SWITCHING_PROTOCOLS.value, failure="no other protocol was asked for")
        except _TROUBLE as error:
            return Answer(failure=_words(error))

    def close(self) -> None:
        """Closes all connections. The next request opens others."""
        while self._idle:
            self._idle.popitem()[1].close()

    def _take(self, origin: Origin) -> HTTPConnection | None:
        """The kept connection to there, if it is still good."""
        if self._pid != os.getpid():
            # our parent's: closing them here ends nothing there, writing to them would
            self.close()
            self._pid = os.getpid()
        connection = self._idle.pop(origin, None)
        if connection is None or connection.is_connected:
            return connection
        connection.close()
        return None

    def _connect(self, origin: Origin, remaining: Callable[[], float]) -> HTTPConnection:
        timeout = min(CONNECT, _bounded(remaining()))
        connection: HTTPConnection
        if origin.scheme == "https":
            # the system's authorities: a certificate that they do not vouch for is refused
            self._tls = self._tls or ssl.create_default_context()
            connection = HTTPSConnection(origin.host, origin.port, timeout=timeout, ssl_context=self._tls)
        else:
            connection = HTTPConnection(origin.host, origin.port, timeout=timeout)
        try:
            connection.connect()
        except BaseException:
            connection.close()
            raise
        return connection

    def _over(self, connection: HTTPConnection, origin: Origin, call: Call, remaining: Callable[[], float]) -> Answer:
        """One request and its answer. Raises ConnectionError where the target hangs up without one."""
        keep = False
        try:
            sock = connection.sock
            sock.settimeout(_bounded(remaining()))
            # who refuses a body may answer, and close, before having read all of it
            with suppress(ConnectionError):
                sock.sendall(_bytes(origin, call))
            with closing(_Response(sock, method=call.method)) as response:
                response.begin()
                answer, whole = _read(response, remaining)
                keep = whole and not response.will_close
        finally:
            if not keep:
                connection.close()
        if keep:
            self._idle[origin] = connection
        return answer


def _bytes(origin: Origin, call: Call) -> bytes:
    """The whole request, to be sent at once: http.client sends head and body apart, and takes twice the time.

    Raises ValueError where a header would break its line.
    """
    host = f"[{origin.host}]" if ":" in origin.host else origin.host
    port = f":{origin.port}" if origin.port else ""
    lines = [f"{call.method} {call.path} HTTP/1.1", f"Host: {host}{port}", "Accept-Encoding: identity"]
    lines += [f"{name}: {value}" for name, value in call.headers.items()]
    if call.body or call.method in WITH_BODY:
        lines.append(f"Content-Length: {len(call.body)}")
    if any(_BREAKS.search(line) for line in lines):
        raise ValueError("a header has more than one line")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + call.body


def _read(response: HTTPResponse, remaining: Callable[[], float]) -> tuple[Answer, bool]:
    """The answer, and whether it was read to its end."""
    body, seen, whole, failure = bytearray(), 0, False, ""
    try:
        while not whole and seen < MAX_READ:
            piece = response.read1(MAX_READ - seen)
            body += piece[: KEPT - len(body)]
            seen += len(piece)
            whole = not piece
            if whole and response.length:
                raise IncompleteRead(bytes(body), response.length)
            if not whole and not remaining():
                raise TimeoutError
    except _TROUBLE as error:
        failure = _words(error)
    reason, cut = response.reason or "", seen > len(body) or not whole
    return Answer(response.status, reason, dict(response.getheaders()), bytes(body), cut, failure), whole


def _bounded(seconds: float) -> float:
    # 0 would be a socket that does not wait at all
    return min(max(seconds, 0.001), _LONGEST)


_TROUBLE = (HTTPError, HTTPException, OSError)

# What went wrong, in words that follow "the target ..."; the first that fits counts.
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
    """Why there is no whole answer. Nothing out of the answer is in it."""
    words = next((words for kinds, words in _WORDS if isinstance(error, kinds)), "")
    if not words:
        return f"answered what is not HTTP ({type(error).__name__})"
    # what the system says of it tells more only where there never was a connection
    cause = error.__cause__ if isinstance(error, NewConnectionError | SSLError) else error
    why = None if isinstance(error, ConnectionError) else getattr(cause, "strerror", None)
    return f"{words}: {why}" if why else words
