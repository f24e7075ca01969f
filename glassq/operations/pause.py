"""Tubes that nobody reserves from for a while."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from glassq.errors import InvalidRequest, Unsupported
from glassq.operations.filters import duration
from glassq.operations.find import checked_tube, is_ours, our_tubes
from glassq.push.request import tube_of
from glassq.settings import queue_tube, route_prefix

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from glassq.operations import Operations
    from glassq.queues.base import Inspector


def require_pause(queue: Inspector) -> None:
    """Raises Unsupported where the engine cannot pause a tube."""
    if not queue.capabilities.pause:
        raise Unsupported(f"{queue.engine} cannot pause a tube; `systemctl stop glassq-worker` stops all work")


def chosen(operations: Operations, queue: Inspector, names: Sequence[str]) -> list[str]:
    """The tubes named, each once; all of ours where none is. Raises InvalidRequest, and then none is touched."""
    main = operations.tube
    for name in names:
        if not is_ours(main, checked_tube("TUBE", name)):
            there = our_tubes(operations, queue)
            tubes = (queue_tube(operations.settings, name), f"{route_prefix(main)}{name}", tube_of(main, name))
            hint = next((f"; did you mean {tube}?" for tube in tubes if tube in there), "")
            raise InvalidRequest(f"tube {name} is not ours: there are {', '.join(there)}{hint}")
    return list(dict.fromkeys(names)) or our_tubes(operations, queue)


@dataclass(frozen=True, slots=True)
class PausePlan:
    """Which `tubes` to pause, for so many `seconds`; those that are paused for longer, and stay so, are `kept`."""

    tubes: list[str]
    seconds: float
    kept: list[str]

    @property
    def note(self) -> str:
        """What is kept, in words; "" where nothing is."""
        return f"for longer than that are paused, and stay so: {', '.join(self.kept)}" if self.kept else ""


def plan(operations: Operations, queue: Inspector, names: Sequence[str], period: str | None, option: str) -> PausePlan:
    """A pause of the tubes named, else of all of ours, for the period that `option` has; None: until they are resumed.

    Raises InvalidRequest, and then none is touched.
    """
    longest = queue.capabilities.max_delay
    # in whole seconds, rounded up: less than one is no pause
    seconds = longest if period is None else math.ceil(duration(option, period))
    if not seconds:
        raise InvalidRequest(f"{option} {period} pauses nothing: `glassq resume` lets tubes go on")
    if seconds > longest:
        raise InvalidRequest(f"{option} {period}: expected at most {longest // 86_400:g}d")
    tubes = chosen(operations, queue, names)
    # a pause of everything shortens none that somebody wants for one of them
    kept = [] if names else [counts.name for counts in queue.counts(tubes) if counts.paused_for > seconds]
    return PausePlan([name for name in tubes if name not in kept], seconds, kept)


def pause(queue: Inspector, tubes: Mapping[str, str], seconds: float) -> dict[str, bool]:
    """Pauses tubes, each under the name it is told by; says of which there was something to pause."""
    require_pause(queue)
    return {name: queue.pause(tube, seconds) for name, tube in tubes.items()}


def resume(queue: Inspector, tubes: Mapping[str, str]) -> dict[str, bool]:
    """Ends their pauses; says which were paused."""
    require_pause(queue)
    paused = {counts.name for counts in queue.counts(list(tubes.values())) if counts.paused_for > 0}
    return {name: tube in paused and queue.pause(tube, 0) for name, tube in tubes.items()}
