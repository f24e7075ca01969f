"""Has buried deliveries worked again, with a fresh budget of attempts (what other systems call retry or redrive)."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from glassq.errors import Conflict, GlassqError, InvalidRequest, Stopped
from glassq.operations.bulk import Plan, change_packet, end_early, not_ours, plan_buried, plan_named, run, state_words
from glassq.operations.outcomes import Outcomes, OutcomeTracker
from glassq.operations.pace import AT_ONCE
from glassq.operations.result import Did, Report, remark
from glassq.operations.words import span
from glassq.queues.base import Change

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from glassq.operations import Operations
    from glassq.operations.bulk import Chosen
    from glassq.operations.filters import Selection
    from glassq.operations.find import Found
    from glassq.operations.pace import Pace
    from glassq.operations.progress import Progress
    from glassq.operations.result import Result
    from glassq.queues.base import Inspector

# What the report says about the trial has this name.
CANARY = "--canary"


def check(selection: Selection, pace: Pace) -> None:
    """Raises InvalidRequest where these do not go together."""
    selection.check()
    if selection.ids and (pace.rate or pace.canary):
        raise InvalidRequest("--rate and --canary go with --all or filters, not with ids")


def plan(
    operations: Operations, queue: Inspector, selection: Selection, progress: Progress, pace: Pace = AT_ONCE
) -> Plan:
    """Which jobs are kicked. Raises Conflict where an outcome is waited for and a tube is paused."""
    check(selection, pace)
    if selection.ids:

        def refuse(found: Found) -> str:
            why = not_ours(operations, found)
            return why or ("" if found.job.state == "buried" else f"it is {state_words(found.job)}, not buried")

        made = plan_named(operations, queue, selection.ids, progress, Did.KICKED, refuse)
    else:
        made = plan_buried(operations, queue, selection, progress, Did.KICKED)
    if pace.canary or pace.follow:
        check_running(queue, made.tubes, "--canary" if pace.canary else "--follow")
    return made


def check_running(queue: Inspector, tubes: Iterable[str], who: str) -> None:
    """Raises Conflict for a tube that is paused: nothing would come of the first that is kicked.

    `who` says what waits for that.
    """
    for counts in queue.counts(sorted(tubes)):
        if counts.paused_for:
            resume = f"first `glassq resume {shlex.quote(counts.name)}`"
            raise Conflict(f"tube {counts.name} is paused, and {who} waits for outcomes: {resume}")


def carry_out(operations: Operations, queue: Inspector, plan: Plan, progress: Progress, pace: Pace = AT_ONCE) -> Report:
    """Kicks what is still buried as it was planned, at this pace."""
    report = Report(list(plan.results))
    kicked: dict[str, str] = {}
    moved: list[tuple[Found, str]] = []

    def act(packet: Sequence[Chosen]) -> Iterator[Result]:
        return change_packet(operations, queue, packet, lambda found: Change(found.job, "ready"), made_ready)

    def made_ready(each: Chosen, found: Found, ref: str) -> Result:
        kicked[each.ref] = ref
        if ref != each.ref:
            moved.append((found, ref))
        return each.result(Did.KICKED, job=ref)

    try:
        for lot, decides in pace.lots(plan.chosen):
            tracker = OutcomeTracker(operations, queue, lot) if decides or pace.follow else None
            kicked.clear()
            run(report, plan, pace.packets(lot, progress), act, progress)
            _note(operations, moved, progress)
            if report.error is not None:
                return report
            if decides and tracker and not _went_well(report, plan, tracker, kicked, pace, progress):
                return report
            if not decides and tracker:
                _follow(report, tracker, kicked, pace, progress)
    except GlassqError as error:
        end_early(report, plan, error)
    return report


def _note(operations: Operations, moved: list[tuple[Found, str]], progress: Progress) -> None:
    """Notes in the ledger which deliveries another job holds now, where the engine kicks by a put."""
    if moved:
        with operations.corrector(progress) as ledger:
            for found, ref in moved:
                ledger.held(found.delivery, ref, found.tube)
        moved.clear()


def _went_well(
    report: Report, plan: Plan, tracker: OutcomeTracker, kicked: Mapping[str, str], pace: Pace, progress: Progress
) -> bool:
    """Whether the canaries came to something good, so that the rest may follow; else the report says why not."""
    told = Outcomes()
    tracker.wait(kicked, pace.patience, progress, told)
    report.outcomes.update(told.counts())
    report.failed += told.failed
    if told.well:
        words = f"canary: {told.words()} after {span(told.seconds)}"
        report.words.append(words)
        return True
    so_far = report.count(Did.KICKED)
    if so_far == len(plan.chosen) == len(told.failed) == 1:
        # a trial of this one alone
        report.results.append(remark(CANARY, f"it failed again, and is buried again: {told.failed[0]}"))
        return False
    left = len(plan.chosen) - (len(report.results) - len(plan.results))
    words = f"stopped: of {so_far} kicked, {len(told.failed)} failed again"
    if told.unknown:
        words += f", {told.unknown} had no outcome within {pace.patience:g} s (is glassq-worker running?)"
    todo = "mend the cause, and go on with the same command"
    report.results.append(remark(CANARY, f"{words}{told.failures()}; {left} were left buried: {todo}"))
    return False


def _follow(report: Report, tracker: OutcomeTracker, kicked: Mapping[str, str], pace: Pace, progress: Progress) -> None:
    """Waits for the outcomes; the report has what ended that. Whoever stops it leaves the work going."""
    told = Outcomes()
    try:
        tracker.wait(kicked, pace.patience, progress, told)
        more = f" after {span(told.seconds)}"
    except Stopped as error:
        report.error = error
        more = ", when you stopped following: they are worked all the same"
    report.outcomes.update(told.counts())
    report.failed += told.failed
    if told.failed:
        report.results.append(remark("--follow", f"{len(told.failed)} failed again{told.failures()}"))
    if told.unknown and report.error is None:
        why = f"{told.unknown} had no outcome within {pace.patience:g} s"
        report.results.append(remark("--follow", f"{why} (`glassq tail` goes on; is glassq-worker running?)"))
    if kicked:
        report.words.append(f"outcomes: {told.words()}{more}")
