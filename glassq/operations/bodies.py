"""The store of large bodies: what it holds, and a sweep of what nobody needs any more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from glassq.bodies.queue_holder import hold_queue
from glassq.bodies.sweep import BodyCounts, Sweeper, Swept, count_bodies, journaled_jobs, named_in
from glassq.errors import BodyError
from glassq.values import without_password

if TYPE_CHECKING:
    from glassq.operations import Operations
    from glassq.operations.progress import Progress
    from glassq.queues.base import Inspector


@dataclass(frozen=True, slots=True)
class BodiesView:
    """What the store at `url` holds, and how many bytes more it takes. `exists`: somebody has made it."""

    url: str
    exists: bool
    found: BodyCounts
    room: int = 0

    def document(self) -> dict[str, Any]:
        """The view for JSON; times in seconds, sizes in bytes."""
        return {"url": self.url, "exists": self.exists, **self.found._asdict(), "room": self.room}


def view(operations: Operations) -> BodiesView:
    """What the store holds now. Raises BodyError where that cannot be read."""
    place = without_password(operations.settings.bodies.url)
    if not operations.bodies.exists():
        return BodiesView(place, False, BodyCounts())
    return BodiesView(place, True, count_bodies(operations.bodies), operations.bodies.free())


def sweep(operations: Operations, queue: Inspector, progress: Progress) -> Swept:
    """Sweeps now, and looks at all jobs for that. Raises BodyError, QueueError and JournalError."""
    if not view(operations).exists:
        raise BodyError(f"there is no store at {without_password(operations.settings.bodies.url)} yet")

    def named(wanted: frozenset[str]) -> frozenset[str]:
        progress.advance(0, 0, "looking at all jobs")
        # the journal first: what moves on meanwhile is in the queue by the time that this is read
        journaled = list(journaled_jobs(operations.settings))
        return named_in(wanted, journaled, queue)

    swept = Sweeper.of(operations.settings).sweep(named)
    # for the sweeps of others
    hold_queue(operations.bodies, operations.settings.queue.url)
    return swept
