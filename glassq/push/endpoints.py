"""Where routes lead whose handler is a URL, and those of tasks."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from glassq.errors import SettingsError
from glassq.push import dispatch
from glassq.push.request import DEFAULT_QUEUE, SOURCE, tube_of
from glassq.routes import Destination

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from glassq.routes import Handler
    from glassq.settings import Route, Settings


def endpoints(settings: Settings, known: Collection[str]) -> Callable[[Route], Destination]:
    """Makes what a route leads to: a request to its URL, made from the tube of its queue, whose limits hold for it.

    `known` are the queues of queue.yaml. What is returned raises SettingsError where the route's is not among them.
    """
    return partial(_endpoint, settings, known)


def task_handlers(settings: Settings, known: Collection[str]) -> Callable[[Route, Handler], Destination]:
    """Makes what a route of tasks leads to: its function, under the rules of each task's own queue.

    `known` are the queues of queue.yaml. What is returned raises SettingsError where the route's is not among them.
    """
    return partial(_task_handler, settings, known)


def _endpoint(settings: Settings, known: Collection[str], route: Route) -> Destination:
    handler = dispatch.forward(route.handler, route.queue or DEFAULT_QUEUE)
    if route.source == SOURCE:
        return _task_handler(settings, known, route, handler)
    queue = _checked(settings, known, route.queue or DEFAULT_QUEUE)
    return Destination(route, handler, tube_of(settings.queue.tube, queue))


def _task_handler(settings: Settings, known: Collection[str], route: Route, handler: Handler) -> Destination:
    if settings.push is None:
        # there are no queues whose rules could hold
        return Destination(route, handler)
    if route.queue is not None:
        _checked(settings, known, route.queue)
    return Destination(route, dispatch.of_tasks(handler))


def _checked(settings: Settings, known: Collection[str], queue: str) -> str:
    if queue not in known:
        # its tube would be nobody's, and its deliveries lie there for ever
        raise SettingsError(
            f'{settings.file}: [[routes]] queue = "{queue}": expected a queue of queue.yaml: {", ".join(known)}'
        )
    return queue
