"""Removes deliveries for good."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from glassq.errors import InvalidRequest, LedgerError, SettingsError, Unsupported
from glassq.operations.bulk import AT_WORK, Plan, act_on_packet, not_ours, plan_buried, plan_named, run
from glassq.operations.missing import surely_missing
from glassq.operations.pace import packets_of
from glassq.operations.result import Did, Report, Result

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from glassq.errors import QueueError
    from glassq.operations import Operations
    from glassq.operations.bulk import Chosen
    from glassq.operations.corrector import Corrector
    from glassq.operations.filters import Selection
    from glassq.operations.find import Found
    from glassq.operations.progress import Progress
    from glassq.queues.base import Inspector


@dataclass(frozen=True, slots=True)
class DeletePlan(Plan):
    """What is going to be deleted; of the `lost` deliveries, (what they were named by, id), only the ledger knows."""

    lost: tuple[tuple[str, str], ...] = ()

    @property
    def count(self) -> int:
        """How many deliveries these are."""
        return len(self.chosen) + len(self.lost)

    def preview(self) -> Report:
        """The report of a dry run."""
        gone = [Result(text, None, name, Did.DELETED, "it is not in the queue", True) for text, name in self.lost]
        found = [each.result(Did.DELETED, planned=True) for each in self.chosen]
        return Report([*found, *gone, *self.results])


def plan(
    operations: Operations,
    queue: Inspector,
    selection: Selection,
    progress: Progress,
    *,
    lost: bool = False,
) -> DeletePlan:
    """Which deliveries are deleted; with `lost` those that the queue has lost."""
    if lost and (selection.filter or selection.limit):
        raise InvalidRequest("--lost goes without filters and --limit")
    if lost:
        if selection.ids:
            raise InvalidRequest("--lost goes without ids")
        missing = _missing(operations, queue, progress)
        return DeletePlan(Did.DELETED, (), (), tuple((name, name) for name in missing))
    selection.check()
    if not selection.ids:
        made = plan_buried(operations, queue, selection, progress, Did.DELETED)
        return DeletePlan(Did.DELETED, made.chosen, made.results)

    def refuse(found: Found) -> str:
        return not_ours(operations, found) or (AT_WORK if found.job.state == "reserved" else "")

    made = plan_named(operations, queue, selection.ids, progress, Did.DELETED, refuse)
    unfound = [result.id for result in made.results if result.job is None]
    gone = _lost_ones(operations, queue, unfound, progress)
    left = tuple(result for result in made.results if result.id not in gone)
    return DeletePlan(Did.DELETED, made.chosen, left, tuple(gone.items()))


def _missing(operations: Operations, queue: Inspector, progress: Progress) -> list[str]:
    return [delivery.delivery for delivery in surely_missing(operations, queue, progress)]


def _lost_ones(operations: Operations, queue: Inspector, asked: Sequence[str], progress: Progress) -> dict[str, str]:
    """The deliveries that the queue has lost, by the id or prefix that was asked for."""
    if not asked:
        return {}
    try:
        names = _missing(operations, queue, progress)
    except (LedgerError, SettingsError, Unsupported):
        return {}
    fits = {text: [name for name in names if name.startswith(text.strip().lower())] for text in asked}
    return {text: found[0] for text, found in fits.items() if len(found) == 1}


def carry_out(operations: Operations, queue: Inspector, plan: DeletePlan, progress: Progress) -> Report:
    """Deletes what is still as it was planned, and notes it in the ledger."""
    report = Report(list(plan.results))
    by = f"by {operations.actor}"
    with operations.corrector(progress) as ledger:

        def act(packet: Sequence[Chosen]) -> Iterator[Result]:
            return act_on_packet(operations, queue, packet, delete, deleted)

        def delete(found: Sequence[Found]) -> list[QueueError | None]:
            return queue.delete_all([each.job for each in found])

        def deleted(each: Chosen, found: Found, _answer: None) -> Result:
            ledger.deleted(found.delivery, by)
            operations.delete_body(found.delivery)
            return each.result(Did.DELETED)

        run(report, plan, packets_of(plan.chosen), act, progress)
        if report.error is None:
            for text, name in plan.lost:
                report.results.append(_forget(ledger, text, name, by))
                operations.delete_body(name)
    return report


def _forget(ledger: Corrector, text: str, name: str, by: str) -> Result:
    ledger.forgotten(name, f"{by}, when the queue had lost it")
    words = "it was not in the queue; the ledger no longer has it as waiting"
    return Result(text, None, name, Did.DELETED, words)
