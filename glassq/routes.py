"""Which handler a delivery goes to, and what a handler gets.

A handler is a function of a delivery, or of a delivery and a Context:

    def handle(delivery: Delivery) -> str | dict | None: ...
    def handle(delivery: Delivery, context: Context) -> str | dict | None: ...

What it returns (a string or a small dict) is written to the ledger as the result.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import logging
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from glassq.errors import GlassqError, SettingsError
from glassq.log import kv
from glassq.settings import TASK_SOURCE, Route
from glassq.values import HandlerName, UrlPattern

if TYPE_CHECKING:
    from glassq.delivery import Delivery
    from glassq.settings import Settings

log = logging.getLogger("glassq.worker")

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

    def rule(self, delivery: Delivery, context: Context) -> Any:
        """The RetryRule that the handler brings for this delivery; None where it has none."""
        rule = getattr(self.handler, "rule", None)
        return None if rule is None else rule(delivery, context)


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
            make = getattr(destination.handler, "needed", None)
            if make is None:
                continue
            try:
                context.once(make)
            except SettingsError:
                raise
            except Exception as error:
                why = error if isinstance(error, GlassqError) else f"{type(error).__name__}: {error}"
                log.warning("not ready for deliveries yet %s", kv(why=why))

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
    if not settings.routes and settings.push is None:
        raise SettingsError(
            f'{settings.file}: no [[routes]]: expected at least one, with source and handler = "module:f"'
        )
    home = str(Path(settings.file).resolve().parent)
    if settings.file and home not in sys.path:
        sys.path.append(home)
    destinations = []
    for index, route in enumerate(all_routes(settings)):
        if route.handler.is_url:
            destinations.append(endpoint(route))
        else:
            made = tasks if route.source == TASK_SOURCE else Destination
            destinations.append(made(route, _load(route.handler, index, settings.file)))
    return Routes(destinations)


def _load(name: str, index: int, file: str) -> Handler:
    where = f'{file}: [routes.{index}] handler = "{name}"'
    module_name, _, function_name = name.partition(":")
    try:
        handler = getattr(importlib.import_module(module_name), function_name)
    except (Exception, SystemExit) as error:
        raise SettingsError(f"{where}: cannot be imported: {type(error).__name__}: {error}") from error
    return as_handler(handler, where)


def as_handler(function: Callable[..., Result], where: str) -> Handler:
    """The function as a handler of two arguments. Raises SettingsError, which begins with `where`, for what is none."""
    if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
        # called, it would do nothing, and the delivery would count as done
        raise SettingsError(f"{where}: expected a plain function, without async and yield")
    if _takes(function, "delivery", "context"):
        return function
    if _takes(function, "delivery"):
        return _of_one(function)
    raise SettingsError(f"{where}: expected a function of (delivery) or (delivery, context)")


def _of_one(handler: Callable[[Delivery], Result]) -> Handler:
    # wraps: what `needs` and `retried_by` have marked stays marked
    @functools.wraps(handler)
    def work(delivery: Delivery, _context: Context) -> Result:
        return handler(delivery)

    return work


def _takes(handler: Any, *arguments: object) -> bool:
    try:
        inspect.signature(handler).bind(*arguments)
    except (TypeError, ValueError):
        return False
    return True
