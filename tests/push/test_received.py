"""A task as seen by the function that handles it."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

import glassq
from glassq import Bury
from glassq import delivery as envelope
from glassq.push.taskqueue import Task

if TYPE_CHECKING:
    from glassq.delivery import Delivery


def delivery_of(task: Task, queue: str = "default") -> Delivery:
    new = envelope.new("push", task.payload or b"", {})
    return msgspec.structs.replace(new, labels=task.request(queue, new.id).labels())


def test_a_task_is_seen_as_its_program_wrote_it() -> None:
    when = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)
    given = Task(b"\x00photo", url="/work", name="photo-17", headers={"X-Kind": "photo"}, eta=when)
    delivery = msgspec.structs.replace(delivery_of(given, "photos"), failures=2)
    task = glassq.task(delivery)
    assert (task.queue, task.name, task.method, task.url, task.path) == ("photos", "photo-17", "POST", "/work", "/work")
    assert (task.payload, task.headers, task.params) == (b"\x00photo", {"X-Kind": "photo"}, {})
    assert (task.headers["x-kind"], task.eta, task.retry_count) == ("photo", when, 2)


def test_a_task_that_was_not_named_and_has_no_time_has_those_of_its_delivery() -> None:
    delivery = delivery_of(Task(), "mail")
    task = glassq.task(delivery)
    assert (task.name, task.eta, task.url) == (delivery.id, delivery.received, "/_ah/queue/mail")


PARAMS = {"user": "ümit", "id": ["1", "2"], "empty": ""}


@pytest.mark.parametrize("method", ["POST", "PUT", "GET", "HEAD", "DELETE"])
def test_params_are_what_was_given_whichever_way_they_travel(method: str) -> None:
    given = Task(url="/work", method=method, params=PARAMS)
    task = glassq.task(delivery_of(given))
    assert task.params == given.extract_params() == PARAMS
    assert task.path == "/work"


def test_a_put_may_have_both_a_payload_and_params() -> None:
    task = glassq.task(delivery_of(Task(b"a=b", url="/work", method="PUT", params={"c": "d"})))
    assert (task.payload, task.params, task.url) == (b"a=b", {"c": "d"}, "/work?c=d")


@pytest.mark.parametrize(
    "headers", [{"Content-Type": "Application/X-WWW-Form-Urlencoded; charset=utf-8"}, {"content-type": "x/y"}]
)
def test_a_payload_holds_params_where_it_is_a_form(headers: dict[str, str]) -> None:
    task = glassq.task(delivery_of(Task(b"a=b&a=%FF", url="/work", headers=headers)))
    assert task.params == ({"a": ["b", "\ufffd"]} if "Application/X" in str(headers) else {})


def test_what_is_seen_cannot_be_changed() -> None:
    task = glassq.task(delivery_of(Task(params={"a": "b"})))
    with pytest.raises(FrozenInstanceError):
        task.url = "/other"  # type: ignore[misc]
    with pytest.raises(TypeError):
        task.params["a"] = "c"  # type: ignore[index]


@pytest.mark.parametrize(
    ("source", "labels", "says"),
    [
        ("mirror", {"collection": "timeline"}, 'not a task: its source is "mirror", not "push"'),
        ("push", {}, "not a task: "),
        ("push", {"queue": "q", "task": "t", "url": "/", "eta": "1e300"}, "not a task: "),
        ("push", {"queue": "q", "task": "t", "url": "/", "dispatch_deadline": "-1"}, "dispatch_deadline"),
        ("push", {"queue": "q", "task": "t", "url": "/", "dispatch_deadline": "nan"}, "dispatch_deadline"),
    ],
)
def test_what_is_no_task_is_buried(source: str, labels: dict[str, Any], says: str) -> None:
    with pytest.raises(Bury, match=says):
        glassq.task(envelope.new(source, b"", labels))
