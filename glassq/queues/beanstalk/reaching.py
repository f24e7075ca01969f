"""How beanstalkd is reached: a socket, where it leads, and what went wrong with it in words."""

from __future__ import annotations

import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

# Host and port, or the path of a unix socket.
_Address = tuple[str, int] | str
# When the kernel asks an idle connection's other host whether it lives, how often, in seconds, and how many unanswered
# questions break the connection.
_KEEP_ALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 2, "TCP_KEEPCNT": 3}


def reach(address: _Address, seconds: float) -> socket.socket:
    """A connected socket. Raises OSError, after so many seconds."""
    if isinstance(address, str):
        plain = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with _closed_on_error(plain):
            plain.settimeout(seconds)
            plain.connect(address)
    else:
        plain = socket.create_connection(address, seconds)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        _keep_alive(plain)
    return plain


def place(address: _Address) -> str:
    """The address, for people."""
    if isinstance(address, str):
        return address
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def words(error: BaseException) -> str:
    """What went wrong with a connection."""
    if isinstance(error, TimeoutError | BlockingIOError):
        return "no answer in time"
    if isinstance(error, OSError):
        return error.strerror or str(error) or type(error).__name__
    return "the connection broke inside a reply (is that beanstalkd?)"


def _keep_alive(sock: socket.socket) -> None:
    """Has the kernel look whether the other host is still there: a reserve may wait much longer than that takes."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEP_ALIVE.items():
        # not every system has them
        if (option := getattr(socket, name, None)) is not None:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)


@contextmanager
def _closed_on_error(sock: socket.socket) -> Iterator[None]:
    try:
        yield
    except BaseException:
        sock.close()
        raise
