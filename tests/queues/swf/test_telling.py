"""What a history says in words."""

from __future__ import annotations

from msgspec.structs import replace

from glassq.queues.swf.telling import in_words
from tests.queues.swf.test_decider import (
    BEGUN,
    DECIDED,
    DELAYED,
    FIRED,
    FORM,
    LATER,
    RENEWS,
    SCHEDULED,
    after,
    as_it_is,
    change,
    failed,
)


def words(*steps: object, **more: object) -> list[str]:
    return [each.words for each in in_words(after(*steps, **more))]  # type: ignore[arg-type]


def test_each_event_that_says_something_has_words_and_the_others_have_none() -> None:
    timer = ("TimerStarted", 1.0, {"timerId": "due-1", "startToFireTimeout": "90"})
    assert words(DECIDED, timer, FIRED, SCHEDULED, BEGUN, ("ActivityTaskCompleted", 99.0, {}), form=DELAYED) == [
        "put: in pings, after 90 s", "waits for 90 s", "is due", "attempt 1 may begin", "taken by a worker", "done",
    ]  # fmt: skip
    assert words(
        failed("retry", LATER),
        failed("bury"),
        failed("release"),
        failed("died"),
        ("ActivityTaskTimedOut", 9.0, {"timeoutType": "HEARTBEAT"}),
        ("ScheduleActivityTaskFailed", 9.0, {"cause": "ACTIVITY_CREATION_RATE_EXCEEDED"}),
        ("WorkflowExecutionTerminated", 9.0, {"reason": "deleted by an operator"}),
    )[1:] == [
        "the attempt ended: again in pings, after 100 s",
        "the attempt ended: to be buried",
        "given back, no attempt is counted",
        "the attempt was lost with its process, and given back by the pool",
        "the attempt was lost: no sign of life (HEARTBEAT)",
        "the service refused the next attempt (ACTIVITY_CREATION_RATE_EXCEEDED): it is decided again",
        "ended: deleted by an operator",
    ]


def test_a_new_run_says_why_there_is_one() -> None:
    assert words(RENEWS, as_it_is(1, "ready"), change(2, LATER), form=replace(FORM, state="buried")) == [
        "put: buried in pings", "an operator: ready, in pings", "an operator: delayed, after 100 s, in pings",
    ]  # fmt: skip
    events = after(form=replace(FORM, kicked=True))
    events[0]["workflowExecutionStartedEventAttributes"]["continuedExecutionRunId"] = "the one before"
    assert [each.words for each in in_words(events)] == ["a new run: in pings, with a fresh budget"]
