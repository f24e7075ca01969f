"""A story as events: a pure function, so tables of stories."""

from datetime import UTC, datetime, timedelta

import pytest

from glassq.delivery import Delivery, Evidence
from glassq.ledger import Entry
from glassq.operations.find import Found
from glassq.operations.story import Story
from glassq.operations.timeline import timeline
from glassq.queues.base import Job

AT = datetime(2026, 11, 29, 3, 2, 11, tzinfo=UTC)


def _failed(attempt, after, *, took=2.0, outcome="retry", error="HttpError", **more):
    """An attempt that ended so many seconds after the ping came."""
    fields = {"message": "503", "host": "host-a", **more}
    return Evidence(
        attempt=attempt, outcome=outcome, error=error, at=AT + timedelta(seconds=after), duration=took, **fields
    )


def _story(*evidence, state="buried", entry=None, damage="", kicked=False, time_left=0.0):
    delivery = Delivery(
        id="01a20a85-49fd-788a-b96a-165e85c0ee6b",
        source="mirror",
        received=AT,
        body=b"{}",
        evidence=evidence,
        buried="gave up" if state == "buried" else "",
    )
    job = Job(ref="7", tube="glassq", state=state, body=b"", age=9.0, time_left=time_left, kicked=kicked)
    return Story(Found(job, None if damage else delivery, damage), entry, "")


def _left(state, **more):
    fields = {"attempts": 2, "duration": 1.5, "updated": AT + timedelta(seconds=90), **more}
    return Story(None, Entry(delivery="01a20a85", source="mirror", received=AT, state=state, **fields), "")


def _kinds(story):
    return [event.kind for event in timeline(story)]


def test_attempts_and_waits_stand_in_their_order_with_what_lies_between():
    events = timeline(_story(_failed(1, 2.5), _failed(2, 34.5, outcome="bury")))
    assert [(event.kind, event.words) for event in events] == [
        ("received", "received, and on disk before the answer"),
        ("waited", "waited 0.5s"),
        ("attempt", "attempt 1"),
        ("waited", "waited 30s"),
        ("attempt", "attempt 2"),
        ("now", "buried: it waits for you"),
    ]
    first = events[2]
    assert (first.at, first.seconds, first.error, first.message, first.host) == (
        AT + timedelta(seconds=0.5),
        2.0,
        "HttpError",
        "503",
        "host-a",
    )
    assert [event.level for event in events if event.kind == "attempt"] == ["note", "wrong"]


def test_an_attempt_that_began_at_once_waited_for_nothing():
    assert _kinds(_story(_failed(1, 2.0))) == ["received", "attempt", "now"]


@pytest.mark.parametrize(
    ("numbers", "said"),
    [
        ((1, 2), []),
        ((1, 3), ["attempt 2: no evidence is kept"]),
        ((4, 9), ["attempts 1 to 3: no evidence is kept", "attempts 5 to 8: no evidence is kept"]),
    ],
)
def test_attempts_without_evidence_are_said_to_be_missing(numbers, said):
    events = timeline(_story(*(_failed(number, 10.0 * number) for number in numbers)))
    assert [event.words.partition(" (")[0] for event in events if event.kind == "missing"] == said


@pytest.mark.parametrize(
    ("story", "words"),
    [
        (_story(state="ready"), "waits to be worked"),
        (_story(state="ready", kicked=True), "waits to be worked, kicked: its budget is fresh"),
        (_story(state="delayed", time_left=30.0), "the next attempt is due in 30s"),
        (_story(state="delayed"), "the next attempt is due in 0s"),
        (_story(state="reserved", time_left=9.0), "is being worked; its lease ends in 9s"),
        (_story(damage="checksum"), "damaged: checksum"),
        (_left("done"), "attempt 2: done"),
        (_left("dropped", reason="of no use"), "it is dropped"),
    ],
)
def test_the_last_event_says_where_it_is(story, words):
    assert timeline(story)[-1].words == words


def test_what_an_operator_did_is_no_attempt():
    aside = _failed(1, 5.0, took=0.0, outcome="bury", error="operator", message="put aside by anna")
    events = timeline(_story(aside))
    assert [(event.kind, event.words) for event in events][2:] == [
        ("aside", "put aside by anna"),
        ("now", "buried: it waits for you"),
    ]


def test_an_attempt_that_a_signal_ended_names_it():
    [event] = [each for each in timeline(_story(_failed(1, 3.0, outcome="lost", signal="SIGKILL"))) if each.error]
    assert (event.error, event.level) == ("signal SIGKILL", "wrong")


def test_a_done_attempt_began_when_the_ledger_says_or_its_duration_before():
    assert timeline(_left("done"))[-1].at == AT + timedelta(seconds=88.5)
    started = AT + timedelta(seconds=80)
    assert timeline(_left("done", started=started))[-1].at == started


def test_a_damaged_job_has_no_time():
    first = timeline(_story(damage="checksum"))[0]
    assert (first.kind, first.at) == ("received", None)
