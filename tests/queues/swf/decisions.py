"""What each decision does to an execution, and why it may be refused in the history."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.queues.swf.faults import invalid

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Protocol

    from tests.queues.swf.run import Run

    class Decided(Protocol):
        """Does it, after the event `done`; returns why not, "" if it did."""

        def __call__(self, run: Run, attributes: Mapping[str, Any], done: int) -> str: ...


# The most timers, and the most tasks, that may be open in an execution.
MOST_OPEN = 1000
_CLOSING = {
    "CompleteWorkflowExecution": ("COMPLETED", "WorkflowExecutionCompleted"),
    "FailWorkflowExecution": ("FAILED", "WorkflowExecutionFailed"),
    "CancelWorkflowExecution": ("CANCELED", "WorkflowExecutionCanceled"),
    "ContinueAsNewWorkflowExecution": ("CONTINUED_AS_NEW", "WorkflowExecutionContinuedAsNew"),
}
_NAMED = ("activityType", "activityId", "timerId", "markerName")


def check(decisions: list[dict[str, Any]]) -> None:
    """Raises SwfFault if these are no decisions: none of them is carried out then."""
    for number, decision in enumerate(decisions, 1):
        kind = decision["decisionType"]
        if kind in _CLOSING and number < len(decisions):
            raise invalid("Close must be last decision in list")
        if kind not in _CLOSING and kind not in _DECISIONS:
            raise invalid(f"{kind} is nothing that this server does")
        if kind in _DECISIONS and _attributes(decision) is None:
            name = f"decisions.{number}.member.{_key(kind)}"
            raise invalid(f"Value null at '{name}' failed to satisfy constraint: Member must not be null")


def carry_out(run: Run, decision: dict[str, Any], done: int, *, unhandled: bool) -> bool:
    """Whether the decider has to decide again. With `unhandled` events the execution cannot be closed."""
    kind, attributes = decision["decisionType"], _attributes(decision) or {}
    if kind in _CLOSING:
        why = "UNHANDLED_DECISION" if unhandled else _close(run, kind, attributes, done)
    else:
        why = _DECISIONS[kind](run, attributes, done)
    if why:
        named = {name: attributes[name] for name in _NAMED if name in attributes}
        run.record(f"{kind}Failed", **named, cause=why, decisionTaskCompletedEventId=done)
    return bool(why)


def _key(kind: str) -> str:
    return f"{kind[0].lower()}{kind[1:]}DecisionAttributes"


def _attributes(decision: dict[str, Any]) -> dict[str, Any] | None:
    return decision.get(_key(decision["decisionType"]))


def _close(run: Run, kind: str, attributes: Mapping[str, Any], done: int) -> str:
    status, event = _CLOSING[kind]
    more: dict[str, Any] = dict(attributes)
    following: Run | None = None
    if kind == "ContinueAsNewWorkflowExecution":
        if run.home.is_refused():
            return "CONTINUE_AS_NEW_WORKFLOW_EXECUTION_RATE_EXCEEDED"
        made = run.home.continue_as_new(run, attributes)
        if isinstance(made, str):
            return made
        following, more = made, {**made.plan.attributes, "newExecutionRunId": made.id}
    run.close(status, event, **more, decisionTaskCompletedEventId=done)
    if following is not None:
        run.home.begin(following)
    return ""


def _schedule(run: Run, attributes: Mapping[str, Any], done: int) -> str:
    resolved = run.home.activity_of(attributes)
    if isinstance(resolved, str):
        return resolved
    if any(task.asked["activityId"] == attributes["activityId"] for task in run.activities.values()):
        return "ACTIVITY_ID_ALREADY_IN_USE"
    if len(run.activities) >= MOST_OPEN:
        return "OPEN_ACTIVITIES_LIMIT_EXCEEDED"
    if run.home.is_refused():
        return "ACTIVITY_CREATION_RATE_EXCEEDED"
    run.schedule(attributes, resolved, done)
    return ""


def _cancel_activity(run: Run, attributes: Mapping[str, Any], done: int) -> str:
    name = attributes["activityId"]
    task = next((each for each in run.activities.values() if each.asked["activityId"] == name), None)
    if task is None:
        return "ACTIVITY_ID_UNKNOWN"
    task.cancel = run.record("ActivityTaskCancelRequested", activityId=name, decisionTaskCompletedEventId=done)
    if not task.started:
        run.end_activity(task, "Canceled", latestCancelRequestedEventId=task.cancel)
    return ""


def _start_timer(run: Run, attributes: Mapping[str, Any], done: int) -> str:
    if attributes["timerId"] in run.timers:
        return "TIMER_ID_ALREADY_IN_USE"
    if len(run.timers) >= MOST_OPEN:
        return "OPEN_TIMERS_LIMIT_EXCEEDED"
    if run.home.is_refused():
        return "TIMER_CREATION_RATE_EXCEEDED"
    run.start_timer(attributes, done)
    return ""


def _cancel_timer(run: Run, attributes: Mapping[str, Any], done: int) -> str:
    timer = run.timers.pop(attributes["timerId"], None)
    if timer is None:
        return "TIMER_ID_UNKNOWN"
    events = {"startedEventId": timer.started, "decisionTaskCompletedEventId": done}
    run.record("TimerCanceled", timerId=timer.id, **events)
    return ""


def _record_marker(run: Run, attributes: Mapping[str, Any], done: int) -> str:
    run.record("MarkerRecorded", **attributes, decisionTaskCompletedEventId=done)
    return ""


_DECISIONS: dict[str, Decided] = {
    "ScheduleActivityTask": _schedule,
    "RequestCancelActivityTask": _cancel_activity,
    "StartTimer": _start_timer,
    "CancelTimer": _cancel_timer,
    "RecordMarker": _record_marker,
}
