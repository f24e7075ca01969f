"""Where routes lead whose handler is a URL."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from glassq.errors import SettingsError
from glassq.push import dispatch, queue_yaml
from glassq.push.request import DEFAULT_QUEUE, tube_of
from glassq.routes import Destination

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from glassq.settings import Route, Settings


def endpoints(settings: Settings) -> Callable[[Route], Destination]:
    """Makes what a route leads to: a request to its URL, made from the tube of its queue, whose limits hold for it.

    Raises SettingsError where queue.yaml cannot be used, or does not have the route's queue.
    """
    push = settings.push
    known = queue_yaml.load(push.queue_yaml, push.targets) if push is not None else {}
    return partial(_destination, settings, known)


def _destination(settings: Settings, known: Collection[str], route: Route) -> Destination:
    queue = route.queue or DEFAULT_QUEUE
    if queue not in known:
        # its tube would be nobody's, and its pings lie there for ever
        raise SettingsError(
            f'{settings.file}: [[routes]] queue = "{queue}": expected a queue of queue.yaml: {", ".join(known)}'
        )
    return Destination(route, dispatch.forward(route.handler, queue), tube_of(settings.queue.tube, queue))
