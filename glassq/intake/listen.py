"""Where the intake listens: at an address for pings, and at one for who reads metrics."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gunicorn.sock import TCP6Socket, TCPSocket

from glassq.errors import SettingsError
from glassq.log import fields, logger
from glassq.values import Address, Bind

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from glassq.settings import Settings


log = logger("glassq.intake")

# An address for metrics that cannot be listened on is tried again after this, in seconds. The log says so less often.
RETRY, REPEAT = 5.0, 600.0


class Absent:
    """An address for metrics that cannot be listened on. Says so at once, and again now and then."""

    def __init__(self, bind: Bind, why: str, now: float, *, handed_over: bool) -> None:
        """`now` is time.monotonic(); with `handed_over` the address is systemd's to listen on, and not tried again."""
        self.bind = bind
        self._why = why
        self._handed_over = handed_over
        self._retry_at, self._repeat_at = now + RETRY, now + REPEAT
        self._say()

    def due(self, now: float) -> bool:
        """Whether it shall be tried now."""
        if now >= self._repeat_at:
            self._repeat_at = now + REPEAT
            self._say()
        if self._handed_over or now < self._retry_at:
            return False
        self._retry_at = now + RETRY
        return True

    def failed(self, error: OSError) -> None:
        """It was tried in vain."""
        self._why = error.strerror or str(error)

    def _say(self) -> None:
        todo = "free the address or change [metrics] intake; "
        if self._handed_over:
            todo += "then systemctl daemon-reload && systemctl restart glassq.target"
        else:
            todo += f"it is tried again every {RETRY:g} s"
        log.error("metrics are not served: %s %s", self._why, fields(address=self.bind, todo=todo))


def open_listener(bind: Bind, cfg: Any, logger: Any) -> Any:
    """A listening socket as gunicorn has it. Raises OSError."""
    host, port = Address(bind).parts
    kind = TCP6Socket if ":" in host else TCPSocket
    return kind((host, port), cfg, logger)


def addresses(settings: Settings) -> list[Bind]:
    """Where gunicorn listens: for pings first, then for who reads metrics, where that is another one."""
    public, inside = settings.intake.bind, settings.metrics.intake
    return list(dict.fromkeys([public, Bind(inside)] if inside else [public]))


def missing(address: Address, listeners: Iterable[Any]) -> bool:
    """Whether none of the sockets handed over listens at this address."""
    found = places(address)
    return not any(each.getsockname()[:2] in found for each in listeners if isinstance(each.getsockname(), tuple))


def places(address: Address) -> set[tuple[Any, ...]]:
    """Host and port of the address, as sockets tell them; nothing where the host has no address."""
    try:
        return {each[4][:2] for each in socket.getaddrinfo(*address.parts, type=socket.SOCK_STREAM)}
    except OSError:
        return set()


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


def unusable(settings: Settings) -> Iterator[tuple[Bind, OSError]]:
    """The addresses of the settings on which glassq-web cannot listen now, and why."""
    for bind in addresses(settings):
        try:
            try_bind(bind)
        except OSError as error:
            yield bind, error


def refusal(settings: Settings, bind: Bind, error: OSError) -> str:
    """The same in words that name the setting."""
    key = "[intake] bind" if bind == settings.intake.bind else "[metrics] intake"
    return f'{settings.file}: {key} = "{bind}": cannot be listened on: {error.strerror}'


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
