"""What is parked: the tubes in which deliveries wait for their key's turn, or for a route that has paused itself."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from glassq.in_effect import runtime_directories
from glassq.operations.hints import Hint
from glassq.operations.words import span
from glassq.settings import parking_tube
from glassq.worker.gates.report import paused_routes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from glassq.operations import Operations
    from glassq.queues.base import TubeCounts
    from glassq.worker.gates.report import PausedRoute


def is_parking(main: str, tube: str) -> bool:
    """Whether deliveries are parked in this tube; `main` is [queue] tube."""
    return parking_tube(main, tube) is not None


def waiting(main: str, tubes: Iterable[TubeCounts]) -> dict[str, int]:
    """How many deliveries are parked, by the tubes that they came from."""
    found = defaultdict[str, int](int)
    for tube in tubes:
        if (parking := parking_tube(main, tube.name)) is not None:
            found[parking.origin] += tube.ready
    return found


def summed(main: str, tubes: Iterable[TubeCounts]) -> tuple[TubeCounts, ...]:
    """The counts, with one row for all tubes of a route in which its keys wait: there may be thousands of them."""
    single: list[TubeCounts] = []
    keys: dict[str, list[TubeCounts]] = defaultdict(list)
    for tube in tubes:
        found = parking_tube(main, tube.name)
        if found is not None and found.key:
            keys[f"{found.origin}.key.{found.route}"].append(tube)
        else:
            single.append(tube)
    return (*single, *(_sum(name, parts) for name, parts in sorted(keys.items())))


def _sum(name: str, parts: Sequence[TubeCounts]) -> TubeCounts:
    first, *others = parts
    counts = {field: getattr(first, field) for field in ("ready", "reserved", "delayed", "buried", "waiting")}
    for part in others:
        counts = {field: number + getattr(part, field) for field, number in counts.items()}
    return msgspec.structs.replace(first, name=f"{name}.* ({len(parts)} keys)", **counts)


def paused(operations: Operations) -> list[PausedRoute]:
    """The routes that pools with these settings, on this machine, have paused."""
    places = runtime_directories("glassq-worker", Path(operations.settings.file))
    return [route for place in places for route in paused_routes(place)]


def words_of(operations: Operations, route: PausedRoute) -> str:
    """Since when a route is paused, why, and when it tries again."""
    now = operations.clock().timestamp()
    since, next_probe = span(max(0.0, now - route.since)), span(max(0.0, route.next_probe - now))
    return (
        f"route {route.route} has paused itself {since} ago, after {route.failures} failures in a row "
        f"({route.why}); it tries one delivery in {next_probe}"
    )


def hints(operations: Operations, tubes: Sequence[TubeCounts]) -> Iterator[Hint]:
    """Says which routes have paused themselves, and why; and what is parked for routes that are gone."""
    for route in paused(operations):
        yield Hint(words_of(operations, route))
    names = {route.name for route in operations.settings.routes}
    gone = defaultdict[str, int](int)
    for tube in tubes:
        found = parking_tube(operations.tube, tube.name)
        if found is not None and tube.ready and found.route not in names:
            gone[found.route] += tube.ready
    for name, many in gone.items():
        yield Hint(f"{many} deliveries are parked for route {name}, which is gone: the route that wants them gets them")
