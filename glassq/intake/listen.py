"""Where the intake listens: at an address for pings, and at another one for metrics."""

from __future__ import annotations

import resource
from typing import TYPE_CHECKING, Any

from glassq.errors import SettingsError
from glassq.http.listen import socket_names, try_bind
from glassq.log import fields, logger
from glassq.values import Address, Bind

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from glassq.settings import Settings


log = logger("glassq.intake")

# Seconds between tries to listen on a metrics address that is not free, and between the log lines about it.
RETRY, REPEAT = 5.0, 600.0
# As many descriptors as a process needs for the connections that conf/gunicorn.conf.py allows.
MAX_DESCRIPTORS = 4096


class AbsentListener:
    """A metrics address that cannot be listened on. Logs that at once, and again every REPEAT seconds."""

    def __init__(self, bind: Bind, why: str, now: float, *, handed_over: bool) -> None:
        """`now` is time.monotonic(). With `handed_over`, systemd listens there, and we do not try it again."""
        self.bind = bind
        self._why = why
        self._handed_over = handed_over
        self._retry_at, self._repeat_at = now + RETRY, now + REPEAT
        self._log()

    def due(self, now: float) -> bool:
        """Whether to try it now."""
        if now >= self._repeat_at:
            self._repeat_at = now + REPEAT
            self._log()
        if self._handed_over or now < self._retry_at:
            return False
        self._retry_at = now + RETRY
        return True

    def failed(self, error: OSError) -> None:
        """Another try has failed."""
        self._why = error.strerror or str(error)

    def _log(self) -> None:
        todo = "free the address or change [metrics] intake; "
        if self._handed_over:
            todo += "then systemctl daemon-reload && systemctl restart glassq.target"
        else:
            todo += f"it is tried again every {RETRY:g} s"
        log.error("metrics are not served: %s %s", self._why, fields(address=self.bind, todo=todo))


def raise_descriptors() -> None:
    """Lets this process open as many connections as the hard limit allows; nothing here uses select(2)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(MAX_DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def addresses(settings: Settings) -> list[Bind]:
    """Where gunicorn listens: first for pings, then for metrics, if that is another address."""
    public, metrics = settings.intake.bind, settings.metrics.intake
    return list(dict.fromkeys([public, Bind(metrics)] if metrics else [public]))


def missing(address: Address, listeners: Iterable[Any]) -> bool:
    """Whether none of the listening sockets from systemd has this address."""
    names = socket_names(address)
    bound = (listener.getsockname() for listener in listeners)
    return not any(name[:2] in names for name in bound if isinstance(name, tuple))


def check_move(old: Settings, new: Settings, *, handed_over: bool) -> None:
    """At a reload: checks whether gunicorn can go on with the new settings' addresses.

    `handed_over`: its sockets come from systemd. Raises SettingsError if only a restart can do it, OSError if it cannot
    listen on one of them.
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
        # gunicorn binds all of them again, while its old workers still listen on the one that stays
        raise SettingsError(f"{moved} need a restart of glassq-web")
    for bind in after:
        try_bind(bind)


def unusable(settings: Settings) -> Iterator[tuple[Bind, OSError]]:
    """The addresses of the settings on which glassq-web cannot listen now, and why."""
    for bind in addresses(settings):
        try:
            try_bind(bind)
        except OSError as error:
            yield bind, error


def refusal(settings: Settings, bind: Bind, error: OSError) -> str:
    """The same as a message that names the setting."""
    key = "[intake] bind" if bind == settings.intake.bind else "[metrics] intake"
    return f'{settings.file}: {key} = "{bind}": cannot be listened on: {error.strerror}'
