"""Asks an HTTP server of this machine one question, over TCP or a unix socket."""

from __future__ import annotations

import errno
import socket
from contextlib import closing
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from typing import TYPE_CHECKING

from glassq.final_response import reading_final

if TYPE_CHECKING:
    from collections.abc import Mapping

# A server that listens on all addresses is reached on loopback.
_LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - nothing listens here
# Of an answer, so much is read, in bytes.
_ANSWER = 300
# A whole document is smaller than this.
_WHOLE = 1 << 24


def reachable(host: str) -> str:
    """The address at which this machine reaches a server that listens on `host`."""
    return _LOOPBACK.get(host, host)


def get(place: tuple[str, int] | str, path: str, *, timeout: float) -> tuple[int, str]:
    """The status of the answer to GET `path`, and the beginning of its body, within `timeout` seconds.

    `place` is a host and a port, or the path of a unix socket. Raises OSError and HTTPException.
    """
    status, body = _ask(place, "GET", path, {}, None, timeout, _ANSWER)
    return status, body.decode("utf-8", "replace").strip()


def fetch(place: str, path: str, *, timeout: float) -> bytes:
    """The whole body of the answer to GET `path` on a unix socket. Raises OSError, also where that is not a 200."""
    try:
        status, body = _ask(place, "GET", path, {}, None, timeout, _WHOLE)
    except HTTPException as error:
        raise OSError(errno.EPROTO, f"no answer in HTTP: {error}") from None
    if status != HTTPStatus.OK:
        raise OSError(errno.EPROTO, f"it answered {status}")
    return body


def post(
    place: tuple[str, int] | str, target: str, headers: Mapping[str, str], body: bytes, *, timeout: float
) -> tuple[int, str]:
    """The same as `get` for a POST to a raw target. Raises OSError and HTTPException."""
    status, said = _ask(place, "POST", target, headers, body, timeout, _ANSWER)
    return status, said.decode("utf-8", "replace").strip()


def _ask(
    place: tuple[str, int] | str,
    method: str,
    target: str,
    headers: Mapping[str, str],
    body: bytes | None,
    timeout: float,
    most: int,
) -> tuple[int, bytes]:
    with closing(reading_final(HTTPConnection)("localhost", timeout=timeout)) as connection:
        connection.sock = _connected(place, timeout)
        connection.request(method, target, body, {"Connection": "close", **headers})
        answer = connection.getresponse()
        return answer.status, answer.read(most)


def _connected(place: tuple[str, int] | str, timeout: float) -> socket.socket:
    if isinstance(place, tuple):
        host, port = place
        return socket.create_connection((reachable(host), port), timeout)
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.settimeout(timeout)
        sock.connect(place)
    except BaseException:
        sock.close()
        raise
    return sock
