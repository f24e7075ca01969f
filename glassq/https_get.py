"""One GET over https, for what glassq fetches from senders' own hosts: certificates, key sets, confirmations.

The caller has checked the URL. No redirects, no cookies, no proxies, no decoding; time and size are limited.
"""

from __future__ import annotations

import socket
import ssl
import threading
import time
from contextlib import contextmanager, suppress
from http.client import HTTPException
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from urllib3.connection import HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NameResolutionError, NewConnectionError, SSLError

if TYPE_CHECKING:
    from collections.abc import Iterator

USER_AGENT = "glassq"
TROUBLE = (HTTPError, HTTPException, OSError)


class HttpsResponse(NamedTuple):
    """A response: its status, and its body up to the limit."""

    status: int
    body: bytes


def get(url: str, *, seconds: float, limit: int, tls: ssl.SSLContext | None = None) -> HttpsResponse:
    """The response to a GET of an https URL, within `seconds` in all; a name's resolution is not counted.

    `tls` verifies the server; None: by the system's authorities. Raises OSError, in words that follow the host's name:
    it has no complete response of at most `limit` bytes in time.
    """
    parts = urlsplit(url)
    if parts.scheme != "https" or not parts.hostname:
        raise OSError("is no https URL")
    deadline = time.monotonic() + seconds
    tls = tls or ssl.create_default_context()
    connection = HTTPSConnection(parts.hostname, parts.port, timeout=seconds, ssl_context=tls)
    try:
        connection.connect()
        with _cut_at(deadline, connection.sock):
            connection.request(
                "GET",
                (parts.path or "/") + (f"?{parts.query}" if parts.query else ""),
                headers={"User-Agent": USER_AGENT, "Accept-Encoding": "identity"},
                preload_content=False,
                decode_content=False,
            )
            response = connection.getresponse()
            body = bytearray()
            # the end of a body that is too short is known only when it is read
            while len(body) <= limit and (piece := response.read(limit + 1 - len(body))):
                body += piece
        if time.monotonic() >= deadline:
            # a body without a length ends wherever it is cut
            raise TimeoutError
    except TROUBLE as error:
        raise OSError(_words(error, deadline)) from error
    finally:
        connection.close()
    if len(body) > limit:
        raise OSError(f"answered more than {limit} bytes")
    return HttpsResponse(response.status, bytes(body))


@contextmanager
def _cut_at(deadline: float, sock: socket.socket) -> Iterator[None]:
    """Ends the connection at the deadline. A socket's timeout holds for each piece, of which a server may send many."""

    def cut() -> None:
        # of the socket beneath TLS: SSLSocket's own method would let the reader go on in the clear
        with suppress(OSError):
            socket.socket.shutdown(sock, socket.SHUT_RDWR)

    timer = threading.Timer(max(0.0, deadline - time.monotonic()), cut)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _words(error: Exception, deadline: float) -> str:
    """Why there is no response; quotes nothing from it."""
    if isinstance(error, NameResolutionError):
        return "has a name that cannot be resolved"
    late = isinstance(error, TimeoutError | ConnectTimeoutError) and not isinstance(error, NewConnectionError)
    if late or time.monotonic() >= deadline:
        return "did not answer in time"
    cause = error if isinstance(error, ssl.SSLError) else error.__cause__ or error
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"has a certificate that is not trusted: {cause.verify_message}"
    if isinstance(error, SSLError | ssl.SSLError):
        return "cannot be talked to by TLS"
    return f"cannot be talked to: {getattr(cause, 'strerror', None) or type(cause).__name__}"
