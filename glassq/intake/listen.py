"""Where the intake listens: at an address for pings, and at one for who reads metrics."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glassq.errors import SettingsError
from glassq.values import Bind

if TYPE_CHECKING:
    from collections.abc import Iterable

    from glassq.settings import Settings
    from glassq.values import Address


def addresses(settings: Settings) -> list[Bind]:
    """Where gunicorn listens: for pings first, then for who reads metrics, where that is another one."""
    public, inside = settings.intake.bind, settings.metrics.intake
    return list(dict.fromkeys([public, Bind(inside)] if inside else [public]))


def missing(address: Address, listeners: Iterable[Any]) -> bool:
    """Whether none of the sockets handed over listens at this address."""
    found = {each[4][:2] for each in socket.getaddrinfo(*address.parts, type=socket.SOCK_STREAM)}
    return not any(each.getsockname()[:2] in found for each in listeners if isinstance(each.getsockname(), tuple))


def move(old: Settings, new: Settings, *, handed_over: bool) -> None:
    """At a reload: may gunicorn go on with the new settings' addresses? `handed_over`: its sockets are systemd's.

    Raises SettingsError where it takes a restart, OSError where one cannot be listened on.
    """
    before, after = addresses(old), addresses(new)
    if before == after:
        return
    moved = f"{new.file}: other addresses ({', '.join(after)})"
    if handed_over:
        raise SettingsError(
            f"{moved} are systemd's to listen on: systemctl daemon-reload && systemctl restart glassq.target"
        )
    if set(before) & set(after):
        # gunicorn binds all of them anew, while its old workers still listen on the one that stays
        raise SettingsError(f"{moved} need a restart of glassq-web")
    for each in after:
        try_bind(each)


def try_bind(bind: Bind) -> None:
    """Listens for a moment. Raises OSError, for which gunicorn would say the same ten times in five seconds."""
    place = bind.place
    if isinstance(place, tuple):
        family = socket.AF_INET6 if ":" in place[0] else socket.AF_INET
        socket.create_server(place, family=family).close()
    elif place is not None:
        _try_socket(Path(place))


def _try_socket(path: Path) -> None:
    # gunicorn removes what lies there: that must not be the socket of one who still listens
    if path.exists():
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            if not path.is_socket() or sock.connect_ex(str(path)) == 0:
                raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
    if not os.access(path.parent, os.W_OK):
        code = errno.EACCES if path.parent.is_dir() else errno.ENOENT
        raise OSError(code, f"{path.parent}: {os.strerror(code)}")
