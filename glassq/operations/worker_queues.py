"""The queues of [worker.queues] as they are now: their shares, the children kept for them, and what waits in them."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from glassq.errors import InvalidRequest
from glassq.operations import push_queues
from glassq.operations.hints import Hint
from glassq.operations.parked import waiting
from glassq.settings import MAIN_QUEUE, WorkerQueue, parking_tube, queue_prefix, queue_tube, source_tube

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from glassq.operations import Operations
    from glassq.operations.progress import Progress
    from glassq.queues.base import Inspector, TubeCounts


@dataclass(frozen=True, slots=True)
class WorkerQueueRow:
    """One queue, its settings (None: it is not there any more), the `sources` that use it, and its tube as it is now.

    `oldest` is the age of the job that is reserved next, in seconds. `parked` is how many wait in tubes of their own,
    for their key's turn or for a route that has paused itself.
    """

    name: str
    settings: WorkerQueue | None
    sources: tuple[str, ...]
    tube: TubeCounts
    oldest: int | None
    parked: int

    def document(self) -> dict[str, Any]:
        """The row for JSON."""
        return {
            "queue": self.name,
            "tube": self.tube.name,
            "in_settings": self.settings is not None,
            "weight": self.settings.weight if self.settings else None,
            "children": self.settings.children if self.settings else None,
            "sources": list(self.sources),
            "in_flight": self.tube.reserved,
            "backlog": self.tube.ready,
            "oldest": self.oldest,
            "parked": self.parked,
            "delayed": self.tube.delayed,
            "buried": self.tube.buried,
            "paused_for": self.tube.paused_for,
        }


def snapshot(operations: Operations, queue: Inspector) -> tuple[WorkerQueueRow, ...]:
    """The queues of the settings, the main one first, and those that are gone but hold jobs; none if there are none."""
    settings = operations.settings
    names = _names(operations, queue)
    if names == [MAIN_QUEUE] and not settings.worker.queues:
        return ()
    tubes = {name: queue_tube(settings, name) for name in names}
    used = {name: source_tube(settings, name) for name in settings.sources}
    parked = waiting(operations.tube, queue.counts())
    known = {MAIN_QUEUE: WorkerQueue(), **settings.worker.queues}
    return tuple(
        WorkerQueueRow(
            name=name,
            settings=known.get(name),
            sources=tuple(source for source, tube in used.items() if tube == counts.name),
            tube=counts,
            oldest=_oldest(queue, counts),
            parked=parked.get(counts.name, 0),
        )
        for name, counts in zip(names, queue.counts(list(tubes.values())), strict=True)
    )


def chosen(operations: Operations, queue: Inspector, progress: Progress, names: Sequence[str]) -> dict[str, str]:
    """The tubes of the queues named, by name: of push queues, or of [worker.queues].

    Raises InvalidRequest where there is no such queue, and Conflict where there are no queues at all.
    """
    own = {name: queue_tube(operations.settings, name) for name in _names(operations, queue)}
    if operations.settings.push is None and len(own) > 1:
        known = own
    else:
        plan = push_queues.planned_or_warn(operations, progress)
        pushed = push_queues.tubes_of(operations, queue, plan)
        known = {**own, **{name: tube.name for name, tube in pushed.items()}}
        if len(own) == 1 and MAIN_QUEUE not in pushed:
            del known[MAIN_QUEUE]
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"there are: {', '.join(known) or 'none'}"
            raise InvalidRequest(f"there is no queue {name}; {hint}")
    return {name: known[name] for name in names}


def gone(operations: Operations, tube: str) -> str:
    """The name of the queue whose tube it is, if the settings do not have that queue any more; else ""."""
    prefix = queue_prefix(operations.tube)
    name = tube.removeprefix(prefix)
    if not tube.startswith(prefix) or parking_tube(operations.tube, tube) is not None:
        return ""
    return name if name not in operations.settings.worker.queues else ""


def hints(operations: Operations, tubes: Sequence[TubeCounts]) -> Iterator[Hint]:
    """What an operator should know of queues that are gone and still hold jobs."""
    for tube in tubes:
        if tube.jobs and (name := gone(operations, tube.name)):
            yield Hint(
                f"queue {name} is not in [worker.queues] of {operations.settings.file}, and holds {tube.jobs} jobs: "
                f"they are worked with the share of {MAIN_QUEUE} until it is empty"
            )


def _names(operations: Operations, queue: Inspector) -> list[str]:
    prefix = queue_prefix(operations.tube)
    there = (counts.name for counts in queue.counts() if counts.name.startswith(prefix) and counts.jobs)
    found = sorted(name.removeprefix(prefix) for name in there if parking_tube(operations.tube, name) is None)
    return list(dict.fromkeys([MAIN_QUEUE, *operations.settings.worker.queues, *found]))


def _oldest(queue: Inspector, tube: TubeCounts) -> int | None:
    found = queue.first("ready", tube.name) if tube.ready and queue.capabilities.oldest else None
    return round(found.age) if found else None
