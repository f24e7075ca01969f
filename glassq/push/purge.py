"""Purging a push queue: all that waits in it, and all that lies buried, is deleted for good.

It looks at nothing but the first job of each kind, again and again: so it needs no search, and goes on while beanstalkd
takes no jobs.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from glassq.delivery import decode
from glassq.errors import DamagedDelivery, JobNotFound
from glassq.push.request import SOURCE

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from glassq.delivery import Delivery
    from glassq.ledger.names import Names
    from glassq.queues import Job, Queue
    from glassq.queues.beanstalk.protocol import TubeStats, Waiting

# What is taken, in an order in which little escapes it: what was delayed may be ready meanwhile, and what was worked
# may lie buried.
PURGED: tuple[Waiting, ...] = ("delayed", "ready", "buried")
# So many names are said to be gone in one transaction, each of which waits for the disk. Should the process die before
# that, they stay taken all the same: as those of tasks that are alive.
_TOGETHER = 100


@dataclass(slots=True)
class Purged:
    """What became of a queue's tasks. `waiting` are those that were there, by state; `running` those that are worked.

    Of the `deleted` ones `damaged` could not be read, and `untold` have names that stay taken as those of living tasks:
    their database could not be written. `taken` were worked, or deleted by others, meanwhile.
    """

    waiting: dict[str, int]
    deleted: int = 0
    damaged: int = 0
    taken: int = 0
    untold: int = 0
    running: int = 0

    @classmethod
    def of(cls, tube: TubeStats) -> Self:
        """What a purge of this tube begins with."""
        return cls({state: getattr(tube, state) for state in ("ready", "delayed", "buried")}, running=tube.reserved)


class Gone:
    """Names of deleted tasks, on their way to the names' database: some at a time, the last at the end of the block."""

    def __init__(self, names: Names) -> None:
        self._names = names
        #: how many could not be said
        self.untold = 0
        self._waiting: defaultdict[str, list[str]] = defaultdict(list)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for queue in list(self._waiting):
            self._say(queue)

    def add(self, queue: str, delivery: Delivery) -> None:
        """The delivery was deleted from this queue."""
        name = delivery.labels.get("task", "") if delivery.source == SOURCE else ""
        # one that its author did not name bears its delivery's id, which nobody can take twice
        if name not in ("", delivery.id):
            self._waiting[queue].append(name)
            if len(self._waiting[queue]) >= _TOGETHER:
                self._say(queue)

    def _say(self, queue: str) -> None:
        names = self._waiting.pop(queue)
        if not self._names.gone(queue, *names):
            self.untold += len(names)


def purge(
    queue: Queue, tube: str, names: Names, done: Purged, deleted: Callable[[Delivery], None] = lambda _: None
) -> Generator[None, None, None]:
    """Deletes what is in the tube of a push queue, counts it in `done`, and yields before each.

    No more than were `waiting` at the beginning: others may put new ones for as long as it takes. The names of the
    tasks are tombstones then. `deleted` is told of each delivery that had an attempt. Raises QueueError.
    """
    gone = Gone(names)
    with gone:
        for job in _heads(queue, tube, sum(done.waiting.values())):
            yield
            delivery = _readable(job)
            try:
                queue.delete(job.id)
            except JobNotFound:
                done.taken += 1
                continue
            done.deleted += 1
            if delivery is None:
                done.damaged += 1
                continue
            gone.add(delivery.labels.get("queue", ""), delivery)
            if delivery.attempt > 1 or delivery.buried:
                deleted(delivery)
    done.untold = gone.untold


def _heads(queue: Queue, tube: str, most: int) -> Iterator[Job]:
    """The first job again and again, whoever removes it; `most` in all."""
    for state in PURGED:
        while most and (job := queue.head(state, tube)) is not None:
            most -= 1
            yield job


def _readable(job: Job) -> Delivery | None:
    try:
        return decode(job.body)
    except DamagedDelivery:
        return None
