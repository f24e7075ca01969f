"""What makes two failures one cause, and what keeps them apart."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from glassq import delivery as envelope
from glassq.causes import Cause, cause_of, fold, last_frame
from glassq.delivery import Delivery, Evidence
from glassq.operations.groups import group, summary

NOW = datetime(2026, 11, 28, tzinfo=UTC)
HOUR_AGO = NOW - timedelta(hours=1)
TRACEBACK = """Traceback (most recent call last):
  File "/opt/glassq/lib/python3.11/site-packages/glassq/routes.py", line 91, in work
    return finished(self.handler(_copy(delivery), context))
  File "{file}", line {line}, in store
    raise ValueError(item)
ValueError: no such item
"""

ONE_CAUSE = [
    ["no such item 0198c2a4-7d10-7000-8000-0123456789ab", "no such item 01a20a85-49fd-788a-b96a-165e85c0ee6b"],
    ["no such item 4711", "no such item 12"],
    ["row 0x7f3a99 is locked", "row 0x7f3a9a12 is locked"],
    ["etag deadbeef differs", "etag cafebabe differs", "etag 12ab differs"],
    ["KeyError: 'itemId'", "KeyError: 'userToken'"],
    ['returned "Backend Error"', 'returned "Rate Limit Exceeded"'],
    ["https://mirror.test/v1/timeline/ab answered 503", "https://mirror.test/v1/timeline/cd?x=y answered 503"],
    ["took 1.5 s", "took 12 s", "took 0.25 s"],
    ["timed out after 10s", "timed out after 2.5s"],
    ["no credentials for user anna: add them", "no credentials for user otto: add them"],
    ["user=anna is unknown", "user=otto is unknown"],
    ["mail to anna@mail.example bounced", "mail to otto.b+x@example.org bounced"],
    ["cannot write /var/lib/glassq/photos/anna/a.jpg: full", "cannot write /var/lib/glassq/photos/otto/b.jpg: full"],
    ["task order-17-paid failed", "task order-18-paid failed"],
    ["at 2026-11-28T08:22:33Z it stopped", "at 2026-01-02T00:00:00.123Z it stopped"],
    ["a\n  b", "a b"],
]
APART = [
    ["answered 503 Service Unavailable", "answered 404 Not Found", "answered 500 Internal Server Error"],
    ["503 from the API", "404 from the API"],
    ["<HttpError 403 when requesting https://a.test/x>", "<HttpError 404 when requesting https://a.test/x>"],
    ["HttpError: 503", "HttpError: 500"],
    ["[Errno 111] Connection refused", "[Errno 113] Connection refused"],
    ["its process ended: exit 7", "its process ended: exit 1"],
    ["killed by SIGKILL", "killed by SIGSEGV"],
    ["https://a.test/x cannot be reached", "https://b.test/x cannot be reached"],
    ["user unknown", "user revoked"],
    ["can't open 'x'", "can't close 'x'"],
    ["cannot write /var/lib/a/b: full", "cannot write /etc/glassq/a/b: full"],
    ["no such item 4711", "no such user 4711"],
]


@pytest.mark.parametrize("messages", ONE_CAUSE)
def test_what_differs_from_delivery_to_delivery_is_left_out(messages: list[str]) -> None:
    assert len({fold(message) for message in messages}) == 1


@pytest.mark.parametrize("messages", APART)
def test_different_causes_stay_apart(messages: list[str]) -> None:
    assert len({fold(message) for message in messages}) == len(messages)


@pytest.mark.parametrize(
    ("message", "folded"),
    [
        ("", ""),
        ("no route takes it", "no route takes it"),
        (
            '<HttpError 503 when requesting https://a.test/v1?alt=json returned "Backend Error">',
            "<HttpError 503 when requesting https://a.test/… returned …>",
        ),
        ("user anna took it back", "user anna took it back"),
        ("503 Service Unavailable after 3 tries", "503 Service Unavailable after … tries"),
        ("took 503 ms", "took … ms"),
        ("don't 'do' that", "don't … that"),
        ("x" * 1000, "x" * 200),
        ("'" * 5_000, None),
        ("/a" * 5_000, None),
        ("1." * 5_000, None),
        ("a@" * 5_000, None),
    ],
)
def test_a_folded_message_is_short_and_reads_as_one(message: str, folded: str | None) -> None:
    assert len(fold(message)) <= 200
    assert folded is None or fold(message) == folded


def test_a_user_whom_the_body_names_is_left_out_wherever_he_stands() -> None:
    def cause(user: str, said: str = "took the consent back") -> str:
        body = msgspec.json.encode({"userToken": user, "itemId": f"{user}-1", "collection": "timeline"})
        return cause_of(failed(f"user {user} {said}: timeline item {user}-1", body=body)).id

    assert cause("anna") == cause("otto") != cause("otto", "is unknown")


@pytest.mark.parametrize(
    "body", [b"", b"{", b'{"userToken":1}', b'{"userToken":""}', b"[]", b'{"a":' * 5_000, b'{"\xff']
)
def test_a_body_that_names_nobody_changes_nothing(body: bytes) -> None:
    assert cause_of(failed("user is unknown", body=body)) == cause_of(failed("user is unknown", body=b"x"))


def test_the_last_frame_has_neither_directory_nor_line() -> None:
    here = TRACEBACK.format(file="/opt/app/photos.py", line=17)
    there = TRACEBACK.format(file="/home/anna/app/photos.py", line=18)
    assert last_frame(here) == last_frame(there) == "photos.py:store"
    assert last_frame(TRACEBACK.format(file="C:\\app\\photos.py", line=18)) == "photos.py:store"
    assert last_frame("") == last_frame("ValueError: x") == ""


def failed(message: str = "no such item 1", **fields: object) -> Delivery:
    own = {"error", "traceback", "outcome"}
    evidence = Evidence(
        attempt=1,
        message=message,
        at=NOW,
        duration=1.0,
        host="a",
        **{"error": "ValueError", "outcome": "bury", **{name: value for name, value in fields.items() if name in own}},  # type: ignore[arg-type]
    )
    made = envelope.new("mirror", b"{}", {"collection": "timeline"})
    changes = {name: value for name, value in fields.items() if name not in own}
    return msgspec.structs.replace(made, buried=message, evidence=(evidence,), **changes)


def test_one_cause_is_one_whatever_host_attempt_and_time_say() -> None:
    first = failed("ValueError: no such item 1", traceback=TRACEBACK.format(file="/opt/a/photos.py", line=1))
    evidence = msgspec.structs.replace(
        first.evidence[0],
        attempt=8,
        host="b",
        at=NOW + timedelta(days=1),
        message="ValueError: no such item 2",
        traceback=TRACEBACK.format(file="/srv/a/photos.py", line=2),
    )
    second = msgspec.structs.replace(
        first,
        id=envelope.new_id(),
        attempt=8,
        buried="ValueError: no such item 2 (gave up after 8 attempts)",
        evidence=(*first.evidence, evidence),
        labels={"collection": "locations"},
    )
    assert cause_of(first) == cause_of(second)
    assert cause_of(first).words == "ValueError: no such item … in photos.py:store"


def test_source_push_queue_type_message_and_frame_make_a_cause() -> None:
    causes = [
        failed(),
        failed(source="push", labels={"queue": "mail"}),
        failed(source="push", labels={"queue": "photos"}),
        failed(error="KeyError"),
        failed("no such user 1"),
        failed(traceback=TRACEBACK.format(file="photos.py", line=1)),
        failed(traceback=TRACEBACK.format(file="videos.py", line=1)),
    ]
    assert len({cause_of(delivery).id for delivery in causes}) == len(causes)


def test_where_the_deadline_fell_and_what_killed_a_process_is_no_part_of_the_cause() -> None:
    for fields in ({"error": "DeadlineExceeded"}, {"outcome": "lost"}):
        one = failed(traceback=TRACEBACK.format(file="photos.py", line=1), **fields)
        other = failed(traceback=TRACEBACK.format(file="videos.py", line=1), **fields)
        assert cause_of(one) == cause_of(other)


def test_without_evidence_the_reason_tells_and_without_a_delivery_the_damage() -> None:
    def bare(reason: str) -> Cause:
        return cause_of(msgspec.structs.replace(failed(), buried=reason, evidence=()))

    assert bare("no route (gave up after 8 attempts)") == bare("no route (gave up after 1 attempt)")
    assert bare("no route") != bare("no handler")
    assert cause_of(None, "checksum is wrong: 12 bytes") == cause_of(None, "checksum is wrong: 13 bytes")
    assert cause_of(None, "checksum is wrong: 12 bytes") != cause_of(None, "has no header line")


def test_an_id_is_the_same_in_every_process() -> None:
    cause = cause_of(failed("item \udcff é 7"))
    parts = (cause.origin, cause.error, cause.message, cause.frame)
    code = f"from glassq.causes import Cause; print(Cause{parts!r}.id)"
    ids = {
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
        for _ in range(2)
    }
    assert ids == {cause.id}
    assert len(cause.id) == 12


@dataclass
class Job:
    """What is put into groups."""

    delivery: Delivery | None
    ref: str = "7"
    handler: str = ""
    at: datetime | None = NOW
    source: str = "mirror"
    damage: str = ""
    name: str = field(init=False)

    def __post_init__(self) -> None:
        self.name = self.delivery.id if self.delivery else ""

    @property
    def failed_at(self) -> datetime | None:
        return self.at

    @property
    def cause(self) -> Cause:
        return cause_of(self.delivery, self.damage)


def test_groups_count_and_name_first_last_and_one_example() -> None:
    later, sooner = NOW + timedelta(hours=1), NOW - timedelta(hours=1)
    jobs = [
        Job(failed("no such item 1")),
        Job(None, damage="has no header line", ref="9", at=None),
        Job(failed("no such item 2"), at=later),
        Job(failed("no such item 3"), at=sooner),
        Job(failed("no such user 3")),
    ]
    largest, *others = group(jobs, "reason", NOW, HOUR_AGO)
    assert (largest.count, largest.first, largest.last) == (3, sooner, later)
    assert largest.words == "ValueError: no such item …"
    assert largest.example == jobs[0].name
    assert largest.condition == f"cause={largest.id}"
    assert {(each.count, each.example) for each in others} == {(1, "9"), (1, jobs[4].name)}
    assert [(each.first, each.last) for each in others if each.example == "9"] == [(None, None)]
    assert group([], "reason", NOW, HOUR_AGO) == []


def test_groups_that_are_new_come_first() -> None:
    old = [Job(failed("no such item 1"), at=NOW - timedelta(hours=hours)) for hours in (30, 5, 5)]
    young = [Job(failed("no such user 1"), at=NOW - timedelta(minutes=minutes)) for minutes in (59, 1)]
    # the clock of another host is ahead
    young.append(Job(failed("no such user 1"), at=NOW + timedelta(minutes=2)))
    first, second = group([*old, *young[:1]], "reason", NOW, HOUR_AGO)
    assert (first.new, first.count, second.new, second.count) == (True, 1, False, 3)
    assert (second.trend[-6], sum(second.trend)) == (2, 2)
    assert group(young, "reason", NOW, HOUR_AGO)[0].trend[-1] == 3
    assert first.document()["trend"] == [0] * 23 + [1]
    assert "cause" not in first.document()


def test_groups_by_handler_and_source_are_named_by_these() -> None:
    jobs = [
        Job(failed(), handler="app:a"),
        Job(failed(), handler="app:b", source="push"),
        Job(failed(), handler="app:a"),
    ]
    assert [(each.id, each.count, each.condition) for each in group(jobs, "handler", NOW, HOUR_AGO)] == [
        ("app:a", 2, "handler=app:a"),
        ("app:b", 1, "handler=app:b"),
    ]
    assert [(each.id, each.count) for each in group(jobs, "source", NOW, HOUR_AGO)] == [("mirror", 2), ("push", 1)]


def test_a_status_points_to_the_causes_where_there_are_several() -> None:
    assert summary(0) is None
    assert summary(1) is None
    assert str(summary(12)) == "12 deliveries are buried; for their causes: `glassq buried --by reason`"
