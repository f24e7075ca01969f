"""One execution of a workflow: its history, what is open in it, and what time does to it."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from tests.queues.swf.decisions import carry_out
from tests.queues.swf.tasks import ActivityTask, DecisionTask, RunTimer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Attributes = Mapping[str, Any]
    Event = dict[str, Any]


class Home(Protocol):
    """What an execution asks of the service."""

    def now(self) -> float: ...
    def after(self, seconds: float, what: Callable[[], None]) -> None: ...
    def offer_decision(self, task: DecisionTask) -> None: ...
    def offer_activity(self, task: ActivityTask) -> None: ...
    def begin(self, run: Run) -> None: ...
    def closed(self, run: Run) -> None: ...
    def continue_as_new(self, run: Run, attributes: Attributes) -> str | Run: ...
    def activity_of(self, attributes: Attributes) -> str | dict[str, Any]: ...
    def is_refused(self) -> bool: ...
    @property
    def event_limit(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run is started with; times in seconds as SWF has them: text, or NONE."""

    workflow_type: dict[str, str]
    task_list: str
    execution_timeout: str
    task_timeout: str
    child_policy: str
    tags: tuple[str, ...] = ()
    input: str | None = None
    continued: str | None = None

    @property
    def attributes(self) -> dict[str, Any]:
        """As events have them."""
        return {
            "workflowType": self.workflow_type,
            "taskList": {"name": self.task_list},
            "executionStartToCloseTimeout": self.execution_timeout,
            "taskStartToCloseTimeout": self.task_timeout,
            "childPolicy": self.child_policy,
            "tagList": list(self.tags) or None,
            "input": self.input,
        }


