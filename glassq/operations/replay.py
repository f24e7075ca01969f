"""Puts deliveries that are done, dropped or lost again, as new deliveries, out of the ledger."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from glassq import delivery as envelope
from glassq.errors import GlassqError, JobNotFound, JobTooBig, LedgerError, SettingsError
from glassq.operations.bulk import ended_by, step_by_step
from glassq.operations.find import unworked
from glassq.operations.pace import AT_ONCE
from glassq.operations.replay_plan import Replayed, ReplayPlan, ReplayPlanner
from glassq.operations.result import Did, Report, Result, not_done
from glassq.push.request import SOURCE as PUSH
from glassq.push.request import tube_of
from glassq.worker.duplicates import REPLAY_OF

if TYPE_CHECKING:
    from glassq.ledger.corrections import Corrections
    from glassq.ledger.reader import LedgerReader, StoredBody
    from glassq.operations import Operations
    from glassq.operations.pace import Pace
    from glassq.operations.progress import Progress
    from glassq.operations.replay_plan import ReplayFilter
    from glassq.queues.base import Inspector

# A new delivery is ready after so many seconds at the latest, should we die before it is marked in the ledger.
MARK_WITHIN = 60.0
_TWICE = "somebody else replayed it meanwhile"


def plan(operations: Operations, queue: Inspector, asked: ReplayFilter, progress: Progress) -> ReplayPlan:
    """Which deliveries are replayed. Raises InvalidRequest, LedgerError, SettingsError, and for lost ones Conflict."""
    asked.check()
    with operations.ledger() as ledger:
        planner = ReplayPlanner(operations, ledger, queue, progress, asked.again)
        return planner.by_ids(asked.selection.ids) if asked.selection.ids else planner.by_filter(asked)


def carry_out(
    operations: Operations, queue: Inspector, plan: ReplayPlan, progress: Progress, pace: Pace = AT_ONCE
) -> Report:
    """Puts each planned delivery again, at this pace, and marks it in the ledger."""
    from glassq.ledger.corrections import Corrections

    report, total = Report(list(plan.results)), len(plan.chosen)
    if not total:
        return report
    with operations.ledger() as ledger, Corrections(operations.settings.ledger) as corrections:
        replayer = Replayer(operations, ledger, queue, corrections, progress, plan.again)
        start = len(report.results)
        try:
            chosen = pace.paced(plan.chosen, progress)
            step_by_step(report, chosen, replayer.replay, progress, "replayed so far", total, start=start)
        except GlassqError as error:
            report.error = error
            marked = not (plan.again or replayer.unmarked)
            again = "goes on with the rest" if marked else "would replay those again"
            looked = f"{len(report.results) - start} of {total} were looked at"
            report.results.append(not_done("the rest", f"{ended_by(error)}: {looked}; the same command {again}"))
    return report


@dataclass(slots=True)
class Replayer:
    """Puts deliveries again, each marked in the ledger once it is in the queue.

    `unmarked`: the ledger cannot be written, which was told.
    """

    operations: Operations
    ledger: LedgerReader
    queue: Inspector
    corrections: Corrections
    progress: Progress
    again: bool
    unmarked: bool = False
    _unworked: dict[str, str] = field(default_factory=dict)

    def replay(self, old: str) -> Result:
        """First the put, then the mark: dying between the two makes a duplicate, never a loss. Raises QueueError."""
        stored = self.ledger.stored_body(old)
        if stored is None:
            return Replayed(old, None, old, Did.NOTHING, "its entry went meanwhile")
        if stored.replayed and not self.again:
            return Replayed(old, None, old, Did.LEFT_OUT, _TWICE, replayed_as=stored.replayed)
        tube = self._tube(stored)
        if why := self._nobodys(tube):
            return Replayed(old, None, old, Did.NOTHING, why)
        new = envelope.new(stored.source, stored.body, {**stored.labels, REPLAY_OF: old})
        try:
            # Delayed until it is marked as ours: two operators may replay the same delivery at once.
            ref = self.queue.insert(envelope.encode(new), tube=tube, state="delayed", delay=MARK_WITHIN)
        except JobTooBig as error:
            return Replayed(old, None, old, Did.NOTHING, str(error))
        ours = self._mark(old, new.id, stored.replayed)
        # Where that took so long that it is ready by itself, there is nothing to do.
        with suppress(JobNotFound):
            job = self.queue.get(ref)
            if not ours:
                self.queue.delete(job)
            elif job.state == "delayed":
                self.queue.change(job, state="ready")
        if not ours:
            return Replayed(old, None, old, Did.LEFT_OUT, _TWICE)
        return Replayed(old, ref, old, Did.REPLAYED, f"as {new.id}, job {ref}", replayed_as=new.id)

    def _tube(self, stored: StoredBody) -> str:
        """A task goes into the tube of its push queue; a ping into the main one, like all pings."""
        main = self.operations.tube
        return tube_of(main, stored.labels.get("queue", "")) if stored.source == PUSH else main

    def _nobodys(self, tube: str) -> str:
        if tube not in self._unworked:
            self._unworked[tube] = unworked(self.operations, tube)
        return self._unworked[tube]

    def _mark(self, old: str, new: str, before: str) -> bool:
        """Whether the new delivery is the one that stands for the old one; also where nobody can know."""
        if self.unmarked:
            return True
        try:
            return self.corrections.replayed(old, new, before)
        except (LedgerError, SettingsError) as error:
            self.unmarked = True
            words = "what is replayed cannot be marked, so the same command would replay it again"
            self.progress.warn(f"{words}: {error}")
            return True
