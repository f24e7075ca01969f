"""Reads the history of a run: where its delivery is, and in which form. Pure: no call, no clock.

https://docs.aws.amazon.com/amazonswf/latest/apireference/API_HistoryEvent.html
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace as with_fields

from glassq.queues.swf.forms import SwfForm, read_form
from glassq.queues.swf.names import BURIED, tube_in

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from glassq.queues.base import State

    Attributes = Mapping[str, Any]

# Why an attempt failed, in the words of `reason`.
RETRY, BURY, RELEASE, DIED = "retry", "bury", "release", "died"
# An operator's signals: of a form with a new body or another tube, and of one that is as it was but for its state.
CHANGE, STATE = "change", "state"
# Why an activity has timed out that nobody took.
UNTAKEN = "SCHEDULE_TO_START"
# How the names of timers begin: one until a delivery is due, and one until its run must be renewed.
DUE_TIMER, RENEWAL = "due", "renewal"


class Phase(Enum):
    """Where a delivery is. What DUE, WAITS, ANEW and DONE need is a decision; the others need time, or somebody."""

    DUE = "its activity must be scheduled"
    WAITS = "its timer must be started"
    ANEW = "it must go on as a new run"
    DONE = "it must be closed"
    DELAYED = "its timer runs"
    READY = "its activity waits for somebody"
    RESERVED = "somebody works it"
    BURIED = "it waits for an operator"
    CLOSED = "the run is over"


# Phases in which an operator may change the form.
_FREE = frozenset({Phase.DUE, Phase.WAITS, Phase.ANEW, Phase.DELAYED, Phase.READY, Phase.BURIED})
_STATES: dict[Phase, State] = {
    Phase.DUE: "ready",
    Phase.READY: "ready",
    Phase.WAITS: "delayed",
    Phase.DELAYED: "delayed",
    Phase.RESERVED: "reserved",
    Phase.BURIED: "buried",
}


@dataclass(frozen=True, slots=True)
class DeliveryRun:
    """A run so far. `number` is that of the event that made the form what it is, `since` its time.

    `tube` is that of the run's tags. `timer` is the timer that runs until the delivery is due, `renews` whether the
    other one runs; `attempts` and `timers` are how many there were. `began` is when the run began, `now` the time of
    the last event, `events` how many there are, and `successor` the run after this one. `pending`: a worker took it
    after an operator had changed it, and before that was decided; the form is that of the operator. `offered`: an
    activity is scheduled that has not ended; `deciding`: somebody decides by a history that may lack the last events.
    `lacks_type`: it could not go on as a new run, as the type of that is not there.
    """

    phase: Phase
    form: SwfForm
    number: int
    since: datetime
    tube: str
    began: datetime
    now: datetime
    events: int = 1
    timer: str = ""
    renews: bool = False
    attempts: int = 0
    timers: int = 0
    successor: str = ""
    pending: bool = False
    offered: bool = False
    deciding: bool = False
    lacks_type: bool = False

    @property
    def state(self) -> State | None:
        """The job's state; None where there is no job any more."""
        return self.form.state if self.phase is Phase.ANEW else _STATES.get(self.phase)

    @property
    def age(self) -> float:
        """How long it has lived at its last event, in seconds."""
        return (self.now - self.began).total_seconds()

    @property
    def is_settled(self) -> bool:
        """Whether nothing comes between the delivery and what an operator made of it."""
        return self.phase is Phase.ANEW and not self.offered and not self.deciding

    @property
    def is_free(self) -> bool:
        """Whether an operator may change it."""
        return self.phase in _FREE

    def left(self, now: datetime) -> float:
        """How long it is delayed still, in seconds."""
        return max(0.0, self.form.delay - (now - self.since).total_seconds())


def read_history(events: Sequence[Mapping[str, Any]]) -> DeliveryRun:
    """Reads all events of a run, as botocore gives them."""
    run = _begun(events[0])
    for event in events[1:]:
        kind = event["eventType"]
        offered, deciding = _OFFERED.get(kind, run.offered), _DECIDING.get(kind, run.deciding)
        run = replace(run, now=event["eventTimestamp"], events=run.events + 1, offered=offered, deciding=deciding)
        if act := _EVENTS.get(kind):
            run = act(run, event["eventId"], attributes_of(event))
    return run


def attributes_of(event: Mapping[str, Any]) -> Attributes:
    """What an event says beside its type and time."""
    kind = event["eventType"]
    found: Attributes = event.get(f"{kind[0].lower()}{kind[1:]}EventAttributes", {})
    return found


def _begun(event: Mapping[str, Any]) -> DeliveryRun:
    found, at = attributes_of(event), event["eventTimestamp"]
    tags = found.get("tagList", [])
    tube = tube_in(tags)
    form = read_form(found.get("input", ""), tube)
    phase = _rests(form)
    if form.state == "buried" and tube and BURIED not in tags:
        # another program started it: as a new run, whose tags say so, operators find it
        phase = Phase.ANEW
    if form.tube != tube:
        # another program started it so
        tube = form.tube
    return DeliveryRun(phase, form, event["eventId"], at, tube, at, at)


def _rests(form: SwfForm) -> Phase:
    """Where a delivery is whose run has just begun with this form."""
    return {"ready": Phase.DUE, "delayed": Phase.WAITS, "buried": Phase.BURIED}[form.state]


def _formed(run: DeliveryRun, number: int, form: SwfForm, *, anew: bool = False) -> DeliveryRun:
    """The delivery has this form from now on."""
    anew = anew or form.state == "buried" or form.tube != run.tube
    return replace(run, phase=Phase.ANEW if anew else _rests(form), form=form, number=number, since=run.now)


