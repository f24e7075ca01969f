"""Addresses to listen on."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gunicorn.sock import TCP6Socket, TCPSocket

from glassq.values import Address

if TYPE_CHECKING:
    from glassq.values import Bind


def open_listener(bind: Bind, cfg: Any, logger: Any) -> Any:
    """A listening TCP socket in gunicorn's form. Raises OSError."""
    host, port = Address(bind).parts
    kind = TCP6Socket if ":" in host else TCPSocket
    return kind((host, port), cfg, logger)


def socket_names(address: Address) -> set[tuple[Any, ...]]:
    """Host and port as sockets bound to the address report them (getsockname); empty if the host has no address."""
    try:
        return {found[4][:2] for found in socket.getaddrinfo(*address.parts, type=socket.SOCK_STREAM)}
    except OSError:
        return set()


def try_bind(bind: Bind) -> None:
    """Listens there for a moment. Raises OSError if that fails; gunicorn would log it ten times in five seconds."""
    place = bind.place
    if isinstance(place, tuple):
        family = socket.AF_INET6 if ":" in place[0] else socket.AF_INET
        socket.create_server(place, family=family).close()
    elif place is not None:
        _try_unix_socket(Path(place))


def _try_unix_socket(path: Path) -> None:
    # gunicorn removes a file of this name: it must not be the socket of a server that still listens
    if path.exists():
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            if not path.is_socket() or sock.connect_ex(str(path)) == 0:
                raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
    if not os.access(path.parent, os.W_OK):
        code = errno.EACCES if path.parent.is_dir() else errno.ENOENT
        raise OSError(code, f"{path.parent}: {os.strerror(code)}")
