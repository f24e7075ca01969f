"""Destinations of routes whose handler is a URL, and of routes of tasks."""

# dispatch is imported where a route needs it: it brings an HTTP client, which other pools have no use for.

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from glassq.errors import SettingsError
from glassq.push.request import DEFAULT_QUEUE, SOURCE, tube_of
from glassq.routes import Destination, mark
from glassq.settings import route_secret_key, route_tube
from glassq.standard_webhooks import shared_key

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from glassq.routes import Handler
    from glassq.settings import Route, Settings


def endpoints(settings: Settings, known: Collection[str]) -> Callable[[Route], Destination]:
    """A function that makes the destination of a route: a request to its URL, from the tube and limits of its queue.

    With `concurrency` the route is in no queue: it has its own tube and limits.
    `known` are the queues of queue.yaml. The function raises SettingsError if the route names another queue.
    """
    return partial(_endpoint, settings, known)


def task_handlers(settings: Settings, known: Collection[str]) -> Callable[[Route, Handler], Destination]:
    """A function that makes the destination of a route of tasks: its handler, under the rules of each task's queue.

    `known` are the queues of queue.yaml. The function raises SettingsError if the route names another queue.
    """
    return partial(_task_handler, settings, known)


def _endpoint(settings: Settings, known: Collection[str], route: Route) -> Destination:
    from glassq.push import dispatch

    keys, whole = _keys(settings, route), route.steps is not None
    if route_tube(settings, route):
        # it has limits of its own, and is in no queue
        handler = mark(dispatch.forward(route.handler, route.name, keys, whole=whole), retry_policy=None)
        return Destination(route, handler, in_lanes=True)
    handler = dispatch.forward(route.handler, route.queue or DEFAULT_QUEUE, keys, whole=whole)
    if route.source == SOURCE:
        return _task_handler(settings, known, route, handler)
    queue = _checked(settings, known, route.queue or DEFAULT_QUEUE)
    return Destination(route, handler, tube_of(settings.queue.tube, queue))


def _keys(settings: Settings, route: Route) -> list[bytes]:
    """The keys that sign the route's requests. Raises SettingsError for a secret that writes none."""
    if route.secret_file is None:
        return []
    key = route_secret_key(settings, route)
    keys = []
    for number, secret in enumerate(settings.secret(key), 1):
        try:
            keys.append(shared_key(secret))
        except ValueError as error:
            raise settings.refused(key, f"has no key in secret {number}: {error}") from None
    return keys


def _task_handler(settings: Settings, known: Collection[str], route: Route, handler: Handler) -> Destination:
    if settings.push is None:
        # without [push] there are no queues, so no rules
        return Destination(route, handler)
    from glassq.push import dispatch

    if route.queue is not None:
        _checked(settings, known, route.queue)
    return Destination(route, dispatch.of_tasks(handler))


def _checked(settings: Settings, known: Collection[str], queue: str) -> str:
    if queue not in known:
        # nobody would reserve from its tube, and deliveries would wait there for ever
        raise SettingsError(
            f'{settings.file}: [[routes]] queue = "{queue}": expected a queue of queue.yaml: {", ".join(known)}'
        )
    return queue
