"""What is decided after each history: a table. Decisions are pure, so no service is needed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace

from glassq.queues.swf.decider import FIRST, MANY_EVENTS, OLD, VERSION, decide
from glassq.queues.swf.forms import MAX_TEXT, SwfForm, read_form, written
from glassq.queues.swf.history import read_history
from glassq.queues.swf.names import tags_of
from glassq.queues.swf.versions import DECIDERS, NEWEST

if TYPE_CHECKING:
    from glassq.queues.base import WaitingState

START = datetime(2026, 11, 29, tzinfo=UTC)
FORM = SwfForm("pings", lease=60, text="body")
NEXT = replace(FORM, text="next form")

Step = tuple[str, float, dict[str, Any]]


def after(*steps: Step, form: SwfForm = FORM, tags: list[str] | None = None) -> list[dict[str, Any]]:
    """A history: the start of a run, then each event so many seconds after it."""
    own = tags_of(form.tube, buried=form.state == "buried")
    start = {"input": written(form), "tagList": own if tags is None else tags}
    events: list[dict[str, Any]] = []
    for kind, at, attributes in (("WorkflowExecutionStarted", 0.0, start), *steps):
        key = f"{kind[0].lower()}{kind[1:]}EventAttributes"
        when = START + timedelta(seconds=at)
        events.append({"eventId": len(events) + 1, "eventType": kind, "eventTimestamp": when, key: attributes})
    return events


def said(decisions: list[dict[str, Any]]) -> list[str]:
    """Decisions in short."""
    return [_said(each) for each in decisions]


def _said(decision: dict[str, Any]) -> str:
    kind = decision["decisionType"]
    found = decision[f"{kind[0].lower()}{kind[1:]}DecisionAttributes"]
    if kind == "ScheduleActivityTask":
        form = read_form(found["input"], "")
        return f"schedule {found['activityId']} at {found['taskList']['name']}: {form.text}, losses {form.losses}"
    if kind == "StartTimer":
        return f"timer {found['timerId']} {found['startToFireTimeout']} s"
    if kind == "ContinueAsNewWorkflowExecution":
        form = read_form(found["input"], "")
        return f"anew {' '.join(found['tagList'])}: {form.state}, {form.text}, after {form.delay:g} s"
    return "close" if kind == "CompleteWorkflowExecution" else kind


def failed(reason: str, form: SwfForm | None = None, at: float = 10.0) -> Step:
    details = {} if form is None else {"details": written(form)}
    return ("ActivityTaskFailed", at, {"reason": reason, **details, "scheduledEventId": 3, "startedEventId": 4})


def change(seen: int, form: SwfForm = NEXT, at: float = 10.0) -> Step:
    return ("WorkflowExecutionSignaled", at, {"signalName": "change", "input": written(replace(form, seen=seen))})


def as_it_is(seen: int, state: WaitingState, at: float = 10.0) -> Step:
    form = replace(FORM, seen=seen, state=state, text="")
    return ("WorkflowExecutionSignaled", at, {"signalName": "state", "input": written(form)})


DECIDED: Step = ("DecisionTaskCompleted", 1.0, {})
SCHEDULED: Step = ("ActivityTaskScheduled", 1.0, {"activityId": "attempt-1"})
BEGUN: Step = ("ActivityTaskStarted", 2.0, {"scheduledEventId": 3})
WORKED = (DECIDED, SCHEDULED, BEGUN)
DELAYED = replace(FORM, state="delayed", delay=90.0)
LATER = replace(NEXT, state="delayed", delay=100.0)
BURIED = replace(FORM, state="buried")
TIMER: Step = ("TimerStarted", 1.0, {"timerId": "due-1"})
FIRED: Step = ("TimerFired", 91.0, {"timerId": "due-1"})
RENEWS: Step = ("TimerStarted", 1.0, {"timerId": "renewal"})
UNTAKEN: Step = ("ActivityTaskTimedOut", OLD, {"timeoutType": "SCHEDULE_TO_START", "scheduledEventId": 3})
PARKED = replace(FORM, tube="pings.parked")
LONG = [("MarkerRecorded", 1.0, {})] * MANY_EVENTS

CASES: dict[str, tuple[list[dict[str, Any]], list[str]]] = {
    "it begins": (after(), ["schedule attempt-1 at pings: body, losses 0"]),
    "a decision was lost": (
        after(("DecisionTaskStarted", 1, {}), ("DecisionTaskTimedOut", 31, {})),
        ["schedule attempt-1 at pings: body, losses 0"],
    ),
    "too many tasks came": (
        after(DECIDED, ("ScheduleActivityTaskFailed", 1, {"cause": "ACTIVITY_CREATION_RATE_EXCEEDED"})),
        ["schedule attempt-1 at pings: body, losses 0"],
    ),
    "it waits for a worker": (after(DECIDED, SCHEDULED), []),
    "nobody took it for half a year": (
        after(DECIDED, SCHEDULED, UNTAKEN),
        ["anew tube:pings: ready, body, after 0 s"],
    ),
    "nor what an operator had changed": (
        after(DECIDED, SCHEDULED, change(1), UNTAKEN),
        ["anew tube:pings: ready, next form, after 0 s"],
    ),
    "nor what was parked": (
        after(DECIDED, SCHEDULED, UNTAKEN, form=PARKED),
        ["anew tube:pings.parked: ready, body, after 0 s"],
    ),
    "it could not be renewed": (
        after(DECIDED, SCHEDULED, UNTAKEN, ("ContinueAsNewWorkflowExecutionFailed", OLD, {"cause": "RATE_EXCEEDED"})),
        ["anew tube:pings: ready, body, after 0 s"],
    ),
    "it was renewed": (
        after(form=replace(FORM, losses=2, put_at=START.timestamp() - OLD)),
        ["schedule attempt-1 at pings: body, losses 2"],
    ),
    "it was delayed for half a year": (
        after(DECIDED, TIMER, ("TimerFired", OLD, {"timerId": "due-1"}), form=replace(DELAYED, delay=OLD)),
        ["anew tube:pings: ready, body, after 0 s"],
    ),
    "it was tried for half a year": (
        after(DECIDED, SCHEDULED, BEGUN, failed("retry", LATER, at=OLD)),
        ["anew tube:pings: delayed, next form, after 100 s"],
    ),
    "it is worked": (after(*WORKED), []),
    "it is done": (after(*WORKED, ("ActivityTaskCompleted", 9, {})), ["close"]),
    "it could not be closed": (
        after(*WORKED, ("ActivityTaskCompleted", 9, {}), ("CompleteWorkflowExecutionFailed", 9, {})),
        ["close"],
    ),
    "it is given back": (after(*WORKED, failed("release")), ["schedule attempt-2 at pings: body, losses 0"]),
    "its process died": (after(*WORKED, failed("died")), ["schedule attempt-2 at pings: body, losses 1"]),
    "another program failed it": (after(*WORKED, failed("?")), ["schedule attempt-2 at pings: body, losses 1"]),
    "its lease ended": (
        after(*WORKED, ("ActivityTaskTimedOut", 70, {"timeoutType": "HEARTBEAT"})),
        ["schedule attempt-2 at pings: body, losses 1"],
    ),
    "again at once": (after(*WORKED, failed("retry", NEXT)), ["schedule attempt-2 at pings: next form, losses 0"]),
    "again later": (
        after(*WORKED, failed("retry", replace(NEXT, state="delayed", delay=7.2))),
        ["timer due-1 8 s"],
    ),
    "again in another tube": (
        after(*WORKED, failed("retry", replace(NEXT, tube="slow"))),
        ["anew tube:slow: ready, next form, after 0 s"],
    ),
    "buried": (
        after(*WORKED, failed("bury", NEXT)),
        ["anew tube:pings buried buried:pings: buried, next form, after 0 s"],
    ),
    "buried as it is": (
        after(*WORKED, failed("bury")),
        ["anew tube:pings buried buried:pings: buried, body, after 0 s"],
    ),
    "delayed from the start": (after(form=DELAYED), ["timer due-1 90 s"]),
    "the decision about a delay came late": (
        after(("DecisionTaskStarted", 40, {}), form=DELAYED),
        ["timer due-1 50 s"],
    ),
    "or after it": (
        after(("DecisionTaskStarted", 95, {}), form=DELAYED),
        ["schedule attempt-1 at pings: body, losses 0"],
    ),
    "too many timers came": (
        after(DECIDED, ("StartTimerFailed", 1, {"cause": "TIMER_CREATION_RATE_EXCEEDED"}), form=DELAYED),
        ["timer due-1 89 s"],
    ),
    "its timer runs": (after(DECIDED, TIMER, form=DELAYED), []),
    "it is due": (after(DECIDED, TIMER, FIRED, form=DELAYED), ["schedule attempt-1 at pings: body, losses 0"]),
    "an old timer fired": (after(DECIDED, SCHEDULED, FIRED), []),
    "buried from the start": (after(form=BURIED), [f"timer renewal {OLD} s"]),
    "it waits for an operator": (after(DECIDED, RENEWS, form=BURIED), []),
    "its run is old": (
        after(DECIDED, RENEWS, ("TimerFired", OLD, {"timerId": "renewal"}), form=BURIED),
        ["anew tube:pings buried buried:pings: buried, body, after 0 s"],
    ),
    "kicked": (
        after(DECIDED, RENEWS, change(1), form=BURIED),
        ["anew tube:pings: ready, next form, after 0 s"],
    ),
    "kicked as it is": (
        after(DECIDED, RENEWS, as_it_is(1, "ready"), form=BURIED),
        ["anew tube:pings: ready, body, after 0 s"],
    ),
    "kicked twice": (
        after(DECIDED, RENEWS, change(1), change(1, replace(NEXT, text="too late")), form=BURIED),
        ["anew tube:pings: ready, next form, after 0 s"],
    ),
    "delayed by an operator": (
        after(DECIDED, SCHEDULED, change(1, LATER), ("DecisionTaskStarted", 40, {})),
        ["anew tube:pings: delayed, next form, after 70 s"],
    ),
    "changed while it was worked": (after(*WORKED, change(1)), []),
    "a change of what it is not any more": (
        after(*WORKED, failed("retry", NEXT), change(1, replace(NEXT, text="too late"))),
        ["schedule attempt-2 at pings: next form, losses 0"],
    ),
    "a worker took what an operator had changed": (
        after(DECIDED, SCHEDULED, change(1), BEGUN, failed("retry", replace(NEXT, text="of the old form"))),
        ["anew tube:pings: ready, next form, after 0 s"],
    ),
    "and did not come back": (
        after(DECIDED, SCHEDULED, change(1), BEGUN, ("ActivityTaskTimedOut", 70, {"timeoutType": "HEARTBEAT"})),
        ["anew tube:pings: ready, next form, after 0 s"],
    ),
    "and works it still": (after(DECIDED, SCHEDULED, change(1), BEGUN), []),
    "and works it, while it was changed once more": (after(DECIDED, SCHEDULED, change(1), BEGUN, change(5)), []),
    "and gave it back": (
        after(DECIDED, SCHEDULED, change(1), BEGUN, ("ActivityTaskCanceled", 9, {})),
        ["anew tube:pings: ready, next form, after 0 s"],
    ),
    "and did it": (after(DECIDED, SCHEDULED, change(1), BEGUN, ("ActivityTaskCompleted", 9, {})), ["close"]),
    "changed while a decision was made": (
        after(change(1), DECIDED, SCHEDULED),
        ["anew tube:pings: ready, next form, after 0 s"],
    ),
    "or one about a delay": (
        after(change(1), DECIDED, TIMER, form=DELAYED),
        ["anew tube:pings: ready, next form, after 0 s"],
    ),
    "a signal of somebody else": (after(DECIDED, SCHEDULED, ("WorkflowExecutionSignaled", 9, {"signalName": "?"})), []),
    "its run is long": (
        after(*LONG, *WORKED, failed("retry", NEXT)),
        ["anew tube:pings: ready, next form, after 0 s"],
    ),
    "it could not go on": (
        after(*WORKED, failed("bury"), ("ContinueAsNewWorkflowExecutionFailed", 11, {"cause": "UNHANDLED_DECISION"})),
        ["anew tube:pings buried buried:pings: buried, body, after 0 s"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_after_each_history_the_same_is_decided(case: str) -> None:
    events, expected = CASES[case]
    assert said(decide(events)) == expected


@pytest.mark.parametrize(
    ("version", "steps", "within"),
    [
        (VERSION, (), str(OLD)),
        # a run is renewed at this age, whatever has happened in it
        (VERSION, (*WORKED, failed("retry", NEXT, at=1000.0)), str(OLD - 1000)),
        (FIRST, (), "NONE"),
    ],
)
def test_what_nobody_takes_wakes_a_decider_in_time(version: str, steps: tuple[Step, ...], within: str) -> None:
    [decision] = decide(after(*steps), version)
    assert decision["scheduleActivityTaskDecisionAttributes"]["scheduleToStartTimeout"] == within


def test_a_run_of_the_version_before_is_decided_by_its_rules_and_goes_on_as_one_of_the_newest() -> None:
    assert set(DECIDERS) == {FIRST, VERSION} == {"1", NEWEST}
    for case, (events, expected) in CASES.items():
        assert said(DECIDERS[FIRST](events)) == expected, case
    buried = after(*WORKED, failed("bury"))
    assert version_of(DECIDERS[FIRST](buried)) == (NEWEST, f"glassq-decisions-{NEWEST}")
    # nobody has made the new type yet: it would fail for ever
    missing = ("ContinueAsNewWorkflowExecutionFailed", 11.0, {"cause": "WORKFLOW_TYPE_DOES_NOT_EXIST"})
    refused = after(*WORKED, failed("bury"), missing)
    assert version_of(DECIDERS[FIRST](refused)) == (FIRST, f"glassq-decisions-{FIRST}")


def version_of(decisions: list[dict[str, Any]]) -> tuple[str, str]:
    [decision] = decisions
    found = decision["continueAsNewWorkflowExecutionDecisionAttributes"]
    return found["workflowTypeVersion"], found["taskList"]["name"]


def test_what_nobody_of_ours_started_is_buried_for_an_operator() -> None:
    foreign = after(tags=[])
    foreign[0]["workflowExecutionStartedEventAttributes"] = {"input": "a body"}
    found = read_history(foreign)
    assert (found.state, found.form.text) == ("buried", "a body")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a body",
        "x" * MAX_TEXT,
        "\ud800",
        '{"tube":"pings","a":' + "[" * 16_000 + "]" * 16_000 + "}\n",
        '{"tube":""}\nbody',
        '{"tube":"a b\\n"}\nbody',
        '{"tube":"pings","state":"delayed","delay":1e308}\nbody',
        '{"tube":"pings","lease":0}\nbody',
        '{"tube":"pings","losses":-1}\nbody',
        '{"tube":"pings","losses":1' + "0" * 40 + "}\nbody",
        '{"tube":"pings","put_at":1e300}\nbody',
    ],
)
def test_whatever_another_program_starts_lies_where_operators_find_it(text: str) -> None:
    foreign = after(tags=["tube:pings"])
    foreign[0]["workflowExecutionStartedEventAttributes"]["input"] = text
    [decision] = decide(foreign)
    found = decision["continueAsNewWorkflowExecutionDecisionAttributes"]
    assert found["tagList"] == tags_of("pings", buried=True)
    # more, the service does not take: it would be decided for ever
    assert len(found["input"]) <= MAX_TEXT
    form = read_form(found["input"], "")
    assert (form.state, form.tube) == ("buried", "pings")
    assert text.startswith(form.text)


def test_a_signal_of_nonsense_changes_nothing() -> None:
    for text in ("", "nonsense", '{"tube":"","seen":1}\n', '{"tube":"pings","state":"ready","seen":1e9}\n'):
        for name in ("change", "state"):
            signal = ("WorkflowExecutionSignaled", 9.0, {"signalName": name, "input": text})
            assert decide(after(DECIDED, RENEWS, signal, form=BURIED)) == []


@pytest.mark.parametrize(
    ("events", "settled"),
    [
        (after(change(1)), True),
        (after(("DecisionTaskStarted", 1, {}), change(1)), False),
        (after(("DecisionTaskStarted", 1, {}), change(1), DECIDED, SCHEDULED), False),
        (after(("DecisionTaskStarted", 1, {}), change(1), ("DecisionTaskTimedOut", 31, {})), True),
        (after(DECIDED, SCHEDULED, change(1)), False),
        (after(DECIDED, SCHEDULED, change(1), BEGUN), False),
        (after(DECIDED, SCHEDULED, change(1), BEGUN, failed("died")), True),
        (after(DECIDED, TIMER, change(1), form=DELAYED), True),
        (after(DECIDED, SCHEDULED), False),
    ],
)
def test_a_change_is_settled_once_no_worker_can_come_between(events: list[dict[str, Any]], settled: bool) -> None:
    assert read_history(events).is_settled is settled
