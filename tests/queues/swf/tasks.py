"""What is open in an execution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.queues.swf.run import Run

_TIMEOUTS = {
    "SCHEDULE_TO_START": "scheduleToStartTimeout",
    "SCHEDULE_TO_CLOSE": "scheduleToCloseTimeout",
    "START_TO_CLOSE": "startToCloseTimeout",
    "HEARTBEAT": "heartbeatTimeout",
}
# The timeouts of a task, as its decision and its event name them.
TIMEOUTS = tuple(_TIMEOUTS.values())


@dataclass(eq=False, slots=True)
class DecisionTask:
    """`scheduled` and `started` are numbers of events; `unhandled`: something happened since it was given out."""

    run: Run
    scheduled: int
    list: str
    started: int = 0
    unhandled: bool = False

    @property
    def waits(self) -> bool:
        """Whether it is still for a decider to take."""
        return self.run.decision is self and not self.started


@dataclass(eq=False, slots=True)
class ActivityTask:
    """`asked` are the attributes of its decision, `resolved` its list and timeouts with its type's defaults."""

    run: Run
    scheduled: int
    asked: Mapping[str, Any]
    resolved: Mapping[str, Any]
    started: int = 0
    # heartbeats: how many, and when the last one came
    beats: int = 0
    beaten: float = 0.0
    # what the last heartbeat said; the number of the event that asked it to stop
    details: str | None = None
    cancel: int = 0

    @property
    def list(self) -> str:
        return str(self.resolved["taskList"]["name"])

    @property
    def waits(self) -> bool:
        """Whether it is still for a worker to take."""
        return self.run.activities.get(self.scheduled) is self and not self.started

    def timeout(self, kind: str) -> float | None:
        """In seconds; None: there is none."""
        found = self.resolved[_TIMEOUTS[kind]]
        return None if found == "NONE" else float(found)


@dataclass(eq=False, slots=True)
class RunTimer:
    """A timer that runs."""

    id: str
    started: int
