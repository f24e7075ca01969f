"""From a client's JSON to a request, and back; and everything that is refused, by the name of its field."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glassq.push.http import messages, short
from glassq.push.http.errors import ApiError
from glassq.push.http.places import QueuePlace
from glassq.push.http.reading import NewTask, new_task
from glassq.push.http.targets import Targets
from glassq.push.rule import RetryParameters
from tests.push.http.conftest import TARGETS

PLACE = QueuePlace("p", "l", "mail")
NAME = f"{PLACE}/tasks"
KNOWN = Targets(TARGETS, "glassq.toml")
URL = "http://127.0.0.1:9/base/send"


def read(message: Any) -> NewTask:
    """The task of a create's JSON, or of its bytes."""
    data = message if isinstance(message, bytes) else json.dumps(message).encode()
    return new_task(PLACE, messages.read(messages.CreateMessage, data).task, KNOWN)


def http(**changes: Any) -> dict[str, Any]:
    return {"task": {"httpRequest": {"url": URL, **changes}}}


def task(**changes: Any) -> dict[str, Any]:
    return {"task": {"httpRequest": {"url": URL}, **changes}}


def test_an_http_task_of_all_fields() -> None:
    (request, payload) = read(
        {
            "task": {
                "name": f"{NAME}/a-1_B",
                "httpRequest": {
                    "url": "http://127.0.0.1:9/base/x/y?a=b&a=c",
                    "httpMethod": "PATCH",
                    "headers": {"Content-Type": "text/plain", "X-AppEngine-QueueName": "forged", "user-agent": "x"},
                    "body": base64.b64encode(b"\0\xff").decode(),
                },
                "scheduleTime": "2001-02-03T04:05:06.123456789Z",
                "dispatchDeadline": "15.5s",
                "retryConfig": {"maxAttempts": 8, "maxRetryDuration": "60s", "minBackoff": "2s", "maxDoublings": 3},
                "createTime": "2001-02-03T04:05:06Z",
                "view": 1,
                "lastAttempt": {"what": ["ever"]},
            },
            "responseView": "FULL",
        }
    )
    assert payload == b"\0\xff"
    assert (request.queue, request.name, request.target, request.url) == ("mail", "a-1_B", "default", "/x/y?a=b&a=c")
    assert (request.method, request.headers, request.form) == ("PATCH", {"Content-Type": "text/plain"}, "http")
    assert (request.eta, request.dispatch_deadline) == (981173106.123457, 15.5)
    assert request.retry == RetryParameters.of(
        task_retry_limit=7, task_age_limit=60, min_backoff_seconds=2, max_doublings=3
    )


def test_names_in_snake_case_numbers_of_enumerations_and_nulls_are_those_of_googles_clients() -> None:
    sent = {"task": {"http_request": {"url": URL, "http_method": 4, "headers": {"a_b": "c_d"}}, "schedule_time": None}}
    (request, _) = read(sent)
    assert (request.method, request.headers, request.eta) == ("PUT", {"a_b": "c_d"}, 0.0)


def test_an_app_engine_task_goes_to_the_target_of_its_service_or_of_its_queue() -> None:
    (request, _) = read({"task": {"appEngineHttpRequest": {}}})
    assert (request.target, request.url, request.method, request.form) == ("", "/", "POST", "")
    routed = {"relativeUri": "/a?b", "appEngineRouting": {"service": "other", "host": "ignored"}, "httpMethod": "GET"}
    (request, _) = read({"task": {"appEngineHttpRequest": routed}})
    assert (request.target, request.url, request.method) == ("other", "/a?b", "GET")


