"""Purges a push queue: deletes all its waiting and buried tasks for good.

It looks at nothing but the first job of each kind, again and again: so it needs no search, and goes on while the queue
takes no jobs.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, Self, TypeVar

from glassq.delivery import decode
from glassq.errors import DamagedDelivery, JobNotFound
from glassq.push.request import SOURCE

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from glassq.delivery import Delivery
    from glassq.push.names import Names
    from glassq.queues.base import WaitingState

# What is taken, in an order in which little escapes it: what was delayed may be ready meanwhile, and what was worked
# may lie buried.
PURGED: tuple[WaitingState, ...] = ("delayed", "ready", "buried")
# Names per transaction, each of which waits for the disk. If the process dies before one, its names stay taken, like
# those of living tasks.
_BATCH = 100


class _HasBody(Protocol):
    """A job, as far as a purge looks at it."""

    @property
    def body(self) -> bytes: ...


J = TypeVar("J", bound=_HasBody)


@dataclass(slots=True)
class Purged:
    """The result of a purge. At its start there were `waiting` tasks, by state, and `running` ones.

    Of the `deleted` tasks `damaged` could not be read, and `untold` (so called in the command's JSON) have names that
    stay taken like those of living tasks, because the names' database could not be written. `taken` were reserved, or
    deleted by others, meanwhile.
    """

    waiting: dict[str, int]
    deleted: int = 0
    damaged: int = 0
    taken: int = 0
    untold: int = 0
    running: int = 0


class TombstoneBatch:
    """Marks the names of deleted tasks as finished, _BATCH at a time and the rest at the end of the `with` block."""

    def __init__(self, names: Names) -> None:
        self._names = names
        #: how many names could not be recorded
        self.unrecorded = 0
        self._waiting: defaultdict[str, list[str]] = defaultdict(list)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for queue in list(self._waiting):
            self._flush(queue)

    def add(self, queue: str, delivery: Delivery) -> None:
        """The delivery was deleted from this queue."""
        name = delivery.labels.get("task", "") if delivery.source == SOURCE else ""
        # a task without a name of its own is called by its delivery's id, which is unique anyway
        if name not in ("", delivery.id):
            self._waiting[queue].append(name)
            if len(self._waiting[queue]) >= _BATCH:
                self._flush(queue)

    def _flush(self, queue: str) -> None:
        names = self._waiting.pop(queue)
        if not self._names.mark_finished(queue, *names):
            self.unrecorded += len(names)


def purge(
    first: Callable[[WaitingState], J | None],
    delete: Callable[[J], object],
    names: Names,
    done: Purged,
    deleted: Callable[[Delivery], None] = lambda _: None,
) -> Generator[None, None, None]:
    """Deletes the jobs of a push queue, counts them in `done`, and yields before each one.

    `first` gives the queue's first job in a state, `delete` deletes it; it raises JobNotFound where somebody took it.
    Deletes at most as many as were `waiting` at the beginning, because others may keep adding tasks. The tasks' names
    become tombstones. Calls `deleted` with each delivery that had an attempt. Raises QueueError.
    """
    finished = TombstoneBatch(names)
    left = sum(done.waiting.values())
    try:
        with finished:
            for state in PURGED:
                while left and (job := first(state)) is not None:
                    left -= 1
                    yield
                    if (delivery := _delete(job, delete, done)) is not None:
                        finished.add(delivery.labels.get("queue", ""), delivery)
                        if delivery.attempt > 1 or delivery.buried:
                            deleted(delivery)
    finally:
        done.untold = finished.unrecorded


def _delete(job: J, delete: Callable[[J], object], done: Purged) -> Delivery | None:
    """The delivery that was deleted; None where there was none to read, or somebody took it."""
    try:
        delete(job)
    except JobNotFound:
        done.taken += 1
        return None
    done.deleted += 1
    try:
        return decode(job.body)
    except DamagedDelivery:
        done.damaged += 1
        return None
