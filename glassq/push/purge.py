"""Purges a push queue: deletes all its waiting and buried tasks for good.

It looks at nothing but the first job of each kind, again and again. So it needs no search, and goes on while the queue
takes no jobs.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Self

from glassq.delivery import decode
from glassq.errors import DamagedDelivery, JobNotFound
from glassq.push.request import SOURCE

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence

    from glassq.delivery import Delivery
    from glassq.push.names import Names
    from glassq.queues import Inspector
    from glassq.queues.base import Job, TubeCounts, WaitingState

# What is taken, in an order in which little escapes it: what was delayed may be ready meanwhile, and what was worked
# may lie buried.
PURGED: tuple[WaitingState, ...] = ("delayed", "ready", "buried")
# Names per transaction, each of which waits for the disk. If the process dies before one, its names stay taken, like
# those of living tasks.
_BATCH = 100


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

    @classmethod
    def of(cls, *tubes: TubeCounts) -> Self:
        """The counts before a purge of these tubes."""
        states = ("ready", "delayed", "buried")
        waiting = {state: sum(getattr(tube, state) for tube in tubes) for state in states}
        return cls(waiting, running=sum(tube.reserved for tube in tubes))


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
    inspector: Inspector,
    tubes: Sequence[str],
    names: Names,
    done: Purged,
    deleted: Callable[[Delivery], None] = lambda _: None,
) -> Generator[None, None, None]:
    """Deletes the jobs in the tubes of a push queue, counts them in `done`, and yields before each one.

    Deletes at most as many as were `waiting` at the beginning, because others may keep adding tasks. The tasks' names
    become tombstones. Calls `deleted` with each delivery that had an attempt. Raises QueueError.
    """
    finished = TombstoneBatch(names)
    try:
        with finished:
            for job in _first_jobs(inspector, tubes, sum(done.waiting.values())):
                yield
                delivery = readable(job)
                try:
                    inspector.delete(job)
                except JobNotFound:
                    done.taken += 1
                    continue
                done.deleted += 1
                if delivery is None:
                    done.damaged += 1
                    continue
                finished.add(delivery.labels.get("queue", ""), delivery)
                if delivery.attempt > 1 or delivery.buried:
                    deleted(delivery)
    finally:
        # Also where whoever goes through the steps ends early.
        done.untold = finished.unrecorded


def _first_jobs(inspector: Inspector, tubes: Sequence[str], most: int) -> Iterator[Job]:
    """The first job again and again, whoever removes it; `most` in all."""
    for state, tube in product(PURGED, tubes):
        while most and (job := inspector.first(state, tube)) is not None:
            most -= 1
            yield job


def readable(job: Job) -> Delivery | None:
    """The delivery that the job holds; None where it is damaged."""
    try:
        return decode(job.body)
    except DamagedDelivery:
        return None
