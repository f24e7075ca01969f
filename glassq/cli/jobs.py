"""What commands that are not moved to operations/ yet share for what lies buried."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from glassq.cli.find import Finder
from glassq.cli.signals import defer_signals
from glassq.errors import JobNotFound

if TYPE_CHECKING:
    from collections.abc import Iterable

    from glassq.cli.app import App
    from glassq.cli.find import Found
    from glassq.queues import Queue


whole = defer_signals


@dataclass(frozen=True, slots=True)
class Done:
    """What became of one id. `did` is "kicked", "deleted", the same with "would be " before it, or "nothing"."""

    id: str
    job: int | None
    delivery: str | None
    did: str
    why: str = ""


def each_found(queue: Queue, app: App, ids: Iterable[str]) -> tuple[list[tuple[str, Found]], list[Done]]:
    """The jobs of these ids, each once, and a line for every id that has none."""
    finder = Finder(queue, app.ledger)
    found: dict[int, tuple[str, Found]] = {}
    missing = []
    for text in ids:
        try:
            each = finder.find(text)
        except (JobNotFound, click.ClickException) as error:
            if isinstance(error, click.UsageError):
                raise
            why = error.message if isinstance(error, click.ClickException) else str(error)
            missing.append(Done(text, None, None, "nothing", why))
        else:
            found.setdefault(each.job.id, (text, each))
    return list(found.values()), missing


def refused(text: str, found: Found, why: str) -> Done:
    return Done(text, found.job.id, found.name or None, "nothing", why)


def number(count: int) -> str:
    """So many deliveries, in words."""
    return "1 delivery" if count == 1 else f"{count} deliveries"
