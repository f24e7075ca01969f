"""Which handler a delivery goes to, and what a handler gets.

A handler is a function of a delivery, or of a delivery and a Context:

    def handle(delivery: Delivery) -> str | dict | None: ...
    def handle(delivery: Delivery, context: Context) -> str | dict | None: ...

handler.py says how other functions are called. What it returns (a string or a small dict) is the result in the ledger.
"""

from __future__ import annotations

import functools
import importlib
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import msgspec

from glassq.errors import GlassqError, SettingsError
from glassq.excerpts import MAX_MESSAGE, words_of
from glassq.handler import as_handler, finished
from glassq.log import fields, logger
from glassq.settings import TASK_SOURCE, Route
from glassq.values import HandlerName, UrlPattern

if TYPE_CHECKING:
    from collections.abc import Iterator

    from glassq.delivery import Delivery
    from glassq.settings import Settings

log = logger("glassq.worker")

T = TypeVar("T")
# Where tasks go that no route of the settings takes: calls that were deferred, and requests to HTTP endpoints.
DEFERRED = Route(
    source=TASK_SOURCE,
    handler=HandlerName("glassq.push.deferred:handle"),
    url=UrlPattern("/_ah/queue/deferred"),
)
TASKS = Route(source=TASK_SOURCE, handler=HandlerName("glassq.push.dispatch:post"))
Result = str | dict[str, Any] | None
Handler = Callable[["Delivery", "Context"], Result]


@dataclass(slots=True)
class Context:
    """What a handler may use beside its delivery. One lives as long as the process that runs handlers."""

    settings: Settings
    #: when the soft deadline of the attempt that runs now falls, on time.monotonic()
    deadline: float = float("inf")
    _made: dict[Callable[[Settings], Any], Any] = field(default_factory=dict)

    def remaining(self) -> float:
        """Seconds until this attempt's soft deadline; 0 when it has passed."""
        return max(0.0, self.deadline - time.monotonic())

    def keep(self, make: Callable[[Settings], T], made: T) -> None:
        """From now on `once(make)` returns `made`, which was made elsewhere."""
        self._made[make] = made

    def once(self, make: Callable[[Settings], T]) -> T:
        """`make(settings)`, made at the first call in this process and kept: clients, caches, connections."""
        if make not in self._made:
            self._made[make] = make(self.settings)
        return cast("T", self._made[make])


def needs(make: Callable[[Settings], Any]) -> Callable[[Handler], Handler]:
    """For a handler that starts with `context.once(make)`: a pool makes it before it takes the first delivery."""

    def mark(handler: Handler) -> Handler:
        handler.needed = make  # type: ignore[attr-defined]
        return handler

    return mark


def retried_by(rule: Callable[[Delivery, Context], Any]) -> Callable[[Handler], Handler]:
    """For a handler whose deliveries have a RetryRule of their own (see worker/outcome.py) in place of the pool's."""

    def mark(handler: Handler) -> Handler:
        handler.rule = rule  # type: ignore[attr-defined]
        return handler

    return mark


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a route leads. `tube` is the one that the delivery must come from; "": any."""

    route: Route
    handler: Handler
    tube: str = ""

    def work(self, delivery: Delivery, context: Context) -> Result:
        """What the handler returns for the delivery. Raises what it raises, and Bury where its work is not over."""
        return finished(self.handler(_copy(delivery), context))

    def rule(self, delivery: Delivery, context: Context) -> Any:
        """The RetryRule that the handler brings for this delivery; None where it has none."""
        rule = getattr(self.handler, "rule", None)
        return None if rule is None else rule(_copy(delivery), context)


def _copy(delivery: Delivery) -> Delivery:
    """The handler's own: what it changes in labels or details is in no later attempt."""
    # by JSON, which it came from: copy.deepcopy takes no deep nesting
    details = (msgspec.json.decode(msgspec.json.encode(each.detail)) for each in delivery.evidence)
    pairs = zip(delivery.evidence, details, strict=True)
    evidence = tuple(msgspec.structs.replace(each, detail=detail) for each, detail in pairs)
    return msgspec.structs.replace(delivery, labels=dict(delivery.labels), evidence=evidence)