WRONG: list[tuple[Any, str]] = [
    (b"", "task: expected a task"),
    (b"{", "Invalid JSON payload received"),
    (b"[]", "Invalid JSON payload received"),
    (b'"\xff"', "Invalid JSON payload received"),
    (b'{"task": ' + b"[" * 20_000, "task: Expected"),
    (b'{"task": {"view": ' + b"[" * 20_000 + b"]" * 20_000 + b"}}", "Invalid JSON payload received"),
    ({"taks": {}}, 'Unknown name "taks": no such field'),
    ({"task": {"http": {}}}, "Unknown name \"http\" at 'task'"),
    (http(bdoy=""), "Unknown name \"bdoy\" at 'task.httpRequest'"),
    ({"task": {"http_request": {"bad_name": 1}}}, "Unknown name \"badName\" at 'task.httpRequest'"),
    ({"task": {}}, "task: expected either httpRequest or appEngineHttpRequest"),
    ({"task": {"httpRequest": {"url": URL}, "appEngineHttpRequest": {}}}, "either httpRequest or appEngineHttpRequest"),
    ({"task": {"httpRequest": "x"}}, "task.httpRequest: Expected"),
    ({"task": {"httpRequest": {}}}, "task.httpRequest.url: expected a URL below a target"),
    (http(url=7), "task.httpRequest.url: Expected"),
    (http(url="ftp://127.0.0.1:9/base/"), "task.httpRequest.url: expected an http or https URL"),
    (http(oidcToken={"serviceAccountEmail": "a@b"}), "task.httpRequest.oidcToken: glassq makes no tokens"),
    (http(oauthToken={}), "task.httpRequest.oauthToken: glassq makes no tokens"),
    (http(httpMethod="TRACE"), "task.httpRequest.httpMethod: expected one of POST, GET"),
    (http(httpMethod=8), "task.httpRequest.httpMethod: expected one of"),
    (http(httpMethod=-1), "task.httpRequest.httpMethod: expected one of"),
    (http(httpMethod="GET", body="eA=="), "task.httpRequest.body: goes with POST, PUT, PATCH only"),
    (http(body="*"), "task.httpRequest.body: expected bytes in base64"),
    (http(body="\u00e4"), "task.httpRequest.body: expected bytes in base64"),
    (http(headers={"Host": "elsewhere"}), "task.httpRequest.headers: a task that cannot be sent: its headers: 'Host'"),
    (http(headers={"A": "b\r\nC: d"}), "expected a name of letters, digits and -, and a value of one line"),
    (http(headers={"A b": "c"}), "expected a name of letters"),
    (http(headers={"A": "\ud800"}), "Invalid JSON payload received"),
    (http(headers={"A": 1}), "task.httpRequest.headers"),
    (http(body=base64.b64encode(bytes(102_400)).decode()), "a task has at most 102400 bytes with its headers"),
    (http(headers={"A": "x" * 102_400}), "a task has at most 102400 bytes with its headers"),
    (http(url=URL + "x" * 2_083), "a URL has at most 2083 characters"),
    (task(name="a"), f"task.name: expected {NAME}/ID"),
    (task(name="projects/p/locations/l/queues/other/tasks/a"), f"task.name: expected {NAME}/ID"),
    (task(name=f"{NAME}/a b"), f"task.name: expected {NAME}/ID"),
    (task(name=f"{NAME}/{'a' * 501}"), f"task.name: expected {NAME}/ID"),
    (task(scheduleTime="soon"), "task.scheduleTime: expected a time of RFC 3339"),
    (task(scheduleTime="2026-01-01T00:00:00"), "task.scheduleTime: expected a time of RFC 3339"),
    (task(scheduleTime=1), "task.scheduleTime: Expected"),
    (task(scheduleTime="9999-12-31T23:59:59Z"), "scheduleTime: is more than 30 days ahead"),
    (task(dispatchDeadline="1"), "task.dispatchDeadline: expected a duration in seconds"),
    (task(dispatchDeadline="14s"), "dispatchDeadline: expected 15s to 86400s"),
    (task(dispatchDeadline="-20s"), "dispatchDeadline: expected 15s to 86400s"),
    (task(retryConfig={"maxAttempts": 0}), "task.retryConfig.maxAttempts: expected 1 or more, or -1"),
    (task(retryConfig={"minBackoff": "x"}), "task.retryConfig.minBackoff: expected a duration"),
    (task(retryConfig={"minBackoff": "9s", "maxBackoff": "1s"}), "task.retryConfig: min_backoff_seconds"),
    (task(retryConfig={"maxDoublings": 1 << 40}), "task.retryConfig: max_doublings"),
    ({"task": {"appEngineHttpRequest": {"appEngineRouting": {"service": "x" * 999}}}}, "is none of [push.targets]"),
    ({"task": {"appEngineHttpRequest": {"relativeUri": "x"}}}, "its url: expected one that begins with one /"),
    ({"task": {"appEngineHttpRequest": {"relativeUri": "//evil"}}}, "its url: expected one that begins with one /"),
    ({"task": {"appEngineHttpRequest": {"relativeUri": "/../a"}}}, "without .. that leads out of the target"),
    ({"task": {"appEngineHttpRequest": {"appEngineRouting": {"version": "v1"}}}}, "appEngineRouting.version: glassq"),
    ({"task": {"appEngineHttpRequest": {"appEngineRouting": {"instance": "1"}}}}, "appEngineRouting.instance: glassq"),
]


