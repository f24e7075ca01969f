"""Carries out the plan of a run, in the run's own thread and on a connection of its own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from glassq.console.plans import reasons
from glassq.console.run import BY_ITSELF
from glassq.console.run_progress import RunProgress
from glassq.console.troubles import problem_of
from glassq.errors import GlassqError, Stopped
from glassq.log import fields, logger
from glassq.operations import archive
from glassq.operations.activity import CameTo
from glassq.operations.kick import CANARY
from glassq.operations.result import Did, Report

if TYPE_CHECKING:
    from collections.abc import Callable

    from glassq.console.plans import ActionPlan
    from glassq.console.run import Run
    from glassq.console.slots import RunSlots
    from glassq.operations import Operations
    from glassq.operations.pace import Pace

log = logger("glassq.console")


class Execution:
    """One plan that is carried out: `carry_out` is what the thread does, and `progress.stopping` ends it early."""

    def __init__(
        self,
        run: Run,
        plan: ActionPlan,
        operations: Operations,
        pace: Pace,
        slots: RunSlots,
        closing: Callable[[], bool],
    ) -> None:
        """`closing` says whether the console is about to end."""
        self.run, self.plan = run, plan
        self._operations, self._pace, self._slots, self._closing = operations, pace, slots, closing
        self.progress = RunProgress(run, slots, operations.clock, self._tell)
        self._written = operations.activities(self.progress)
        self._activity = ""

    def carry_out(self) -> None:
        """Does it, records it, and has the run say what came of it."""
        run = self.run
        about = {"command": f"glassq {run.command}" if run.command else "", "filter_": self.plan.filter_}
        self._activity = self._written.begin(run.kind, chosen=run.total, run=run.id, **about)
        report = self._report()
        came_to = CameTo.of_report(report, run.total)
        if came_to.state == "stopped" and self._closing():
            came_to = replace(came_to, state="interrupted")
        if came_to.state == "stopped" and run.stopped_by:
            came_to = replace(came_to, note="; ".join(filter(None, (f"stopped by {run.stopped_by}", came_to.note))))
        self._show(report, came_to)
        self._written.end(self._activity, came_to)
        run.ended, run.state = self._operations.clock(), came_to.state

    def _report(self) -> Report:
        """What came of it. It raises nothing."""
        run = self.run
        try:
            self.progress.begin()
            run.state, run.doing = "running", ""
            with self._operations.queue() as queue:
                return self.plan.work(self._operations, queue, self.progress, self._pace)
        except GlassqError as error:
            return Report(error=error)
        except Exception as error:
            log.error("bug in a run of glassq-console %s", fields(run=run.id), exc_info=error)
            return Report(error=GlassqError("this is a bug of ours: the log of glassq-console has it"))
        finally:
            self._slots.give(run.id)

    def _tell(self) -> None:
        file = self.run.file
        self._written.update(
            self._activity, CameTo(done=self.run.done, note=archive.way_back(Path(file)) if file else None)
        )

    def _show(self, report: Report, came_to: CameTo) -> None:
        run = self.run
        general = [result for result in report.results if result.general]
        if any(result.id == CANARY for result in general):
            run.stopped_by = BY_ITSELF
        for words in (*report.words, *(f"{each.id}: {each.why}" for each in general if each.id != CANARY)):
            self.progress.note(words)
        run.sums, run.outcomes, run.doing = report.sums(), dict(report.outcomes), ""
        run.failed = tuple(report.failed)
        run.left_out = reasons(each for each in report.results if each.did in (Did.NOTHING, Did.LEFT_OUT))
        run.done, run.left = max(run.done, came_to.done or 0), came_to.left
        run.file = str(getattr(report, "file", None) or run.file)
        if report.error is not None and not isinstance(report.error, Stopped):
            problem = problem_of(report.error)
            run.error, run.todo = problem.words, problem.todo
