"""Goes through all checks of an installation."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from glassq.errors import QueueError, QueueUnavailable, SettingsError
from glassq.operations.checks.base import Check
from glassq.operations.checks.databases import DATABASES
from glassq.operations.checks.in_effect import not_in_effect
from glassq.operations.checks.machine import MACHINE, clock_at
from glassq.operations.checks.programs import PROGRAMS
from glassq.operations.checks.queue import QUEUE, engine, trouble
from glassq.operations.checks.system import SYSTEM
from glassq.queues import local_engine
from glassq.settings.hosts import shared_keys

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from glassq.operations import Operations
    from glassq.operations.progress import Progress
    from glassq.queues.base import Inspector
    from glassq.settings import Settings

    Ask = Callable[[Operations, Inspector, Progress], Iterator[Check]]

# The checks of what a key names.
_BY_KEY = {
    "bodies.url": ("bodies",),
    "glass.credentials": ("credentials",),
    "ledger.url": ("ledger", "schedules"),
    "push.names": ("task_names",),
}
# What an operator must know within half a minute: these checks cost next to nothing, and need no secret.
_URGENT = frozenset({"journal", "journaled", "ledger", "units", "disks", "engine", "consumers"})
# What a process cannot look at that sees neither secrets nor the network, nor may write where task names are.
_HIDDEN = frozenset(
    {"secret_files", "sources", "photos", "credentials", "handlers", "push", "task_names", "intake", "tasks", "metrics"}
)
_MEND_FIRST = "mend it first: without settings nothing else can be looked at"


def without_settings(file: Path | None, error: SettingsError) -> Iterator[Check]:
    """All that can be said where the settings cannot be used; `file` is where they are, None where there is none."""
    yield Check("settings", False, str(error), _MEND_FIRST, 78)
    yield from not_in_effect(file)
    yield clock_at(datetime.now(UTC))


def glance(operations: Operations, progress: Progress) -> Iterator[Check]:
    """What is urgent of what `examine` looks at. Raises Stopped."""
    yield from examine(operations, progress, _URGENT)


def examine(operations: Operations, progress: Progress, only: frozenset[str] | None = None) -> Iterator[Check]:
    """What each check came to, as it comes: machine, databases, programs and system first, then the queue.

    A queue's database that takes nothing comes first, and then nothing else that lives there is looked at. Nothing is
    changed, but for one job that is put and taken out again. `progress` is told which check is next. With `only`, the
    checks of these names are made. Raises Stopped.
    """
    cause = _cause(operations)
    apart = _in_its_database(operations.settings) if cause is not None else frozenset()
    looks = [look for look in (*MACHINE, *DATABASES, *PROGRAMS, *SYSTEM) if look.__name__ not in apart]
    asks = QUEUE
    if operations.confined:
        looks = [look for look in looks if look.__name__ not in _HIDDEN]
    if only is not None:
        looks = [look for look in looks if look.__name__ in only]
        asks = [ask for ask in asks if ask.__name__ in only]
    if cause is not None:
        yield cause
        names = ", ".join(sorted(name.replace("_", " ") for name in apart))
        yield Check("databases", None, f"not looked at, as they are in the queue's: {names}")
    if operations.confined and only is None:
        names = ", ".join(sorted(name.replace("_", " ") for name in _HIDDEN))
        yield Check("sandbox", None, f"not looked at from in here: {names}", "`glassq doctor` looks at all")
    total = len(looks) + len(asks)
    missing = _missing(operations)
    for number, look in enumerate(looks):
        progress.advance(number, total, _words(look.__name__))
        # what the queue's engine lacks is told once, as the queue's
        yield from (each for each in _looked(look.__name__, partial(look, operations)) if each.said != missing)
    for check in _asked(operations, asks, progress, len(looks), total):
        if check != cause:
            yield check


def _cause(operations: Operations) -> Check | None:
    """Why nothing is taken by a database that holds more than the queue: the cause of much else that is wrong."""
    if not operations.settings.queue.url.is_database:
        return None
    try:
        opened = operations.looking()
    except SettingsError:
        # each check says it
        return None
    with opened as queue:
        try:
            wrong = (fact for fact in queue.facts([]) if fact.name == "primary")
            return next((Check(fact.name, False, fact.said, fact.todo) for fact in wrong), None)
        except QueueUnavailable as error:
            return trouble(operations, queue, error)
        except QueueError:
            # it is told with all else of the queue
            return None


def _missing(operations: Operations) -> str:
    """Why the queue's engine cannot be used at all, as its library is missing; "" where it can."""
    try:
        local_engine(operations.settings)
    except SettingsError as error:
        return str(error)
    return ""


def _in_its_database(settings: Settings) -> frozenset[str]:
    """The names of the checks of what lives in the queue's database."""
    shared = shared_keys(settings)
    return frozenset(("limits", *(name for key, names in _BY_KEY.items() if key in shared for name in names)))


def examine_engine(operations: Operations, progress: Progress) -> Iterator[Check]:
    """What the queue's engine tells of itself, and what else hosts share in its database. Raises Stopped."""
    cause = _cause(operations)
    yield from _asked(operations, [engine], progress, 0, 1)
    if operations.settings.queue.url.is_database:
        apart = _in_its_database(operations.settings) if cause is not None else frozenset()
        for look in DATABASES:
            if look.__name__ not in apart:
                yield from _looked(look.__name__, partial(look, operations))


def _asked(operations: Operations, asks: Sequence[Ask], progress: Progress, before: int, total: int) -> Iterator[Check]:
    """What the queue answers; where its engine's library is missing, that is all there is to say of it."""
    try:
        opened = operations.looking()
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
