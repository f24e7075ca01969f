"""The tubes of a pool: the main one, and beside it those of queues and of routes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from glassq.settings.route import FirstMatch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from glassq.settings.route import Route
    from glassq.settings.settings import Settings

# The queue of [worker.queues] whose tube is [queue] tube.
MAIN_QUEUE = "default"


def queue_tube(settings: Settings, queue: str) -> str:
    """The tube of a queue of [worker.queues]: that of "default" is [queue] tube."""
    base = str(settings.queue.tube)
    return base if queue in ("", MAIN_QUEUE) else f"{queue_prefix(base)}{queue}"


def queue_prefix(base: str) -> str:
    """How the tubes of queues begin; `base` is [queue] tube."""
    return f"{base}.queue."


def route_tube(settings: Settings, route: Route) -> str:
    """The tube of a route's own, which its `concurrency` limits; "" if it has none.

    With `concurrency_by` it has none: the limit is one of each key.
    """
    if route.concurrency is None or route.concurrency_by is not None or route.queue is not None:
        return ""
    return f"{route_prefix(str(settings.queue.tube))}{route.name}"


def named_tubes(settings: Settings) -> list[str]:
    """The tubes that these settings name, the main one first; those of queue.yaml are not among them."""
    of_queues = (queue_tube(settings, name) for name in settings.worker.queues)
    of_routes = (tube for route in settings.routes if (tube := route_tube(settings, route)))
    return list(dict.fromkeys([str(settings.queue.tube), *of_queues, *of_routes]))


def route_prefix(base: str) -> str:
    """How the tubes of routes begin; `base` is [queue] tube."""
    return f"{base}.route."


def pool_prefixes(base: str) -> tuple[str, ...]:
    """How the tubes begin that a pool works beside `base`, also when the settings have no such queue or route."""
    return queue_prefix(base), route_prefix(base)


def source_tube(settings: Settings, name: str) -> str:
    """The tube of this source's pings, unless their route has one: that of its `queue`, or else [queue] tube."""
    return queue_tube(settings, settings.sources[name].queue if name in settings.sources else "")


def ping_tube(settings: Settings, source: str) -> Callable[[Mapping[str, str]], str]:
    """A function of the labels of a ping of this source: the tube that it is put into.

    That is the tube of its route, if that has one: so the limits of a route hold before its pings are worked.
    """
    usual = source_tube(settings, source)
    tubes = [(route, route_tube(settings, route) or usual) for route in settings.routes if route.source == source]
    if all(tube == usual for _, tube in tubes):
        # most need not look
        return lambda labels: usual
    match = FirstMatch(tubes)
    return lambda labels: match.of(source, labels) or usual
