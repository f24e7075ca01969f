"""All settings as one frozen value, and what follows from several of its sections."""

from __future__ import annotations

import math
import os
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from glassq.edited import read_text, secret_lines
from glassq.errors import SettingsError, UnreadableText
from glassq.mistakes import place
from glassq.settings.route import Route, named
from glassq.settings.sections import (
    BodiesSettings,
    ConsoleSettings,
    GlassSettings,
    IntakeSettings,
    LedgerSettings,
    LogSettings,
    MetricsSettings,
    NotifySettings,
    PushSettings,
    QueueSettings,
    ScheduleSettings,
    SourceSettings,
    StorageSettings,
    TasksSettings,
    WorkerSettings,
)
from glassq.settings.shared import resolved
from glassq.systemd import MISSING

if TYPE_CHECKING:
    from glassq.values import SecretFile

# The remedy where systemd has no copy of a secret for the service that needs it: the file itself is hidden from it.
_NOT_PASSED_ON = {
    "sources": "; systemd passes it on after: systemctl daemon-reload && systemctl restart glassq-web "
    "(if [sources.NAME] and its keys each have a line of their own)",
    "routes": "; systemd passes it on after: systemctl daemon-reload && systemctl restart glassq-worker "
    "(if [[routes]] and its keys each have a line of their own)",
}
# A job's lease outlasts the longest attempt by this many seconds: time to reserve it, notice an overrun, and kill.
LEASE_MARGIN = 30.0
# The longest lease that fits beanstalkd's protocol, in seconds.
MAX_LEASE = (1 << 32) - 1
# The keys of a source that name a secret file.
_SOURCE_FILES = ("secrets_file", "verify_tokens_file", "verify_token_file", "path_token_file")


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All of glassq.toml. `file` is its path.

    `ignored` are the mistakes in sections that this program does not read; those sections hold their defaults.
    `outdated` are remarks about keys of the last release, which are taken for one more. `unset` are the keys, such as
    "bodies.url", of places that the file does not name, so that they follow from the queue.
    """

    file: str = ""
    ignored: tuple[str, ...] = ()
    outdated: tuple[str, ...] = ()
    unset: tuple[str, ...] = ()
    queue: QueueSettings = QueueSettings()
    intake: IntakeSettings = IntakeSettings()
    bodies: BodiesSettings = BodiesSettings()
    sources: dict[str, SourceSettings] = {}
    worker: WorkerSettings = WorkerSettings()
    routes: tuple[Route, ...] = ()
    handlers: dict[str, dict[str, Any]] = {}
    schedule: tuple[ScheduleSettings, ...] = ()
    push: PushSettings | None = None
    tasks: TasksSettings = TasksSettings()
    console: ConsoleSettings = ConsoleSettings()
    glass: GlassSettings = GlassSettings()
    storage: StorageSettings = StorageSettings()
    ledger: LedgerSettings = LedgerSettings()
    metrics: MetricsSettings = MetricsSettings()
    notify: NotifySettings = NotifySettings()
    log: LogSettings = LogSettings()

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "routes", named(self.routes))
        for shared, section in resolved(self.queue.url, partial(getattr, self)):
            msgspec.structs.force_setattr(self, shared.section, section)
            msgspec.structs.force_setattr(self, "unset", (*self.unset, f"{shared.section}.{shared.key}"))

    @property
    def longest_deadline(self) -> float:
        """The longest hard deadline of an attempt, in seconds: that of [worker], or of a route."""
        return max(self.worker.deadline, *(route.deadline or 0.0 for route in self.routes), 0.0)

    @property
    def lease(self) -> int:
        """The lease of every job, in whole seconds: [queue] ttr, or more if an attempt may take longer.

        A handler that holds the interpreter lock prevents its process from renewing the lease.
        """
        longest = max(self.queue.ttr, self.longest_deadline + LEASE_MARGIN)
        return min(MAX_LEASE, math.ceil(longest))

    def secret(self, key: str) -> list[str]:
        """The secrets in the file that `key` (such as "glass.client_secret_file") names, one per line.

        Blank lines and lines that start with # are ignored; at least one other line is required.
        Raises SettingsError with file, key, path and reason, but without the content.
        """
        try:
            secrets = secret_lines(self.secret_text(key))
        except UnreadableText as error:
            raise self.refused(key, str(error)) from None
        if not secrets:
            raise self.refused(key, "is empty: expected one secret per line")
        return secrets

    def secret_text(self, key: str) -> str:
        """The text of the secret file that `key` names, or of systemd's copy. Raises SettingsError like `secret`."""
        path = self.secret_path(key)
        copied = bool(path.copy) and os.access(path.copy, os.R_OK)
        try:
            text = read_text(path.copy if copied else path)
        except UnreadableText as error:
            late = path.copy and not copied
            remedy = _NOT_PASSED_ON.get(key.partition(".")[0], "") if late else ""
            raise self.refused(key, f"{error}{remedy}") from None
        if text.strip() == MISSING:
            raise self.refused(key, "is missing")
        return text

    def place(self, *key: str | int) -> str:
        """The file and a key in it, as messages begin: "glassq.toml: [queue] ttr"; integers are places in lists."""
        return f"{self.file}: {place(key)}"

    def refused(self, key: str, why: str) -> SettingsError:
        """The error for the file that `key` names. `why` starts with a verb."""
        return SettingsError(f'{self.file}: {place(key.split("."))} = "{self.secret_path(key)}": the file {why}')

    def secret_path(self, key: str) -> SecretFile:
        """The path of the secret file that `key` names. Raises SettingsError if the settings name none."""
        value: Any = self
        for name in key.split("."):
            if value is None:
                raise SettingsError(
                    f"{self.file}: missing section [{key.rpartition('.')[0]}]: expected it for its {name}"
                )
            value = _part(value, name)
        if value is None:
            raise SettingsError(f"{self.file}: missing key {place(key.split('.'))}: expected the path of a file")
        path: SecretFile = value
        return path


def _part(of: Any, name: str) -> Any:
    """A part of the settings by its name, or its number in a list."""
    if isinstance(of, tuple):
        return of[int(name)]
    return of.get(name) if isinstance(of, dict) else getattr(of, name)


def route_secret_files(settings: Settings) -> list[str]:
    """The keys of the secret files that the pool reads for its routes, such as "routes.0.secret_file"."""
    return [route_secret_key(settings, route) for route in settings.routes if route.secret_file is not None]


def route_secret_key(settings: Settings, route: Route) -> str:
    """The key of a route's `secret_file`; a step's route has the name of the whole."""
    return f"routes.{[each.name for each in settings.routes].index(route.name)}.secret_file"


def secret_files(settings: Settings) -> list[str]:
    """The keys of the secret files that intake reads, such as "sources.github.secrets_file"."""
    return [
        f"sources.{name}.{key}"
        for name, source in settings.sources.items()
        for key in _SOURCE_FILES
        if getattr(source, key) is not None
    ]
