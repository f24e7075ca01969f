"""Deliveries at the SWF of tests without HTTP, processes or waiting: its clock stands still unless it is moved."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from tests.queues.swf import decisions
from tests.queues.swf.clock import Clock
from tests.queues.swf.domain import Domain
from tests.queues.swf.faults import Faults
from tests.queues.swf.shapes import check_question

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.queues.swf.run import Run
    from tests.queues.swf.tasks import ActivityTask, DecisionTask


class Stage:
    """One domain. `faults` says what it does from now on."""

    def __init__(self) -> None:
        self.faults = Faults()
        self._clock = Clock(lambda: 1_800_000_000.0)
        self._random = random.Random(1)
        asked = {"name": "stage", "workflowExecutionRetentionPeriodInDays": "1"}
        self.domain = Domain(asked, self._clock, lambda: self.faults, self._random.random)

    def skip(self, seconds: float) -> None:
        """So much time passes, and what is due meanwhile happens."""
        self._clock.skip(seconds)
        self._clock.strike()

    def open(self, workflow_id: str) -> Run | None:
        return self.domain.open.get(workflow_id)

    def start(self, asked: Mapping[str, Any]) -> Run:
        check_question("StartWorkflowExecution", {"domain": "stage", **asked})
        return self.domain.start(asked)

    def take_decision(self, name: str) -> tuple[DecisionTask, list[dict[str, Any]]] | None:
        """The next task for a decider of this list, with the history as it is."""
        self._clock.strike()
        task = self.domain.take_decision(name)
        if task is None:
            return None
        task.run.begin_decision(task, "decider")
        return task, list(task.run.events)

    def decide(self, task: DecisionTask, made: Sequence[dict[str, Any]]) -> bool:
        """Whether that was in time. Raises SwfFault if the service would not take such decisions."""
        check_question("RespondDecisionTaskCompleted", {"taskToken": "token", "decisions": list(made)})
        decisions.check(list(made))
        if not task.run.open or task.run.decision is not task:
            return False
        task.run.end_decision(task, list(made), None)
        self._clock.strike()
        return True

    def take_activity(self, name: str) -> ActivityTask | None:
        self._clock.strike()
        task = self.domain.take_activity(name)
        if task is not None:
            task.run.begin_activity(task, "worker")
        return task

    def end(self, task: ActivityTask, how: str, **attributes: Any) -> bool:
        """It is "Completed" or "Failed"; whether the worker still had it."""
        if not task.run.open or task.run.activities.get(task.scheduled) is not task:
            return False
        task.run.end_activity(task, how, **attributes)
        return True
