"""The tubes of routes with `concurrency`: what an operator should know of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from glassq.operations.hints import Hint
from glassq.settings import route_prefix, route_tube

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from glassq.operations import Operations
    from glassq.queues.base import TubeCounts


def hints(operations: Operations, tubes: Sequence[TubeCounts]) -> Iterator[Hint]:
    """Says of each tube of a route that is gone, or has no `concurrency` any more, what holds for its jobs."""
    settings, prefix = operations.settings, route_prefix(operations.tube)
    limited = {route_tube(settings, route) for route in settings.routes}
    names = {route.name for route in settings.routes}
    for tube in tubes:
        name = tube.name.removeprefix(prefix)
        # parking tubes have a dot behind it
        if not tube.jobs or tube.name in limited or not tube.name.startswith(prefix) or "." in name:
            continue
        lacks = f"route {name} has no concurrency" if name in names else f"route {name} is not in [[routes]]"
        yield Hint(
            f"{lacks} any more in {settings.file}, and its tube holds {tube.jobs} jobs: "
            "they go to the handler that takes them now, without a limit, until it is empty"
        )
