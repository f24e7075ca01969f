"""What programs beside glassq see of each attempt: error trackers, tracing, metrics of your own.

    # glassq.toml
    [worker]
    hooks = ["observability:Tracing"]

`Tracing` is a class, or a function, that is called with the Settings in each child, and makes a Hook. A hook sees the
attempt; it decides nothing. What it raises is logged, and the work goes on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from glassq.errors import SettingsError
from glassq.excerpts import MAX_MESSAGE, words_of
from glassq.log import fields, logger
from glassq.named import import_named
from glassq.settings import find_modules_beside

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from glassq.delivery import Delivery
    from glassq.settings import Settings

log = logger("glassq.worker")

_METHODS = ("before", "after", "buried")
_SEES_NOTHING = f"expected at least one of the methods {', '.join(_METHODS)}"


@dataclass(frozen=True, slots=True)
class AttemptReport:
    """What became of one attempt.

    `outcome` is "done", "dropped", "retry", "bury", "interrupted" or "lease lost", `reason` what an operator reads of
    it, `error` the exception that the handler raised (None: it returned, or its process had died too often). `duration`
    is in seconds.
    """

    delivery: Delivery
    outcome: str
    reason: str
    duration: float
    error: BaseException | None


class Hook(Protocol):
    """Sees attempts. Every method may be left out. In lanes, several threads call it at once.

    A method is part of the attempt: its time counts for the hard deadline.
    """

    def before(self, delivery: Delivery) -> None:
        """The handler is called next, in this thread."""

    def after(self, report: AttemptReport) -> None:
        """The attempt is over, and the queue knows its outcome. Called in the thread of `before`.

        An attempt that ended with its process has no `after`.
        """

    def buried(self, report: AttemptReport) -> None:
        """The delivery was buried by this attempt. Called after `after`."""


class Hooks:
    """The hooks of a child, as one. What one of them raises is logged; the others are called all the same."""

    def __init__(self, hooks: Sequence[tuple[str, Any]] = ()) -> None:
        """`hooks` are the hooks, each with its name."""
        self._before = list(_methods(hooks, "before"))
        self._after = list(_methods(hooks, "after"))
        self._buried = list(_methods(hooks, "buried"))

    @property
    def watch(self) -> bool:
        """Whether any of them wants to know what becomes of attempts."""
        return bool(self._after or self._buried)

    def before(self, delivery: Delivery) -> None:
        """See `Hook.before`."""
        if self._before:
            _call(self._before, delivery)

    def after(self, report: AttemptReport) -> None:
        """Calls `Hook.after`, and `Hook.buried` where that is the outcome."""
        _call(self._after, report)
        if report.outcome == "bury":
            _call(self._buried, report)


def load(settings: Settings) -> list[tuple[str, Callable[[Settings], object]]]:
    """What makes the hooks of [worker] hooks, with the name of each. Raises SettingsError if one cannot be imported."""
    found = []
    for index, name in enumerate(settings.worker.hooks):
        where = f'{settings.file}: [worker] hooks, number {index + 1}, "{name}"'
        if not name.module:
            raise SettingsError(f'{where}: expected "module:Class", or a function that makes a hook')
        find_modules_beside(settings)
        try:
            make = import_named(name)
        except ValueError as error:
            raise SettingsError(f"{where}: {error}") from error
        if not callable(make):
            raise SettingsError(f"{where}: expected a class, or a function of the settings")
        if isinstance(make, type) and not _sees_something(make):
            raise SettingsError(f"{where}: {_SEES_NOTHING}")
        found.append((str(name), make))
    return found


def open_hooks(settings: Settings) -> Hooks:
    """The hooks of [worker] hooks, made for this process. Raises SettingsError if one cannot be made."""
    made = []
    for name, make in load(settings):
        where = f'{settings.file}: [worker] hooks: "{name}"'
        try:
            hook = make(settings)
        except (Exception, SystemExit) as error:
            raise SettingsError(f"{where} cannot be made: {words_of(error, MAX_MESSAGE)}") from error
        if not _sees_something(hook):
            raise SettingsError(f"{where}: {_SEES_NOTHING}")
        made.append((name, hook))
    return Hooks(made)


def _sees_something(hook: object) -> bool:
    """Whether it, or what is made of it, has a method of a hook; a class may find its methods in __getattr__."""
    return any(callable(getattr(hook, method, None)) for method in _METHODS) or hasattr(hook, "__getattr__")


def _methods(hooks: Sequence[tuple[str, Any]], method: str) -> Iterator[tuple[str, Callable[[Any], object]]]:
    for name, hook in hooks:
        if callable(found := getattr(hook, method, None)):
            yield f"{name}.{method}", found


def _call(methods: Sequence[tuple[str, Callable[[Any], object]]], given: object) -> None:
    for name, method in methods:
        try:
            method(given)
        except (Exception, SystemExit) as error:
            # an Interrupt is neither: it ends the attempt
            log.error("a hook failed; the work goes on %s", fields(hook=name, why=words_of(error, MAX_MESSAGE)))


NO_HOOKS = Hooks()