class Run:
    """Every method is called with the service's lock held."""

    def __init__(self, home: Home, workflow_id: str, plan: Plan) -> None:
        self.home, self.workflow_id, self.plan = home, workflow_id, plan
        self.id = uuid.uuid4().hex
        self.started = home.now()
        self.events: list[Event] = []
        self.status = ""
        self.ended: float | None = None
        self.cancel_requested = False
        self.context: str | None = None
        self.decision: DecisionTask | None = None
        self._previous = 0
        # by the number of the event that scheduled each
        self.activities: dict[int, ActivityTask] = {}
        self.timers: dict[str, RunTimer] = {}
        self.last_activity: float | None = None

    @property
    def open(self) -> bool:
        return not self.status

    @property
    def execution(self) -> dict[str, str]:
        return {"workflowId": self.workflow_id, "runId": self.id}

    def record(self, kind: str, **attributes: Any) -> int:
        """Adds an event; its number. Attributes that are None are not there."""
        number = len(self.events) + 1
        event = {"eventTimestamp": self.home.now(), "eventType": kind, "eventId": number}
        known = {name: value for name, value in attributes.items() if value is not None}
        self.events.append({**event, f"{kind[0].lower()}{kind[1:]}EventAttributes": known})
        return number

    def start(self) -> None:
        first = {"continuedExecutionRunId": self.plan.continued, "parentInitiatedEventId": 0}
        self.record("WorkflowExecutionStarted", **self.plan.attributes, **first)
        self.home.after(float(self.plan.execution_timeout), self._time_out)
        self.happened()

    def happened(self) -> None:
        """Something did that a decider must hear of: a task for it, or one more after the one it has."""
        if not self.open:
            return
        if len(self.events) >= self.home.event_limit:
            self.terminate({}, cause="EVENT_LIMIT_EXCEEDED")
        elif self.decision is not None:
            self.decision.unhandled |= bool(self.decision.started)
        else:
            listed, timeout = {"name": self.plan.task_list}, self.plan.task_timeout
            number = self.record("DecisionTaskScheduled", taskList=listed, startToCloseTimeout=timeout)
            self.decision = DecisionTask(self, number, self.plan.task_list)
            self.home.offer_decision(self.decision)

    # -- decisions --------------------------------------------------------------------------------------------------

    def begin_decision(self, task: DecisionTask, identity: str | None) -> int:
        """Gives the task to a decider; the number of the event before which the last one began."""
        task.started = self.record("DecisionTaskStarted", identity=identity, scheduledEventId=task.scheduled)
        previous, self._previous = self._previous, task.started
        if self.plan.task_timeout != "NONE":
            self.home.after(float(self.plan.task_timeout), lambda: self._decision_timed_out(task))
        return previous

    def end_decision(self, task: DecisionTask, decisions: list[dict[str, Any]], context: str | None) -> None:
        events = {"scheduledEventId": task.scheduled, "startedEventId": task.started}
        done = self.record("DecisionTaskCompleted", **events, executionContext=context)
        self.decision, self.context = None, context if context is not None else self.context
        again = task.unhandled
        for decision in decisions:
            again |= carry_out(self, decision, done, unhandled=task.unhandled)
        if again:
            self.happened()

    def _decision_timed_out(self, task: DecisionTask) -> None:
        if self.open and self.decision is task:
            events = {"scheduledEventId": task.scheduled, "startedEventId": task.started}
            self.record("DecisionTaskTimedOut", **events, timeoutType="START_TO_CLOSE")
            self.decision = None
            self.happened()

    # -- activities -------------------------------------------------------------------------------------------------

    def schedule(self, attributes: Attributes, resolved: dict[str, Any], done: int) -> None:
        """A task for a worker; `resolved` has its list and timeouts."""
        number = self.record(
            "ActivityTaskScheduled",
            **{name: attributes.get(name) for name in ("activityType", "activityId", "input", "control")},
            **resolved,
            decisionTaskCompletedEventId=done,
        )
        task = ActivityTask(self, number, attributes, resolved)
        self.activities[number] = task
        self.last_activity = self.home.now()
        self._expires(task, "SCHEDULE_TO_START", lambda: not task.started)
        self._expires(task, "SCHEDULE_TO_CLOSE")
        self.home.offer_activity(task)

    def begin_activity(self, task: ActivityTask, identity: str | None) -> None:
        task.started = self.record("ActivityTaskStarted", identity=identity, scheduledEventId=task.scheduled)
        self._expires(task, "START_TO_CLOSE")
        self.beat(task, None)

    def beat(self, task: ActivityTask, details: str | None) -> bool:
        """The worker lives; whether it was asked to stop."""
        task.details = details if details is not None else task.details
        task.beats += 1
        task.beaten = self.home.now()
        beats = task.beats
        self._expires(task, "HEARTBEAT", lambda: task.beats == beats)
        return bool(task.cancel)

    def end_activity(self, task: ActivityTask, how: str, **attributes: Any) -> None:
        """It has "Completed", "Failed", "TimedOut", or was "Canceled"."""
        del self.activities[task.scheduled]
        events = {"scheduledEventId": task.scheduled, "startedEventId": task.started}
        self.record(f"ActivityTask{how}", **events, **attributes)
        self.happened()

    def _expires(self, task: ActivityTask, kind: str, then: Callable[[], bool] = lambda: True) -> None:
        seconds = task.timeout(kind)
        if seconds is not None:

            def expire() -> None:
                if self.open and self.activities.get(task.scheduled) is task and then():
                    self.end_activity(task, "TimedOut", timeoutType=kind, details=task.details)

            self.home.after(seconds, expire)

    # -- timers -----------------------------------------------------------------------------------------------------

    def start_timer(self, attributes: Attributes, done: int) -> None:
        number = self.record("TimerStarted", **attributes, decisionTaskCompletedEventId=done)
        timer = self.timers[attributes["timerId"]] = RunTimer(attributes["timerId"], number)
        self.home.after(float(attributes["startToFireTimeout"]), lambda: self._fire(timer))

    def _fire(self, timer: RunTimer) -> None:
        if self.open and self.timers.get(timer.id) is timer:
            del self.timers[timer.id]
            self.record("TimerFired", timerId=timer.id, startedEventId=timer.started)
            self.happened()

    # -- from outside, and the end ----------------------------------------------------------------------------------

    def signal(self, name: str, text: str | None) -> None:
        self.record("WorkflowExecutionSignaled", signalName=name, input=text, externalInitiatedEventId=0)
        self.happened()

    def ask_cancel(self) -> None:
        self.cancel_requested = True
        self.record("WorkflowExecutionCancelRequested", externalInitiatedEventId=0)
        self.happened()

    def terminate(self, asked: Attributes, cause: str = "OPERATOR_INITIATED") -> None:
        policy = asked.get("childPolicy") or self.plan.child_policy
        told = {"reason": asked.get("reason"), "details": asked.get("details")}
        self.close("TERMINATED", "WorkflowExecutionTerminated", childPolicy=policy, cause=cause, **told)

    def close(self, status: str, event: str, **attributes: Any) -> None:
        """Ends it: nothing is open any more, and no event says so."""
        self.record(event, **attributes)
        self.status, self.ended = status, self.home.now()
        self.decision = None
        self.activities.clear()
        self.timers.clear()
        self.home.closed(self)

    def _time_out(self) -> None:
        if self.open:
            policy = self.plan.child_policy
            self.close("TIMED_OUT", "WorkflowExecutionTimedOut", timeoutType="START_TO_CLOSE", childPolicy=policy)
