"""Decides what happens next to a delivery: a pure function of its run's history, version 2 of it (`versions`).

    begun, ready           schedule its activity
    begun, delayed         start a timer; when it fires: schedule
    begun, buried          wait for an operator's signal
    worked, completed      close
    failed, with a form    schedule; start a timer; or go on as a new run, where the tags change: buried, another tube
    given back, or lost    schedule, a lost attempt counted
    an operator's signal   go on as a new run in the form that it brings, unless somebody works the delivery
    half a year old        go on as a new run as it is: the service ends each after a year

A decider hears of a run when an event comes. What wakes it where nothing comes for half a year is the timer that a
delay needs anyway; for what nobody takes the activity's own time limit, an event that is there only then; and for what
lies buried a timer of its own.
Whatever comes twice, late, or not at all is in the history as it was, so a decision that was lost is made again.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from glassq.queues.swf.forms import MAX_SECONDS, SwfForm, fitting, written
from glassq.queues.swf.history import DUE_TIMER, RENEWAL, DeliveryRun, Phase, read_history
from glassq.queues.swf.names import TYPE, decision_list, list_of, tags_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Decision = dict[str, Any]

# Under version 1 nothing renewed what nobody took. Such a run ends as it began; the one after it is of version 2.
FIRST, VERSION = "1", "2"
# The version of activities: how a form is written.
ACTIVITY = {"name": TYPE, "version": "1"}
# A run goes on as a new one before it has this many events (the service ends it at 25,000), or is so old, in seconds.
MANY_EVENTS, OLD = 5_000, MAX_SECONDS
# An execution lives for a year at most, and a decision takes at most so long; in seconds.
YEAR, DECISION = 365 * 86_400, 15
_NEVER = "NONE"


def decide(events: Sequence[Mapping[str, Any]], version: str = VERSION) -> list[Decision]:
    """The decisions that follow from the events of a run of this version, both as botocore has them."""
    run = read_history(events)
    if run.phase is Phase.ANEW or (run.phase in (Phase.DUE, Phase.WAITS) and _is_long(run)):
        # before `glassq queue init` has made the new version, it goes on in its own
        return [_go_on(run, version if run.lacks_type else VERSION)]
    if run.phase is Phase.DUE or (run.phase is Phase.WAITS and not run.left(run.now)):
        return [_schedule(run, _NEVER if version == FIRST else str(math.ceil(OLD - run.age)))]
    if run.phase is Phase.WAITS:
        return [_start_timer(f"{DUE_TIMER}-{run.timers + 1}", run.left(run.now))]
    if run.phase is Phase.BURIED and not run.renews:
        return [_start_timer(RENEWAL, OLD)]
    if run.phase is Phase.DONE:
        return [_decision("CompleteWorkflowExecution")]
    return []


def settings_of(form: SwfForm, version: str = VERSION) -> dict[str, Any]:
    """What a run with this form begins with, whoever begins it."""
    return {
        "input": written(form),
        "tagList": tags_of(form.tube, buried=form.state == "buried"),
        "taskList": decision_list(version),
        "executionStartToCloseTimeout": str(YEAR),
        "taskStartToCloseTimeout": str(DECISION),
        "childPolicy": "TERMINATE",
    }


def _schedule(run: DeliveryRun, taken_within: str) -> Decision:
    return _decision(
        "ScheduleActivityTask",
        activityId=f"attempt-{run.attempts + 1}",
        activityType=ACTIVITY,
        taskList=list_of(run.tube),
        input=written(fitting(replace(run.form, state="ready", delay=0.0))),
        heartbeatTimeout=str(run.form.lease),
        scheduleToStartTimeout=taken_within,
        scheduleToCloseTimeout=_NEVER,
        startToCloseTimeout=_NEVER,
    )


def _start_timer(name: str, seconds: float) -> Decision:
    return _decision("StartTimer", timerId=name, startToFireTimeout=str(math.ceil(seconds)))


def _go_on(run: DeliveryRun, version: str) -> Decision:
    form = run.form
    left = run.left(run.now)
    put_at = form.put_at or run.began.timestamp()
    state = "ready" if form.state == "delayed" and not left else form.state
    form = fitting(replace(form, state=state, delay=left if state == "delayed" else 0.0, put_at=put_at))
    return _decision("ContinueAsNewWorkflowExecution", workflowTypeVersion=version, **settings_of(form, version))


def _is_long(run: DeliveryRun) -> bool:
    return run.events >= MANY_EVENTS or run.age >= OLD


def _decision(kind: str, **attributes: Any) -> Decision:
    return {"decisionType": kind, f"{kind[0].lower()}{kind[1:]}DecisionAttributes": attributes}
