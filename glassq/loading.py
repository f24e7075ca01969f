"""Loads the handlers of routes: functions by their names, all others by their makers (`Makers`)."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from glassq.errors import SettingsError
from glassq.excerpts import MAX_MESSAGE, words_of
from glassq.handler import as_handler, is_async
from glassq.log import fields, logger
from glassq.named import import_named
from glassq.policy import deadlines_of, policy_of
from glassq.routes import Destination, Routes, all_routes, marks_of
from glassq.settings import TASK_SOURCE, find_modules_beside, options_of, route_tube

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from glassq.routes import Context, Handler
    from glassq.settings import Route, Settings
    from glassq.values import Step

log = logger("glassq.worker")


class Part(NamedTuple):
    """A step, its handler, and the settings that this handler has for itself."""

    step: Step
    handler: Handler
    options: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Makers:
    """Who makes handlers that are no functions, and destinations with rules of their own.

    `endpoint` makes the destination of a route whose handler is a URL, `program` the handler of a route that is a
    program (it raises ValueError, with what is wrong), `tasks` the destination of a route of tasks with any other
    handler than a URL, `steps` one handler of several. A route that still has its `steps` asks `endpoint` and `program`
    for a handler whose result is given to the next step: all of it.
    """

    endpoint: Callable[[Route], Destination]
    program: Callable[[Route], Handler]
    steps: Callable[[Sequence[Part]], Handler]
    tasks: Callable[[Route, Handler], Destination] = Destination


def load(settings: Settings, makers: Makers, loaded: Callable[[str], None] = lambda handler: None) -> Routes:
    """Imports the handlers of all routes. Modules are found on sys.path and beside the settings file.

    `loaded` is called with the name of each handler once it is loaded. Raises SettingsError if there is no route, or if
    a handler cannot be imported or called.
    """
    if problem := without_routes(settings):
        raise SettingsError(problem)
    destinations = []
    for route, make in _loaders(settings, makers):
        destination = make()
        _preload(destination, settings)
        destinations.append(destination)
        for name in route.handlers:
            loaded(name)
    return Routes(destinations)


def without_routes(settings: Settings) -> str:
    """Why a pool with these settings has nothing to do; "" if it has a route."""
    if settings.routes or settings.push is not None:
        return ""
    return f'{settings.file}: no [[routes]]: expected at least one, with source and handler = "module:function"'


def examine(settings: Settings, makers: Makers, context: Context) -> Iterator[tuple[Route, str]]:
    """Tries each route as `load` and `Routes.prepare` do. Yields it with why a pool would not start ("": it would)."""
    for route, make in _loaders(settings, makers):
        try:
            make().prepare(context)
        except SettingsError as error:
            yield route, str(error)
        else:
            yield route, ""


def _loaders(settings: Settings, makers: Makers) -> Iterator[tuple[Route, Callable[[], Destination]]]:
    """Each route, those of tasks last, and a function that loads its handler."""
    find_modules_beside(settings)
    for index, route in enumerate(all_routes(settings)):
        where = settings.place("routes", index, "handler" if route.steps is None else "steps")
        yield (
            route,
            functools.partial(
                _limited, functools.partial(_destination, settings, route, makers, where), route, settings
            ),
        )


def _destination(settings: Settings, route: Route, makers: Makers, where: str) -> Destination:
    if route.handler.is_url:
        return makers.endpoint(route)
    made = makers.tasks if route.source == TASK_SOURCE else Destination
    if route.steps is None:
        handler, in_lanes = _handler(route, makers, where)
        return replace(made(route, handler), in_lanes=in_lanes)
    # its rules as a task are those of all steps together
    alone, last = msgspec.structs.replace(route, source=""), route.steps[-1]
    parts, in_lanes = [], True
    for step in route.steps:
        one = msgspec.structs.replace(alone, handler=step, steps=None if step is last else route.steps)
        handler, can = _handler(one, makers, where)
        parts.append(Part(step, handler, options_of(settings, route, step)))
        in_lanes = in_lanes and can
    handlers = tuple(part.handler for part in parts)
    return replace(made(route, makers.steps(parts)), parts=handlers, in_lanes=in_lanes)


def _handler(route: Route, makers: Makers, where: str) -> tuple[Handler, bool]:
    """The handler of a route, and whether it can run in a lane."""
    if route.handler.is_url:
        found = makers.endpoint(route)
        return found.handler, found.in_lanes
    where = f'{where} = "{route.handler}"'
    if route.handler.module:
        handler = _load(route.handler, where)
        return handler, is_async(handler)
    try:
        return makers.program(route), True
    except ValueError as error:
        raise SettingsError(f"{where}: {error}") from None


def _limited(make: Callable[[], Destination], route: Route, settings: Settings) -> Destination:
    """The destination with the limits of its route, and the options of its handler."""
    found = make()
    own = route_tube(settings, route)
    return replace(
        found,
        tube=own or found.tube,
        alone=str(settings.queue.tube) if own and found.in_lanes and (route.concurrency or 1) > 1 else "",
        policy=policy_of(settings, route),
        deadlines=deadlines_of(settings, route),
        options=options_of(settings, route, route.handler),
    )


def _preload(destination: Destination, settings: Settings) -> None:
    """Imports what the resources of its handlers will need."""
    for handler in destination.handlers:
        preload = marks_of(handler).preload
        if preload is None:
            continue
        try:
            preload(settings)
        except SettingsError:
            raise
        except (Exception, SystemExit) as error:
            # making the resource will fail the same way, and say so where somebody sees it
            log.debug("not preloaded %s", fields(why=words_of(error, MAX_MESSAGE)))


def _load(name: str, where: str) -> Handler:
    try:
        handler = import_named(name)
    except ValueError as error:
        raise SettingsError(f"{where}: {error}") from error
    return as_handler(handler, where)
