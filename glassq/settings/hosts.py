"""Which of the places in the settings all hosts share, and which are on this one alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from glassq.mistakes import place
from glassq.settings.shared import SHARED_PLACES
from glassq.values import without_password

if TYPE_CHECKING:
    from collections.abc import Iterator

    from glassq.settings.settings import Settings
    from glassq.settings.shared import SharedPlace

# How the name of a place on one host begins.
_FILES = ("sqlite", "file:", "/")


def shared_keys(settings: Settings) -> frozenset[str]:
    """The keys, such as "ledger.url", of what lives in the queue's database."""
    queue = settings.queue.url
    found = (shared for shared in SHARED_PLACES if queue.is_database and _where(settings, shared) == queue.whole)
    return frozenset(f"{shared.section}.{shared.key}" for shared in found)


def remarks_on_shared(settings: Settings) -> Iterator[str]:
    """What is a file of this host, though the queue is for many hosts. It is right where there is but one."""
    queue = settings.queue.url
    if not queue.many_hosts:
        return
    instead = "; without this key it is in the queue's database" if queue.is_database else ""
    for shared in SHARED_PLACES:
        where = _where(settings, shared)
        if where.startswith(_FILES):
            key = place([shared.section, shared.key])
            yield (
                f'{settings.file}: {key} = "{without_password(where)}" is on this host alone, while [queue] url may be '
                f"for many: {shared.amiss}{instead}"
            )


def _where(settings: Settings, shared: SharedPlace) -> str:
    section = getattr(settings, shared.section)
    return "" if section is None else str(getattr(section, shared.key))
