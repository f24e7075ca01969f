"""Where routes lead whose handler is a URL."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from glassq.errors import SettingsError
from glassq.push import dispatch
from glassq.push.request import DEFAULT_QUEUE, tube_of
from glassq.routes import Destination

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from glassq.settings import Route, Settings


def endpoints(settings: Settings, known: Collection[str]) -> Callable[[Route], Destination]:
    """Makes what a route leads to: a request to its URL, made from the tube of its queue, whose limits hold for it.

    `known` are the queues of queue.yaml. What is returned raises SettingsError where the route's is not among them.
    """
    return partial(_destination, settings, known)


def _destination(settings: Settings, known: Collection[str], route: Route) -> Destination:
    queue = route.queue or DEFAULT_QUEUE
    if queue not in known:
        # its tube would be nobody's, and its pings lie there for ever
        raise SettingsError(
            f'{settings.file}: [[routes]] queue = "{queue}": expected a queue of queue.yaml: {", ".join(known)}'
        )
    return Destination(route, dispatch.forward(route.handler, queue), tube_of(settings.queue.tube, queue))
