"""Asks an HTTP server of this machine one question, over TCP or a unix socket."""

from __future__ import annotations

import socket
from contextlib import closing
from http.client import HTTPConnection

from glassq.final_response import reading_final

# A server that listens on all addresses is reached on loopback.
_LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - nothing listens here
# Of an answer, so much is read by default, in bytes.
_ANSWER = 300


def reachable(host: str) -> str:
    """The address at which this machine reaches a server that listens on `host`."""
    return _LOOPBACK.get(host, host)


def get(place: tuple[str, int] | str, path: str, *, timeout: float, most: int = _ANSWER) -> tuple[int, str]:
    """The status of the answer to GET `path`, and at most `most` bytes of its body, within `timeout` seconds.

    `place` is a host and a port, or the path of a unix socket. Raises OSError and HTTPException.
    """
    with closing(reading_final(HTTPConnection)("localhost", timeout=timeout)) as connection:
        connection.sock = _connected(place, timeout)
        connection.request("GET", path, headers={"Connection": "close"})
        answer = connection.getresponse()
        return answer.status, answer.read(most).decode("utf-8", "replace").strip()


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