class Routes:
    """The routes of the settings with their handlers loaded; the first that matches wins."""

    def __init__(self, destinations: list[Destination]) -> None:
        self._destinations = destinations

    def prepare(self, context: Context) -> None:
        """Makes once what handlers say they need (see `needs`), before the first delivery is reserved.

        Raises SettingsError, so that a secret that cannot be read stops the start and costs no attempt. What fails for
        another reason may be well when a delivery comes: it is tried again then.
        """
        for destination in self._destinations:
            _prepare(destination.handler, context)

    def match(self, delivery: Delivery) -> Destination | None:
        """Where this delivery goes, or None where no route matches."""
        return next(
            (each for each in self._destinations if each.route.wants(delivery.source, delivery.labels)),
            None,
        )


def all_routes(settings: Settings) -> tuple[Route, ...]:
    """All routes in their order: those of the settings, then those that a [push] section brings."""
    if settings.push is None:
        return settings.routes
    return (*settings.routes, *((DEFERRED,) if settings.push.deferred else ()), TASKS)


def load(
    settings: Settings,
    endpoint: Callable[[Route], Destination],
    tasks: Callable[[Route, Handler], Destination] = Destination,
) -> Routes:
    """Routes with their handlers imported; modules are found on sys.path and beside the settings file.

    `endpoint` makes what a route leads to whose handler is a URL, `tasks` what a route of tasks leads to whose handler
    is a function. Raises SettingsError where there is no route, or a handler cannot be imported or called.
    """
    if problem := without_routes(settings):
        raise SettingsError(problem)
    return Routes([make() for _, make in _makers(settings, endpoint, tasks)])


def without_routes(settings: Settings) -> str:
    """Why a pool with these settings has nothing to work; "" where it has a route."""
    if settings.routes or settings.push is not None:
        return ""
    return f'{settings.file}: no [[routes]]: expected at least one, with source and handler = "module:function"'


def examine(
    settings: Settings,
    endpoint: Callable[[Route], Destination],
    context: Context,
    tasks: Callable[[Route, Handler], Destination] = Destination,
) -> Iterator[tuple[Route, str]]:
    """Each route, and why a pool would not start with it ("": it would): what `load` and `prepare` say of it alone."""
    for route, make in _makers(settings, endpoint, tasks):
        try:
            _prepare(make().handler, context)
        except SettingsError as error:
            yield route, str(error)
        else:
            yield route, ""


def _makers(
    settings: Settings, endpoint: Callable[[Route], Destination], tasks: Callable[[Route, Handler], Destination]
) -> Iterator[tuple[Route, Callable[[], Destination]]]:
    """Each route, that of tasks last, and what loads its handler."""
    home = str(Path(settings.file).resolve().parent)
    if settings.file and home not in sys.path:
        sys.path.append(home)
    for index, route in enumerate(all_routes(settings)):
        if route.handler.is_url:
            yield route, functools.partial(endpoint, route)
        else:
            made = tasks if route.source == TASK_SOURCE else Destination
            yield route, functools.partial(_destination, made, route, index, settings.file)


def _destination(made: Callable[[Route, Handler], Destination], route: Route, index: int, file: str) -> Destination:
    return made(route, _load(route.handler, index, file))


def _prepare(handler: Handler, context: Context) -> None:
    """Makes what the handler needs, as `Routes.prepare` promises."""
    make = getattr(handler, "needed", None)
    if make is None:
        return
    try:
        context.once(make)
    except SettingsError:
        raise
    except Exception as error:
        why = error if isinstance(error, GlassqError) else words_of(error, MAX_MESSAGE)
        log.warning("not ready for deliveries yet %s", fields(why=why))


def _load(name: str, index: int, file: str) -> Handler:
    where = f'{file}: [routes.{index}] handler = "{name}"'
    module_name, _, function_name = name.partition(":")
    try:
        handler = getattr(importlib.import_module(module_name), function_name)
    except (Exception, SystemExit) as error:
        raise SettingsError(f"{where}: cannot be imported: {words_of(error, MAX_MESSAGE)}") from error
    return as_handler(handler, where)