def _unless_anew(run: DeliveryRun, phase: Phase) -> Phase:
    """The phase that a decision leads to, unless an operator changed the delivery while it was made."""
    return run.phase if run.phase is Phase.ANEW else phase


def _scheduled(run: DeliveryRun, number: int, found: Attributes) -> DeliveryRun:
    return replace(run, phase=_unless_anew(run, Phase.READY), attempts=run.attempts + 1, timer="")


def _started(run: DeliveryRun, number: int, found: Attributes) -> DeliveryRun:
    if run.phase is Phase.ANEW:
        # as a new run it would be worked twice at once: it goes on so when this attempt has failed
        return replace(run, phase=Phase.RESERVED, pending=True)
    return replace(run, phase=Phase.RESERVED, since=run.now) if run.phase is Phase.READY else run


def _completed(run: DeliveryRun, number: int, found: Attributes) -> DeliveryRun:
    return replace(run, phase=Phase.DONE, number=number)


def _failed(run: DeliveryRun, number: int, found: Attributes) -> DeliveryRun:
    if run.pending:
        return _as_changed(run)
    if run.phase is not Phase.RESERVED:
        return run
    reason, details = found.get("reason", ""), found.get("details", "")
    old = with_fields(run.form, state="ready", delay=0.0)
    if details and reason in (RETRY, BURY):
        form = with_fields(read_form(details, run.tube), put_at=old.put_at)
        return _formed(run, number, with_fields(form, state="buried", delay=0.0) if reason == BURY else form)
    if reason == BURY:
        return _formed(run, number, with_fields(old, state="buried"))
    if reason == RELEASE:
        return _formed(run, number, old)
    return _lost(run, number, found)


def _as_changed(run: DeliveryRun) -> DeliveryRun:
    """An attempt has failed at what an operator had changed before its worker took it."""
    return replace(run, phase=Phase.ANEW, pending=False)


def _lost(run: DeliveryRun, number: int, found: Attributes) -> DeliveryRun:
    """An attempt died with its process."""
    if run.pending:
        return _as_changed(run)
    if run.phase is not Phase.RESERVED:
        return run
    form = with_fields(run.form, state="ready", delay=0.0, losses=run.form.losses + 1)
    return _formed(run, number, form)


def _timed_out(run: DeliveryRun, number: int, found: Attributes) -> DeliveryRun:
    """An attempt that somebody worked is lost; what nobody took may begin anew."""
    if found.get("timeoutType") == UNTAKEN and run.phase is Phase.READY:
        return replace(run, phase=Phase.DUE)
    return _lost(run, number, found)


def _canceled(run: DeliveryRun, number: int, found: Attributes) -> DeliveryRun:
    if run.pending:
        return _as_changed(run)
    return _formed(run, number, with_fields(run.form, state="ready", delay=0.0))


def _timer_started(run: DeliveryRun, number: int, found: Attributes) -> DeliveryRun:
    timer = found["timerId"]
    if timer.startswith(RENEWAL):
        return replace(run, renews=True)
    return replace(run, phase=_unless_anew(run, Phase.DELAYED), timer=timer, timers=run.timers + 1)


def _timer_fired(run: DeliveryRun, number: int, found: Attributes) -> DeliveryRun:
    if found["timerId"].startswith(RENEWAL):
        return replace(run, phase=Phase.ANEW, renews=False) if run.phase is Phase.BURIED else run
    if run.phase is not Phase.DELAYED or found["timerId"] != run.timer:
        return run
    form = with_fields(run.form, state="ready", delay=0.0)
    return replace(run, phase=Phase.DUE, form=form, number=number, since=run.now, timer="")


def _signaled(run: DeliveryRun, number: int, found: Attributes) -> DeliveryRun:
    if found.get("signalName") not in (CHANGE, STATE) or not run.is_free:
        return run
    form = read_form(found.get("input", ""), run.tube)
    # it is about a form that the delivery has no more
    if form.seen != run.number:
        return run
    if found["signalName"] == STATE:
        form = with_fields(form, text=run.form.text)
    return _formed(run, number, with_fields(form, seen=0), anew=True)


def _could_not_go_on(run: DeliveryRun, number: int, found: Attributes) -> DeliveryRun:
    return replace(run, lacks_type=found.get("cause", "").startswith("WORKFLOW_TYPE"))


def _closed(run: DeliveryRun, number: int, found: Attributes) -> DeliveryRun:
    return replace(run, phase=Phase.CLOSED, successor=found.get("newExecutionRunId", ""))


_EVENTS: dict[str, Callable[[DeliveryRun, int, Attributes], DeliveryRun]] = {
    "ActivityTaskScheduled": _scheduled,
    "ActivityTaskStarted": _started,
    "ActivityTaskCompleted": _completed,
    "ActivityTaskFailed": _failed,
    "ActivityTaskTimedOut": _timed_out,
    "ActivityTaskCanceled": _canceled,
    "TimerStarted": _timer_started,
    "TimerFired": _timer_fired,
    "WorkflowExecutionSignaled": _signaled,
    "ContinueAsNewWorkflowExecutionFailed": _could_not_go_on,
    "WorkflowExecutionCompleted": _closed,
    "WorkflowExecutionFailed": _closed,
    "WorkflowExecutionTimedOut": _closed,
    "WorkflowExecutionCanceled": _closed,
    "WorkflowExecutionTerminated": _closed,
    "WorkflowExecutionContinuedAsNew": _closed,
}
_OFFERED = {
    "ActivityTaskScheduled": True,
    "ActivityTaskCompleted": False,
    "ActivityTaskFailed": False,
    "ActivityTaskTimedOut": False,
    "ActivityTaskCanceled": False,
}
_DECIDING = {"DecisionTaskStarted": True, "DecisionTaskCompleted": False, "DecisionTaskTimedOut": False}
