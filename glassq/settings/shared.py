"""What lives in the queue's database unless a key says otherwise: ledger, task names, users' credentials, bodies.

Where the queue is PostgreSQL, hosts share it; with beanstalkd they are files of this machine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec

from glassq.mistakes import place
from glassq.values import BodiesUrl, is_postgres, without_password

if TYPE_CHECKING:
    from collections.abc import Iterator

    from glassq.settings.settings import Settings


class _Part(NamedTuple):
    """A key whose empty value means the queue's database, or else `here`.

    `amiss` is what follows where it is a file of one host, and the queue is for many.
    """

    section: str
    key: str
    here: str
    amiss: str


# How the name of a place on one host begins.
_FILES = ("sqlite", "file:", "/")
_PARTS = (
    _Part(
        *("bodies", "url", "file:///var/lib/glassq/bodies"),
        "a pool on another host finds none of the bodies over 32 KiB that come in here, and buries their deliveries",
    ),
    _Part(
        *("push", "names", "sqlite:////var/lib/glassq/task-names.db"),
        "a task's name that is taken here is free on other hosts",
    ),
    _Part(
        *("glass", "credentials", "/var/lib/glassq/credentials"),
        "users who are added here are unknown on other hosts, and so are tokens that Google renews here",
    ),
    _Part(
        *("ledger", "url", "sqlite:////var/lib/glassq/ledger.db"),
        "it has what this host's pool did; each host puts its own schedules, and finds its own duplicates",
    ),
)


def resolve(settings: Settings) -> None:
    """Fills in where each part lives, in place; called while the settings are made."""
    queue = settings.queue.url.whole
    for part in _PARTS:
        section = getattr(settings, part.section)
        if section is not None and not getattr(section, part.key):
            where = queue if is_postgres(queue) else part.here
            value = BodiesUrl(where) if part.section == "bodies" else where
            resolved = msgspec.structs.replace(section, **{part.key: value})
            msgspec.structs.force_setattr(settings, part.section, resolved)


def shared_keys(settings: Settings) -> frozenset[str]:
    """The keys, such as "ledger.url", of what lives in the queue's database."""
    queue = settings.queue.url.whole
    found = (part for part in _PARTS if is_postgres(queue) and _where(settings, part) == queue)
    return frozenset(f"{part.section}.{part.key}" for part in found)


def remarks_on_shared(settings: Settings) -> Iterator[str]:
    """What is a file of this host, though the queue is for many hosts. It is right where there is but one."""
    if not is_postgres(settings.queue.url):
        return
    for part in _PARTS:
        where = _where(settings, part)
        if where.startswith(_FILES):
            key = place([part.section, part.key])
            yield (
                f'{settings.file}: {key} = "{without_password(where)}" is on this host alone, while [queue] url may be '
                f"for many: {part.amiss}; without this key it is in the queue's database"
            )


def _where(settings: Settings, part: _Part) -> str:
    section = getattr(settings, part.section)
    return "" if section is None else str(getattr(section, part.key))
