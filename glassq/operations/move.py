"""Puts deliveries into another tube, in the state they have."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import msgspec

from glassq.delivery import MAX_JOB, encode
from glassq.errors import InvalidRequest
from glassq.lifecycle import after_kick, after_loss
from glassq.operations.bulk import AT_WORK, Plan, change_packet, plan_found, plan_named, run, state_words
from glassq.operations.find import Search, buried_matching, checked_tube, is_ours, waiting_matching
from glassq.operations.pace import packets_of
from glassq.operations.result import Did, Report
from glassq.queues.base import Change
from glassq.values import without_password

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from glassq.operations import Operations
    from glassq.operations.bulk import Chosen
    from glassq.operations.filters import Selection
    from glassq.operations.find import Found
    from glassq.operations.progress import Progress
    from glassq.operations.result import Result
    from glassq.queues.base import Inspector, WaitingState


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """What is asked for: which deliveries go to the tube `target`; with `origin` those that wait in that tube.

    `origin` need not be a tube of ours.
    """

    selection: Selection
    target: str
    origin: str | None = None

    def check(self) -> None:
        """Raises InvalidRequest."""
        selection = self.selection
        checked_tube("--to", self.target)
        if self.origin is not None:
            if checked_tube("--from", self.origin) == self.target:
                raise InvalidRequest("--from and --to name the same tube")
            if selection.everything or selection.filter.tube is not None:
                raise InvalidRequest("--from means all that waits in a tube: expected it without --all and --tube")
        if bool(selection.ids) == (selection.bulk or self.origin is not None):
            raise InvalidRequest("expected either ids, or --all, --from or filters (see --help)")
        if selection.ids and selection.limit:
            raise InvalidRequest("--limit goes with --all, --from or filters, not with ids")


def plan(operations: Operations, queue: Inspector, move: Move, progress: Progress) -> Plan:
    """Which jobs are moved, in the order of their puts."""
    move.check()
    selection = move.selection
    if selection.ids:

        def refuse(found: Found) -> str:
            return _refusal(operations, move.target, found)

        return plan_named(operations, queue, selection.ids, progress, Did.MOVED, refuse)
    if move.origin is not None:
        fitting = waiting_matching(operations, queue, selection.filter, move.origin, progress)
    else:
        buried = buried_matching(operations, queue, selection.filter, progress)
        fitting = (found for found in buried if found.tube != move.target)
    made = plan_found(Search(fitting, selection.limit), Did.MOVED)
    # They were found newest first: those that are ready stay in their order.
    return replace(made, chosen=made.chosen[::-1])


def _refusal(operations: Operations, target: str, found: Found) -> str:
    """Why a job that was named by its id is not moved; "" where it is."""
    if not is_ours(operations.tube, found.tube):
        return f"it is in tube {found.tube}, which is not ours; --from names a whole tube"
    if found.tube == target:
        return "it is in that tube already"
    return AT_WORK if found.job.state == "reserved" else ""


def carry_out(operations: Operations, queue: Inspector, plan: Plan, progress: Progress, target: str) -> Report:
    """Moves what still waits as it was planned."""
    report = Report(list(plan.results))
    if not is_ours(operations.tube, target):
        progress.warn(
            f"large bodies stay in {without_password(operations.settings.bodies.url)}: who works {target} needs it"
        )
    largest = operations.settings.queue.url.largest
    with operations.corrector(progress) as ledger:

        def act(packet: Sequence[Chosen]) -> Iterator[Result]:
            return change_packet(operations, queue, packet, lambda found: moved(found, target, largest), moved_to)

        def moved_to(each: Chosen, found: Found, holder: str) -> Result:
            told = f"it was job {found.ref} of tube {found.tube}, {state_words(found.job)}"
            ledger.held(found.delivery, holder, target)
            return each.result(Did.MOVED, told, job=holder)

        in_doubt = "some of those after them may be in both tubes"
        run(report, plan, packets_of(plan.chosen), act, progress, in_doubt=in_doubt)
    return report


def moved(found: Found, target: str, largest: int = MAX_JOB) -> Change:
    """What becomes of a job that nobody works: the same delivery in the same state, in the tube `target`.

    Its story is cut where it would make the job larger than `largest` bytes.
    """
    state: WaitingState = "ready"
    if _counts_as_buried(found):
        state = "buried"
    elif found.job.state == "delayed":
        state = "delayed"
    # An engine may cut the time that is left to whole seconds; nothing is ready before its time.
    delay = found.job.time_left + 1 if state == "delayed" else 0.0
    return Change(found.job, state, _carried(found, target, largest), target, delay)


def _counts_as_buried(found: Found) -> bool:
    """Whether it is buried, or somebody died while burying it: that is brought to its end here."""
    marked = found.delivery is not None and found.delivery.buried != ""
    return found.is_buried or (marked and not found.job.kicked)


def _carried(found: Found, target: str, largest: int) -> bytes:
    """The same delivery for a job in another tube, whose counters begin at 0; where it is damaged, its bytes."""
    delivery = found.delivery
    if delivery is None:
        return found.job.body
    if delivery.buried and not _counts_as_buried(found):
        # The new job will not know that it was kicked.
        delivery = after_kick(delivery)
    elif _counts_as_buried(found) and not delivery.buried:
        # So that a pool buries it where we die in between.
        delivery = msgspec.structs.replace(delivery, buried=found.reason)
    if found.job.losses:
        delivery = after_loss(delivery)
    return encode(msgspec.structs.replace(delivery, tube=target), largest)
