"""Tubes that nobody reserves from for a while."""

from __future__ import annotations

from typing import TYPE_CHECKING

from glassq.errors import InvalidRequest, Unsupported
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


def paused_for_longer(queue: Inspector, tubes: Sequence[str], seconds: float) -> list[str]:
    """Those of the tubes whose pause lasts for more than so many seconds from now on."""
    return [counts.name for counts in queue.counts(tubes) if counts.paused_for > seconds]


def pause(queue: Inspector, tubes: Mapping[str, str], seconds: float) -> dict[str, bool]:
    """Pauses tubes, each under the name it is told by; says of which there was something to pause."""
    require_pause(queue)
    return {name: queue.pause(tube, seconds) for name, tube in tubes.items()}


def resume(queue: Inspector, tubes: Mapping[str, str]) -> dict[str, bool]:
    """Ends their pauses; says which were paused."""
    require_pause(queue)
    paused = {counts.name for counts in queue.counts(list(tubes.values())) if counts.paused_for > 0}
    return {name: tube in paused and queue.pause(tube, 0) for name, tube in tubes.items()}