@pytest.mark.parametrize(("message", "says"), WRONG, ids=range(len(WRONG)))
def test_what_is_wrong_is_400_and_named(message: Any, says: str) -> None:
    with pytest.raises(ApiError) as caught:
        read(message)
    assert (caught.value.code, caught.value.status) == (400, "INVALID_ARGUMENT")
    assert says in str(caught.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
_WORDS = ["task", "httpRequest", "url", "http_method", "headers", "body", "name", "scheduleTime", "dispatchDeadline"]
_WORDS += ["retryConfig", "maxAttempts", "minBackoff", "appEngineHttpRequest", "relativeUri", "appEngineRouting"]
MESSAGES = st.recursive(
    JSON | st.sampled_from([URL, "1s", "2026-01-01T00:00:00Z", "GET", f"{NAME}/a"]),
    lambda inner: st.dictionaries(st.sampled_from(_WORDS), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(_WORDS), MESSAGES, max_size=3))
def test_whatever_json_comes_it_is_a_task_or_400(message: Any) -> None:
    try:
        read({"task": message})
    except ApiError as error:
        assert error.code == 400
        error.body().decode("ascii")


@pytest.mark.parametrize(
    ("url", "target", "relative"),
    [
        ("http://127.0.0.1:9/base/", "default", "/"),
        ("HTTP://127.0.0.1:9/base/a%2Fb?c=d?e", "default", "/a%2Fb?c=d?e"),
        ("http://127.0.0.1:9/base/deep/x", "deep", "/x"),
        ("http://127.0.0.1:9/base/deeper", "default", "/deeper"),
        ("https://OTHER.test:443", "other", "/"),
        ("https://other.test/?", "other", "/"),
    ],
)
def test_a_url_below_a_target_is_that_target_and_the_rest(url: str, target: str, relative: str) -> None:
    assert KNOWN.below("url", url) == (target, relative)


@pytest.mark.parametrize(
    "url",
    [
        *(
            "http://127.0.0.1:9/base",
            "http://127.0.0.1:9/other",
            "http://127.0.0.1:90/base/x",
            "http://127.0.0.1/base/x",
        ),
        *("http://evil.test/base/", "http://other.test/", "https://other.test:80/", "https://other.test.evil/"),
        *("https://other.test@evil.test/", "https://evil.test#@other.test/", "https://evil.test\\@other.test/"),
        *("https://user@other.test/", "//other.test/", "/base/", "other.test/", "https:other.test", "https://", ""),
        *("https://other.test/a b", "https://other.test/a\n", "https://other.test/#x", "https://[::1", "https://x:y/"),
        *("file:///etc/passwd", "http://127.0.0.1:99999/base/", "https://ot\u200bher.test/"),
    ],
)
def test_a_url_below_no_target_is_refused(url: str) -> None:
    with pytest.raises(ApiError) as caught:
        KNOWN.below("url", url)
    assert caught.value.code == 400


def test_a_task_in_short() -> None:
    said = {"path": "/send?a=b", "json": {"to": ["ann"]}, "method": "put", "name": "n", "target": "other"}
    (request, payload) = short.described("mail", json.dumps(said).encode(), KNOWN)
    assert json.loads(payload) == {"to": ["ann"]}
    assert request.headers == {"Content-Type": "application/json"}
    assert (request.name, request.method, request.url, request.target) == ("n", "PUT", "/send?a=b", "other")
    said = {"path": "/", "json": {"a_b": [1.5, None]}, "body_base64": None}
    assert short.described("mail", json.dumps(said).encode(), KNOWN).payload == b'{"a_b":[1.5,null]}'
    (request, payload) = short.described("mail", json.dumps({"url": URL, "body": "\u00e4"}).encode(), KNOWN)
    assert (request.form, request.url, payload) == ("http", "/send", "ä".encode())


def test_the_payload_alone_with_what_else_there_is_to_say_in_headers() -> None:
    environ = {
        "CONTENT_TYPE": "text/plain",
        "HTTP_X_TRACE": "7",
        "HTTP_ACCEPT": "*/*",
        "HTTP_AUTHORIZATION": "Bearer x",
    }
    said = {"HTTP_GLASSQ_NAME": "n", "HTTP_GLASSQ_DEADLINE": "20", "HTTP_GLASSQ_TARGET": "other"}
    (request, payload) = short.raw("mail", environ | said, "/send?a=%2F", b"hello")
    assert (payload, request.name, request.target, request.url) == (b"hello", "n", "other", "/send?a=%2F")
    assert request.headers == {"Content-Type": "text/plain", "X-Trace": "7"}
    assert request.dispatch_deadline == 20


@pytest.mark.parametrize(
    ("said", "says"),
    [
        ({}, "expected either url or path"),
        ({"url": URL, "path": "/"}, "expected either url or path"),
        ({"url": URL, "target": "other"}, "target: expected none beside url"),
        ({"path": "/", "body": "a", "json": 1}, "expected one of body, bodyBase64 and json"),
        ({"path": "/", "delay": 1, "eta": "2026-01-01T00:00:00Z"}, "delay and eta: expected one of them"),
        ({"path": "/", "delay": -1}, "delay: expected a number of seconds, 0 or more"),
        ({"path": "/", "delay": 1e300}, "delay: is more than 30 days ahead"),
        ({"path": "/", "eta": "9999-12-31T23:59:59Z"}, "eta: is more than 30 days ahead"),
        ({"path": "/", "name": "a/b"}, "name: expected 1 to 500"),
        ({"path": "/", "when": 1}, 'Unknown name "when"'),
    ],
)
def test_what_is_wrong_in_short_is_named_too(said: dict[str, Any], says: str) -> None:
    with pytest.raises(ApiError) as caught:
        short.described("mail", json.dumps(said).encode(), KNOWN)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("header", "says"),
    [
        (("HTTP_GLASSQ_DELAY", "soon"), "Glassq-Delay: expected a number of seconds"),
        (("HTTP_GLASSQ_DELAY", "nan"), "delay: expected a number of seconds"),
        (("HTTP_GLASSQ_ETA", "soon"), "eta: expected a time of RFC 3339"),
        (("HTTP_GLASSQ_WHEN", "1"), "Glassq-When: expected one of Glassq-Deadline, Glassq-Delay"),
        (("HTTP_GLASSQ_METHOD", "get"), "body: goes with POST, PUT, PATCH only"),
    ],
)
def test_what_is_wrong_in_a_header_is_named_too(header: tuple[str, str], says: str) -> None:
    with pytest.raises(ApiError) as caught:
        short.raw("mail", dict([header]), "/send", b"x")
    assert says in str(caught.value)
