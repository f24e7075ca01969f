"""Tasks and retry options: what App Engine takes, and what it refuses."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs

import pytest

from glassq.errors import GlassqError
from glassq.push import taskqueue
from glassq.push.request import from_labels
from glassq.push.rule import RetryParameters
from glassq.push.taskqueue import Task, TaskRetryOptions

BAD_TASKS: list[tuple[dict[str, Any], type[taskqueue.Error]]] = [
    ({"name": "a b"}, taskqueue.InvalidTaskNameError),
    ({"name": "a\n"}, taskqueue.InvalidTaskNameError),
    ({"name": "a" * 501}, taskqueue.InvalidTaskNameError),
    ({"name": "ä"}, taskqueue.InvalidTaskNameError),
    ({"name": 7}, taskqueue.InvalidTaskNameError),
    ({"url": "work"}, taskqueue.InvalidUrlError),
    ({"url": "http://elsewhere/work"}, taskqueue.InvalidUrlError),
    ({"url": "//elsewhere/work"}, taskqueue.InvalidUrlError),
    ({"url": "///work"}, taskqueue.InvalidUrlError),
    ({"url": "/\\elsewhere"}, taskqueue.InvalidUrlError),
    ({"url": "/work#there"}, taskqueue.InvalidUrlError),
    ({"url": "/work\r\nHost: elsewhere"}, taskqueue.InvalidUrlError),
    ({"url": "/" + "a" * 2083}, taskqueue.InvalidUrlError),
    ({"url": "/work", "method": "GET", "params": {"a": "b" * 2083}}, taskqueue.InvalidUrlError),
    ({"url": "/\udc80"}, taskqueue.InvalidUrlError),
    ({"url": "/a/../../b"}, taskqueue.InvalidUrlError),
    ({"url": "/a/%2e%2e/..;x/b", "method": "GET"}, taskqueue.InvalidUrlError),
    ({"params": {"a": "\udc80"}}, taskqueue.InvalidTaskError),
    ({"params": {"\udc80": "a"}, "method": "GET"}, taskqueue.InvalidTaskError),
    ({"url": "/work?a=b"}, taskqueue.InvalidTaskError),
    ({"url": "/work?a=b", "method": "GET", "params": {"c": "d"}}, taskqueue.InvalidTaskError),
    ({"payload": b"x", "params": {"a": "b"}}, taskqueue.InvalidTaskError),
    ({"payload": b"x", "method": "GET"}, taskqueue.InvalidTaskError),
    ({"payload": b"x", "method": "HEAD"}, taskqueue.InvalidTaskError),
    ({"payload": b"x", "method": "DELETE"}, taskqueue.InvalidTaskError),
    ({"payload": {"a": "b"}}, taskqueue.InvalidTaskError),
    ({"payload": "\udc80"}, taskqueue.InvalidTaskError),
    ({"method": "PATCH"}, taskqueue.InvalidTaskError),
    ({"method": None}, taskqueue.InvalidTaskError),
    ({"method": "PULL", "payload": b"x"}, taskqueue.InvalidQueueModeError),
    ({"tag": "x"}, taskqueue.InvalidTaskError),
    ({"countdown": 1, "eta": datetime.now(UTC)}, taskqueue.InvalidTaskError),
    ({"countdown": "soon"}, taskqueue.InvalidTaskError),
    ({"countdown": float("nan")}, taskqueue.InvalidTaskError),
    ({"countdown": float("inf")}, taskqueue.InvalidEtaError),
    ({"countdown": 30 * 86_400 + 60}, taskqueue.InvalidEtaError),
    ({"eta": time.time()}, taskqueue.InvalidTaskError),
    ({"eta": datetime.now(UTC) + timedelta(days=31)}, taskqueue.InvalidEtaError),
    ({"headers": {"Host": "elsewhere"}}, taskqueue.InvalidTaskError),
    ({"headers": {"content-length": "7"}}, taskqueue.InvalidTaskError),
    ({"headers": {"Transfer-Encoding": "chunked"}}, taskqueue.InvalidTaskError),
    ({"headers": {"Connection": "close"}}, taskqueue.InvalidTaskError),
    ({"headers": {"A b": "c"}}, taskqueue.InvalidTaskError),
    ({"headers": {"A": "b\r\nC: d"}}, taskqueue.InvalidTaskError),
    ({"headers": {"A": "\u20ac"}}, taskqueue.InvalidTaskError),
    ({"headers": {"A": "\x85"}}, taskqueue.InvalidTaskError),
    ({"headers": {"Content_Length": "7"}}, taskqueue.InvalidTaskError),
    ({"payload": b"x" * 102_400}, taskqueue.TaskTooLargeError),
    ({"headers": {"A": "b" * 102_400}}, taskqueue.TaskTooLargeError),
    ({"retry_options": {"task_retry_limit": 1}}, taskqueue.InvalidTaskError),
    ({"target": 7}, taskqueue.InvalidTaskError),
    ({"payload": b"x", "params": {"a": "b"}, "method": "GET"}, taskqueue.InvalidTaskError),
    ({"url": "/work?a=b", "method": "PUT", "params": {"c": "d"}}, taskqueue.InvalidTaskError),
    ({"dispatch_deadline_usec": 15_000_000 - 1}, taskqueue.InvalidDispatchDeadlineError),
    ({"dispatch_deadline_usec": 24 * 3_600_000_000 + 1}, taskqueue.InvalidDispatchDeadlineError),
    ({"dispatch_deadline_usec": 0}, taskqueue.InvalidDispatchDeadlineError),
    ({"dispatch_deadline_usec": -(10**400)}, taskqueue.InvalidDispatchDeadlineError),
    ({"dispatch_deadline_usec": 10**400}, taskqueue.InvalidDispatchDeadlineError),
]


@pytest.mark.parametrize(("arguments", "error"), BAD_TASKS, ids=range(len(BAD_TASKS)))
def test_what_app_engine_refuses_is_refused_with_its_error(
    arguments: dict[str, Any], error: type[taskqueue.Error]
) -> None:
    with pytest.raises(error) as caught:
        Task(**arguments)
    assert type(caught.value) is error
    assert isinstance(caught.value, taskqueue.Error) and isinstance(caught.value, GlassqError)


def test_the_refusal_of_a_pull_task_says_that_there_are_no_pull_queues() -> None:
    with pytest.raises(taskqueue.Error, match="push queues only"):
        Task(b"x", method="pull")
    with pytest.raises(taskqueue.Error, match="push queues only"):
        taskqueue.Queue("default").lease_tasks(3600, 100)


def test_an_unknown_argument_is_a_type_error() -> None:
    with pytest.raises(TypeError):
        Task(uri="/work")  # type: ignore[call-arg]


def test_params_of_a_post_are_its_form_body() -> None:
    task = Task(url="/work", params={"user": "ümit", "id": ["1", "2"], "n": 3, b"raw": b"\xff"})
    assert task.url == "/work"
    assert task.payload == b"user=%C3%BCmit&id=1&id=2&n=3&raw=%FF"
    assert task.headers["Content-Type"] == "application/x-www-form-urlencoded"


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE", "put"])
def test_params_of_other_methods_are_the_query(method: str) -> None:
    task = Task(url="/work", method=method, params={"user": "ümit", "id": [1, 2]})
    path, _, query = task.url.partition("?")
    assert (path, parse_qs(query), task.payload) == ("/work", {"user": ["ümit"], "id": ["1", "2"]}, None)


def test_a_put_sends_its_payload_and_has_its_params_in_the_query() -> None:
    task = Task(b"photo", url="/work", method="PUT", params={"a": ["b", "c"]})
    assert (task.url, task.payload, task.headers) == ("/work?a=b&a=c", b"photo", {})
    assert task.extract_params() == {"a": ["b", "c"]}


@pytest.mark.parametrize("usec", [15_000_000, 600_000_000, 24 * 3_600_000_000])
def test_a_dispatch_deadline_travels_with_its_task(usec: int) -> None:
    task = Task(url="/work", dispatch_deadline_usec=usec)
    request = from_labels(task.request("default", "own").labels())
    assert (task.dispatch_deadline_usec, request.dispatch_deadline) == (usec, usec / 1e6)


@pytest.mark.parametrize("usec", [15e6, "15000000", True])
def test_a_dispatch_deadline_of_another_kind_is_a_type_error(usec: Any) -> None:
    with pytest.raises(TypeError, match="whole number of microseconds"):
        Task(dispatch_deadline_usec=usec)


def test_a_query_in_the_url_is_kept_where_it_may_stand() -> None:
    assert Task(url="/work?a=b&c=%20d", method="GET").url == "/work?a=b&c=%20d"


def test_text_is_sent_as_utf_8_and_says_so_unless_its_author_says_otherwise() -> None:
    assert Task("grün").payload == "grün".encode()
    assert Task("grün").headers == {"Content-Type": "text/plain; charset=utf-8"}
    assert Task("{}", headers={"content-type": "application/json"}).headers == {"content-type": "application/json"}
    assert Task(b"\xff\x00").headers == {}


def test_app_engine_headers_of_the_author_are_dropped_and_others_kept() -> None:
    given = {
        "X-AppEngine-QueueName": "forged", "x-appengine-x": "y", "X_AppEngine_X": "y", "User-Agent": "forged",
        "X-Own": "1", "x-own": ["2", "3"], "N": 4,
    }  # fmt: skip
    assert Task(headers=given).headers == {"x-own": "2, 3", "N": "4"}


def test_an_eta_without_a_zone_is_in_utc_wherever_we_are_and_a_countdown_counts_from_now() -> None:
    when = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)
    assert Task(eta=when).eta == when
    assert Task(eta=when.replace(tzinfo=None)).eta == when
    before = time.time()
    assert before + 60 <= Task(countdown=60).eta_posix <= time.time() + 60


def test_a_task_of_exactly_the_greatest_size_is_taken() -> None:
    least = Task(url="/work").size
    assert Task(b"x" * (102_400 - least), url="/work").size == 102_400
    with pytest.raises(taskqueue.TaskTooLargeError):
        Task(b"x" * (102_401 - least), url="/work")


@pytest.mark.parametrize(
    "given",
    [
        {"min_backoff_seconds": -1},
        {"max_backoff_seconds": -0.1},
        {"min_backoff_seconds": 10, "max_backoff_seconds": 9},
        {"max_doublings": -1},
        {"max_doublings": 1.5},
        {"task_retry_limit": -1},
        {"task_age_limit": -1},
        {"task_age_limit": float("nan")},
        {"task_age_limit": float("inf")},
        {"min_backoff_seconds": "10"},
    ],
    ids=str,
)
def test_retry_options_that_cannot_be_meant_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(taskqueue.InvalidTaskRetryOptionsError):
        TaskRetryOptions(**given)


def test_retry_options_become_the_rule_with_app_engines_defaults() -> None:
    assert TaskRetryOptions(task_retry_limit=7).parameters == RetryParameters(task_retry_limit=7)
    # one backoff alone, against the other's default, pulls that to it
    assert TaskRetryOptions(min_backoff_seconds=7200).parameters.max_backoff_seconds == 7200
    assert TaskRetryOptions(max_backoff_seconds=0.05).parameters.min_backoff_seconds == 0.05
    assert TaskRetryOptions(task_age_limit=1.2).task_age_limit == 2
    assert TaskRetryOptions(task_age_limit=0).parameters.after(1, 0.5) is None


@pytest.mark.parametrize("name", ["", "a_b", "a b", "x" * 101, "a\n", None])
def test_queue_names_of_another_form_are_refused(name: Any) -> None:
    with pytest.raises(taskqueue.InvalidQueueNameError):
        taskqueue.Queue(name)
