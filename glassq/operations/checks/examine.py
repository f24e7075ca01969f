"""Goes through all checks of an installation."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from glassq.errors import QueueError, SettingsError
from glassq.operations.checks.base import Check
from glassq.operations.checks.databases import DATABASES
from glassq.operations.checks.in_effect import not_in_effect
from glassq.operations.checks.machine import MACHINE, clock_at
from glassq.operations.checks.programs import PROGRAMS
from glassq.operations.checks.queue import QUEUE, engine, trouble
from glassq.operations.checks.system import SYSTEM
from glassq.values import is_postgres

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from glassq.operations import Operations
    from glassq.operations.progress import Progress
    from glassq.queues.base import Inspector

    Ask = Callable[[Operations, Inspector, Progress], Iterator[Check]]

_MEND_FIRST = "mend it first: without settings nothing else can be looked at"


def without_settings(file: Path | None, error: SettingsError) -> Iterator[Check]:
    """All that can be said where the settings cannot be used; `file` is where they are, None where there is none."""
    yield Check("settings", False, str(error), _MEND_FIRST, 78)
    yield from not_in_effect(file)
    yield clock_at(datetime.now(UTC))


def examine(operations: Operations, progress: Progress) -> Iterator[Check]:
    """What each check came to, as it comes: machine, databases, programs and system first, then the queue.

    Nothing is changed, but for one empty job that is put and taken out again. `progress` is told which check is next.
    Raises Stopped.
    """
    looks = [*MACHINE, *DATABASES, *PROGRAMS, *SYSTEM]
    total = len(looks) + len(QUEUE)
    for number, look in enumerate(looks):
        progress.advance(number, total, _words(look.__name__))
        yield from _looked(look.__name__, partial(look, operations))
    yield from _asked(operations, QUEUE, progress, len(looks), total)


def examine_engine(operations: Operations, progress: Progress) -> Iterator[Check]:
    """What the queue's engine tells of itself, and what else hosts share in its database. Raises Stopped."""
    yield from _asked(operations, [engine], progress, 0, 1)
    if is_postgres(operations.settings.queue.url):
        for look in DATABASES:
            yield from _looked(look.__name__, partial(look, operations))


def _asked(operations: Operations, asks: Sequence[Ask], progress: Progress, before: int, total: int) -> Iterator[Check]:
    """What the queue answers; where its engine's library is missing, that is all there is to say of it."""
    try:
        opened = operations.queue()
    except SettingsError as error:
        yield Check("queue", False, str(error), "until then nothing of it can be looked at", 78)
        return
    with opened as queue:
        try:
            for number, ask in enumerate(asks, before):
                progress.advance(number, total, _words(ask.__name__))
                yield from _looked(ask.__name__, partial(ask, operations, queue, progress))
        except QueueError as error:
            yield trouble(operations, queue, error)


def _looked(name: str, look: Callable[[], Iterable[Check]]) -> Iterator[Check]:
    """What a check came to. One that cannot look does not hide the others."""
    try:
        yield from look()
    except OSError as error:
        todo = "ask as the user that the services run as"
        yield Check(name.replace("_", " "), False, f"cannot be looked at: {error}", todo)
    except SettingsError as error:
        yield Check(name.replace("_", " "), False, str(error), "mend that first", 78)


def _words(name: str) -> str:
    return f"looking at: {name.replace('_', ' ')}"
