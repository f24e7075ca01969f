"""Ports for servers that are started later, or stopped and started again: nobody else gets them in between."""

from __future__ import annotations

import socket
from collections import deque

# Older ones are given back: descriptors are not without end, and no test starts so many servers.
_KEPT = 200
_held: deque[socket.socket] = deque()


def free_port(host: str = "127.0.0.1") -> int:
    """A port of `host` on which a server may listen for as long as the test runs; until then it refuses connections.

    A socket that is bound and does not listen holds it (SO_REUSEADDR on both): the kernel gives it to no other process,
    neither to one that asks for any port nor as the local end of a connection.
    """
    holder = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    holder.bind((host, 0))
    _held.append(holder)
    if len(_held) > _KEPT:
        _held.popleft().close()
    return int(holder.getsockname()[1])


def give_back() -> None:
    """Gives all ports back, at the end of everything."""
    while _held:
        _held.popleft().close()
