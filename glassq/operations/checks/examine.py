"""Goes through all checks of an installation."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from glassq.errors import QueueError
from glassq.operations.checks.base import Check
from glassq.operations.checks.in_effect import not_in_effect
from glassq.operations.checks.machine import MACHINE, clock_at
from glassq.operations.checks.programs import PROGRAMS
from glassq.operations.checks.queue import QUEUE, engine, trouble
from glassq.operations.checks.system import SYSTEM

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from glassq.errors import SettingsError
    from glassq.operations import Operations
    from glassq.operations.progress import Progress

_MEND_FIRST = "mend it first: without settings nothing else can be looked at"


def without_settings(file: Path | None, error: SettingsError) -> Iterator[Check]:
    """All that can be said where the settings cannot be used; `file` is where they are, None where there is none."""
    yield Check("settings", False, str(error), _MEND_FIRST, 78)
    yield from not_in_effect(file)
    yield clock_at(datetime.now(UTC))


def examine(operations: Operations, progress: Progress) -> Iterator[Check]:
    """What each check came to, as it comes: machine, programs and system first, then the queue.

    Nothing is changed, but for one empty job that is put and taken out again. `progress` is told which check is next.
    Raises Stopped.
    """
    looks = [*MACHINE, *PROGRAMS, *SYSTEM]
    total = len(looks) + len(QUEUE)
    for number, look in enumerate(looks):
        progress.advance(number, total, _words(look.__name__))
        yield from _looked(look.__name__, partial(look, operations))
    with operations.queue() as queue:
        try:
            for number, ask in enumerate(QUEUE, len(looks)):
                progress.advance(number, total, _words(ask.__name__))
                yield from _looked(ask.__name__, partial(ask, operations, queue, progress))
        except QueueError as error:
            yield trouble(operations, queue, error)


def examine_engine(operations: Operations, progress: Progress) -> Iterator[Check]:
    """What the queue's engine tells of itself, alone. Raises Stopped."""
    with operations.queue() as queue:
        try:
            yield from engine(operations, queue, progress)
        except QueueError as error:
            yield trouble(operations, queue, error)


def _looked(name: str, look: Callable[[], Iterable[Check]]) -> Iterator[Check]:
    try:
        yield from look()
    except OSError as error:
        todo = "ask as the user that the services run as"
        yield Check(name.replace("_", " "), False, f"cannot be looked at: {error}", todo)


def _words(name: str) -> str:
    return f"looking at: {name.replace('_', ' ')}"
