"""Deletes all that waits in a push queue, or is buried there, for good."""

from __future__ import annotations

from contextlib import closing
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from glassq.errors import GlassqError
from glassq.operations import push_queues
from glassq.operations.find import require_lists
from glassq.push.names import open_names
from glassq.push.purge import Purged, purge
from glassq.queues.base import WAITING_STATES
from glassq.settings import parked_of

if TYPE_CHECKING:
    from glassq.delivery import Delivery
    from glassq.operations import Operations
    from glassq.operations.progress import Progress
    from glassq.operations.push_queues import PlannedQueues
    from glassq.queues.base import Inspector


@dataclass(frozen=True, slots=True)
class PurgePlan:
    """What is going to be deleted: the tasks that `waiting` counts by their state. `running` ones go on.

    Without `paused`, more of the tasks may begin meanwhile.
    """

    name: str
    tubes: tuple[str, ...]
    waiting: dict[str, int]
    running: int
    paused: bool

    @property
    def total(self) -> int:
        """How many tasks are going to be deleted."""
        return sum(self.waiting.values())

    def preview(self) -> PurgeReport:
        """The report of a dry run."""
        return PurgeReport(self.name, Purged(self.waiting, running=self.running), dry_run=True)


@dataclass(slots=True)
class PurgeReport:
    """What a purge of the queue `name` came to. `error` is what ended it early, if anything did."""

    name: str
    purged: Purged
    dry_run: bool = False
    error: GlassqError | None = None

    def document(self) -> dict[str, Any]:
        """The report for JSON."""
        return {"queue": self.name, "dry_run": self.dry_run, **asdict(self.purged)}


def plan(operations: Operations, queue: Inspector, queues: PlannedQueues, name: str) -> PurgePlan:
    """What the queue holds now. Raises InvalidRequest where there is no such queue, SettingsError, QueueError."""
    require_lists(queue, WAITING_STATES)
    tube = push_queues.chosen(operations, queue, queues, [name])[name]
    # Nothing is asked or deleted where the names' URL is wrong.
    open_names(push_queues.settings_of(operations)).close()
    # those that wait for their key's turn are its tasks as well
    counts = queue.counts([tube, *parked_of(operations.tube, tube, queue.tubes())])
    now = Purged.of(*counts)
    return PurgePlan(name, tuple(part.name for part in counts), now.waiting, now.running, counts[0].paused_for > 0)


def carry_out(operations: Operations, queue: Inspector, plan: PurgePlan, progress: Progress) -> PurgeReport:
    """Deletes as many tasks as were planned; their names become tombstones.

    Tasks that are added meanwhile are left where they are.
    """
    purged = Purged(dict(plan.waiting))
    report = PurgeReport(plan.name, purged)
    why = f"by {operations.actor}, who purged queue {plan.name}"
    with closing(open_names(push_queues.settings_of(operations))) as names, operations.corrector(progress) as ledger:

        def deleted(delivery: Delivery) -> None:
            ledger.deleted(delivery, why)
            operations.delete_body(delivery)

        steps = purge(queue, plan.tubes, names, purged, deleted)
        try:
            # It ends before the names' database is closed, which it writes to at its end.
            with closing(steps):
                for _ in steps:
                    progress.advance(purged.deleted + purged.taken, plan.total, "deleted so far")
            purged.running = sum(part.reserved for part in queue.counts(plan.tubes))
        except GlassqError as error:
            report.error = error
    return report
