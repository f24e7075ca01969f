from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from glassq import delivery as envelope
from glassq.delivery import MAX_DETAIL, Delivery, Evidence
from glassq.errors import Bury, DeadlineExceeded, Drop, Retry, SettingsError
from glassq.policy import Policy
from glassq.push.dispatch import Dispatcher, forward, of_tasks, post, rule
from glassq.push.endpoints import endpoints, task_handlers
from glassq.push.http_client import AT_ONCE, KEPT, MAX_READ
from glassq.push.http_request import beneath, ping_headers
from glassq.push.names_table import NameRequest
from glassq.push.request import TaskRequest
from glassq.push.rule import RetryParameters
from glassq.routes import Context, marks_of, retry_policy
from glassq.settings import Route, parse
from glassq.sources.base import HookRequest
from glassq.sources.schemes.base import SchemeConfig
from glassq.sources.schemes.standard import Standard
from glassq.values import HandlerName, SecretFile
from glassq.worker.outcome import decide, evidence_of
from tests.conftest import ROOT, free_port
from tests.push.targets import Target

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from glassq.routes import Handler

QUEUE_YAML = """
queue:
- name: default
  rate: 5/s
- name: mail
  rate: 1/s
  target: other
  retry_parameters:
    task_retry_limit: 3
    min_backoff_seconds: 2
"""


@pytest.fixture
def target() -> Iterator[Target]:
    with Target() as target:
        yield target


@pytest.fixture
def other() -> Iterator[Target]:
    with Target() as target:
        yield target


def context_for(directory: Path, deadline: float = 20.0, **targets: str) -> Context:
    (directory / "queue.yaml").write_text(QUEUE_YAML)
    lines = "\n".join(f'{name} = "{url}"' for name, url in targets.items())
    text = f"""
        [push]
        queue_yaml = "{directory}/queue.yaml"
        names = "sqlite:///{directory}/names.db"
        [push.targets]
        {lines}
    """
    return Context(parse(text, "glassq.toml"), deadline=time.monotonic() + deadline)


@pytest.fixture
def context(tmp_path: Path, target: Target, other: Target) -> Iterator[Context]:
    context = context_for(tmp_path, default=target.url, other=other.url, based=target.url + "/base/")
    dispatcher = context.resource(Dispatcher.open)
    yield context
    dispatcher.close()


def task(url: str = "/", body: bytes = b"payload", /, **fields: Any) -> Delivery:
    """A task as it comes out of the queue for the first time; unnamed, unless `name` is among the fields."""
    fresh = envelope.new("push", body, {})
    request = TaskRequest(**{"queue": "default", "name": fresh.id, "url": url, **fields})
    return msgspec.structs.replace(fresh, labels=request.labels())


def script(**answer: object) -> str:
    """A URL that has the target answer so."""
    return "/work?" + urlencode(answer, doseq=True)


@contextmanager
def raw_target(answer: bytes) -> Iterator[int]:
    """A server that reads one request and answers with these very bytes, as many as anybody takes; its port."""

    def serve() -> None:
        with suppress(OSError):
            connection, _ = server.accept()
            with connection:
                connection.recv(65_536)
                connection.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()[1]
        thread.join()


def failed(delivery: Delivery, context: Context) -> Retry:
    with pytest.raises(Retry) as caught:
        post(delivery, context)
    return caught.value


def again(delivery: Delivery, error: Retry) -> Delivery:
    """The delivery as the pool puts it again after this failure."""
    outcome = decide(error, delivery, Policy(9, 3, 1.0, 1.0))
    evidence = evidence_of(error, delivery, outcome, 0.1)
    return msgspec.structs.replace(
        delivery,
        attempt=delivery.attempt + 1,
        failures=delivery.failures + 1,
        evidence=(*delivery.evidence, evidence),
    )


# -- the request --------------------------------------------------------------------------------------------------


def test_a_task_arrives_as_app_engine_would_send_it(target: Target, context: Context) -> None:
    sent = task("/mail?to=you", b"\x00\xffraw", name="a-name", eta=1_700_000_000.25, headers={"X-Mine": "yes"})
    post(sent, context)
    asked = target.asked[0]
    assert (asked.method, asked.url, asked.body) == ("POST", "/mail?to=you", b"\x00\xffraw")
    assert asked.headers == {
        "host": f"127.0.0.1:{target.port}",
        "accept-encoding": "identity",
        "content-length": "5",
        "content-type": "application/octet-stream",
        "user-agent": "AppEngine-Google; (+http://code.google.com/appengine)",
        "x-appengine-queuename": "default",
        "x-appengine-taskname": "a-name",
        "x-appengine-taskretrycount": "0",
        "x-appengine-taskexecutioncount": "0",
        "x-appengine-tasketa": "1700000000.250000",
        "x-mine": "yes",
    }


def test_a_task_without_an_eta_says_when_it_was_added(target: Target, context: Context) -> None:
    sent = task()
    post(sent, context)
    assert float(target.asked[0].headers["x-appengine-tasketa"]) == pytest.approx(sent.received.timestamp(), abs=1e-5)


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "HEAD", "POST"])
def test_each_method_of_app_engine_is_sent(method: str, target: Target, context: Context) -> None:
    body = b"payload" if method in ("PUT", "POST") else b""
    url = script(body="an answer")
    for _ in range(2):
        assert post(task(url, body, method=method), context)
    assert [(asked.method, asked.body) for asked in target.asked] == [(method, body)] * 2
    assert ("content-type" in target.asked[0].headers) == bool(body)
    assert target.connections == 1


def test_an_http_task_of_cloud_tasks_has_its_headers_beside_app_engines(target: Target, context: Context) -> None:
    sent = task("/work", b"x", method="PATCH", headers={"X-CloudTasks-TaskName": "forged"}, form="http")
    post(sent, context)
    post(task("/work", b"x"), context)
    asked, plain = target.asked
    assert (asked.method, asked.body) == ("PATCH", b"x")
    found = {name.removeprefix("x-cloudtasks-"): value for name, value in asked.headers.items()}
    for name in ("queuename", "taskname", "taskretrycount", "taskexecutioncount", "tasketa"):
        assert found[name] == asked.headers[f"x-appengine-{name}"]
    assert not any(name.startswith("x-cloudtasks-") for name in plain.headers)


@pytest.mark.parametrize("method", ["TRACE", "CONNECT", "post", "GET / HTTP/1.1\r\nX: y"])
def test_another_method_is_buried(method: str, target: Target, context: Context) -> None:
    with pytest.raises(Bury, match="its method"):
        post(task(method=method), context)
    assert not target.connections


def test_the_content_type_of_a_form_is_kept(target: Target, context: Context) -> None:
    post(task("/", b"a=b", headers={"content-type": "application/x-www-form-urlencoded"}), context)
    assert target.asked[0].headers["content-type"] == "application/x-www-form-urlencoded"


@pytest.mark.parametrize(
    "name",
    [
        "X-AppEngine-TaskName",
        "x-appengine-queuename",
        "X_AppEngine_TaskRetryCount",
        "X-AppEngine-Cron",
        "X-Glassq-Source",
        "Host",
        "User-Agent",
        "Content-Length",
        "Transfer_Encoding",
        "Connection",
        "Expect",
        "Proxy-Authorization",
    ],
)
def test_a_header_that_a_task_cannot_set_is_dropped(name: str, target: Target, context: Context) -> None:
    post(task(headers={name: "forged"}), context)
    assert "forged" not in target.asked[0].headers.values()
    assert target.asked[0].body == b"payload"


@pytest.mark.parametrize(
    "headers", [{"X-A": "b\r\nX-AppEngine-Cron: true"}, {"X-A\nHost": "b"}, {"X A": "b"}, {"X-A": "π"}, {"": "b"}]
)
def test_a_header_that_cannot_be_sent_is_buried(headers: dict[str, str], target: Target, context: Context) -> None:
    with pytest.raises(Bury, match="its headers"):
        post(task(headers=headers), context)
    assert not target.connections


def test_a_name_with_a_line_break_forges_no_header(target: Target, context: Context) -> None:
    with pytest.raises(Bury, match="its headers"):
        post(task(name="a\r\nX-AppEngine-Cron: true"), context)
    assert not target.connections


def test_labels_that_are_no_task_are_buried(context: Context) -> None:
    with pytest.raises(Bury, match="not a task"):
        post(envelope.new("push", b"", {"queue": "default"}), context)
    with pytest.raises(Bury, match="not a task"):
        post(msgspec.structs.replace(task(), labels={**task().labels, "headers": "{"}), context)


def test_what_is_no_ascii_is_percent_encoded_and_what_is_encoded_stays(target: Target, context: Context) -> None:
    post(task("/ä/%2f/%zz?q=%C3%A4&ö=<>"), context)
    assert target.asked[0].url == "/%C3%A4/%2f/%zz?q=%C3%A4&%C3%B6=%3C%3E"


# -- where it goes ------------------------------------------------------------------------------------------------


def test_a_task_goes_to_its_own_target_else_its_queues_else_the_default(
    target: Target, other: Target, context: Context
) -> None:
    post(task("/1"), context)
    post(task("/2", queue="mail"), context)
    post(task("/3", queue="mail", target="default"), context)
    post(task("/4", queue="nobody knows it any more"), context)
    assert [asked.url for asked in target.asked] == ["/1", "/3", "/4"]
    assert [asked.url for asked in other.asked] == ["/2"]


def test_a_target_with_a_path_has_all_urls_beneath_it(target: Target, context: Context) -> None:
    post(task("/x/../y?z=../../..", target="based"), context)
    assert target.asked[0].url == "/base/x/../y?z=../../.."


def test_an_unknown_target_is_buried_with_what_to_do(target: Target, context: Context) -> None:
    with pytest.raises(Bury, match=r'no target "v2": add it to \[push.targets\] in glassq.toml, reload'):
        post(task(target="v2"), context)
    assert not target.connections


@pytest.mark.parametrize(
    "url",
    [
        "",
        "x",
        "@{evil}",
        "//{evil}/",
        "/\\{evil}/",
        "\\\\{evil}",
        "http://{evil}/",
        "HTTP://{evil}/",
        ":80@{evil}/",
        "/x\r\nHost: {evil}",
        "/x HTTP/1.1\r\nHost: {evil}\r\n\r\n",
        "/x\n",
        "/a b",
        "/\x00",
        "/a#b",
        "/..",
        "/../x",
        "/a/../../x",
        "/a//../../x",
        "/%2e%2e/x",
        "/.%2E/x",
        "/..%2fx",
        "/..%5cx",
        "/a/..;jsession=1/../x",
    ],
)
def test_a_url_that_could_lead_elsewhere_is_buried_and_never_sent(
    url: str, target: Target, other: Target, context: Context
) -> None:
    with pytest.raises(Bury, match="its url"):
        post(task(url.format(evil=f"127.0.0.1:{other.port}"), target="based"), context)
    assert not target.connections
    assert not other.connections


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40).map(lambda text: "/" + text))
def test_whatever_a_url_holds_it_stays_beneath_the_target_in_one_line(url: str) -> None:
    try:
        path = beneath("/base", url)
    except ValueError:
        return
    assert path.startswith("/base/")
    assert not path.startswith("/base//")
    assert path.isascii()
    assert path.isprintable()
    assert not set(path) & set(' "<>#\\^`{}')


# -- what comes of it ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 201, 204, 226, 299])
def test_a_status_of_200_to_299_is_done(status: int, context: Context) -> None:
    result = post(task(script(status=status)), context)
    assert isinstance(result, dict)
    assert result["status"] == status


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (301, "Moved Permanently"),
        (302, "Found"),
        (304, "Not Modified"),
        (400, "Bad Request"),
        (404, "Not Found"),
        (500, "Internal Server Error"),
        (503, "Service Unavailable"),
        (700, ""),
    ],
)
def test_any_other_status_is_tried_again_with_what_was_answered(
    status: int, words: str, other: Target, context: Context
) -> None:
    location = f"Location: {other.url}/"
    body = "" if status == 304 else "no luck"
    error = failed(task(script(status=status, reason="", header=location, body=body)), context)
    assert error.reason == f"target default answered {status} {words}".rstrip()
    assert error.delay is None
    assert error.counts
    assert error.slow_down == (status == 503)
    assert error.detail["status"] == status
    assert error.detail["headers"]["Location"] == f"{other.url}/"
    assert error.detail["body"] == body
    assert not other.connections, "the redirect was followed"


def test_an_answer_that_ends_with_its_connection_is_whole(context: Context) -> None:
    assert post(task(script(raw="HTTP/1.0 200 OK\r\n\r\nas long as it is")), context)
    assert post(task(script(raw="HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")), context)


def test_an_answer_of_the_targets_own_words_is_shown(context: Context) -> None:
    assert failed(task(script(status=418, reason="Tea Only")), context).reason == "target default answered 418 Tea Only"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"instead": "hangup"}, "closed the connection without an answer"),
        ({"instead": "rst"}, "closed the connection without an answer"),
        ({"raw": "SSH-2.0-OpenSSH_9.2\r\n"}, "answered what is not HTTP (BadStatusLine)"),
        ({"raw": "HTTP/1.1 9999 Much\r\n\r\n"}, "answered what is not HTTP (BadStatusLine)"),
        ({"raw": "HTTP/1.1 200 " + "x" * 70_000 + "\r\n\r\n"}, "answered what is not HTTP (LineTooLong)"),
        ({"raw": "HTTP/1.1 200 OK\r\n" + "A: b\r\n" * 200 + "\r\n"}, "answered what is not HTTP (HTTPException)"),
        ({"raw": "HTTP/1.1 200 OK\r\nContent-Length: 1, 2\r\n\r\n"}, "answered what is not HTTP (HTTPException)"),
        ({"raw": "HTTP/1.1 200"}, "broke its answer off"),
        ({"raw": "HTTP/1.1 200 OK\r\n"}, "broke its answer off"),
        ({"raw": "HTTP/1.1 200 OK\r\nContent-Le"}, "broke its answer off"),
        ({"raw": "HTTP/1.1 100 Continue\r\n\r\n"}, "broke its answer off"),
        ({"body": "half of", "short": 7}, "answered 200 OK, but broke its answer off"),
        (
            {"raw": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"},
            "answered 200 OK, but broke its answer off",
        ),
        (
            {"raw": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel"},
            "answered 200 OK, but broke its answer off",
        ),
        ({"status": 404, "reason": "Gone", "short": 7}, "answered 404 Gone, but broke its answer off"),
    ],
)
def test_no_whole_answer_is_tried_again_in_words(answer: dict[str, Any], words: str, context: Context) -> None:
    error = failed(task(script(**answer)), context)
    assert error.reason == f"target default {words}"
    assert ("status" in error.detail) == ("answered 200" in words or "answered 404" in words)


def test_nobody_there_is_tried_again(tmp_path: Path) -> None:
    context = context_for(
        tmp_path, default=f"http://127.0.0.1:{free_port()}", other="http://no.such.host.invalid", based="http://[::1]:1"
    )
    assert failed(task(), context).reason == "target default cannot be reached: Connection refused"
    assert "has a name that cannot be resolved" in failed(task(target="other"), context).reason
    assert "target based cannot be reached" in failed(task(target="based"), context).reason
    context.resource(Dispatcher.open).close()


@pytest.mark.parametrize("answer", [{"instead": "hang"}, {"drip": 0.05}])
def test_a_target_that_does_not_end_its_answer_in_time_is_tried_again(
    answer: dict[str, Any], tmp_path: Path, target: Target
) -> None:
    context = context_for(tmp_path, deadline=0.5, default=target.url, other=target.url)
    error = failed(task(script(**answer)), context)
    assert "did not answer in time" in error.reason
    context.resource(Dispatcher.open).close()


def test_an_answer_before_the_body_was_read_counts(context: Context) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def refuse() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(100)
                connection.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(1 << 16):
                    pass

        thread = threading.Thread(target=refuse)
        thread.start()
        handler = forward(f"http://127.0.0.1:{server.getsockname()[1]}/")
        with pytest.raises(Retry, match="answered 413 Too Large"):
            handler(envelope.new("mirror", b"x" * 1_000_000, {}), context)
        context.resource(Dispatcher.open).http.close()
        thread.join(10)


# -- evidence -----------------------------------------------------------------------------------------------------


def test_secrets_in_an_answer_are_masked(context: Context) -> None:
    headers = [
        "Set-Cookie: sid=s3cret; Path=/",
        "Set-Cookie: b=s3cret",
        "X-Api-Key: s3cret",
        "Location: /?token=s3cret",
    ]
    error = failed(task(script(status=500, header=headers, body='{"password": "s3cret"}')), context)
    assert "s3cret" not in json.dumps(error.detail)
    assert set(error.detail["headers"]) == {"Set-Cookie", "X-Api-Key", "Location", "Content-Length"}


@pytest.mark.parametrize("body", ["x" * 10_000, "ж" * 10_000, "\x00" * 10_000, "☃" * 10_000])
def test_the_start_of_a_long_body_is_kept_as_far_as_evidence_may_go(body: str, target: Target, tmp_path: Path) -> None:
    context = context_for(tmp_path, default=target.url, other=target.url)
    huge = [f"X-{index}: {'v' * 500}" for index in range(60)]
    with socket.create_server(("127.0.0.1", 0)) as server:
        answer = "\r\n".join(["HTTP/1.1 500 No", *huge, f"Content-Length: {len(body.encode())}", "", body]).encode()

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1 << 16)
                connection.sendall(answer)
                connection.recv(1)

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(Retry) as caught:
            forward(f"http://127.0.0.1:{server.getsockname()[1]}/")(envelope.new("mirror", b"{}", {}), context)
        context.resource(Dispatcher.open).close()
        thread.join(10)
    detail = caught.value.detail
    assert len(json.dumps(detail)) <= MAX_DETAIL
    assert 500 < len(detail["body"]) <= KEPT
    assert detail["body"] == body[: len(detail["body"])], "cut within a character"
    assert 1 <= len(detail["headers"]) < 60
    assert again(task(), caught.value).evidence[0].detail == detail


def test_a_body_that_is_no_text_is_shown_as_what_it_is(context: Context) -> None:
    raw = "HTTP/1.1 500 No\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\n\x1f\xc2\x8b!!"
    detail = failed(task(script(raw=raw)), context).detail
    assert detail["body"].startswith("\x1f")
    assert detail["headers"]["Content-Encoding"] == "gzip"


def test_retries_tell_how_often_and_how_the_handler_answered(target: Target, context: Context) -> None:
    def seen(name: str) -> list[str | None]:
        return [asked.headers.get(f"x-appengine-{name}") for asked in target.asked]

    delivery = task()
    for answer in ({"status": 404}, {"status": 500, "then": "close"}, {"instead": "hangup"}, {"status": 409}):
        now = msgspec.structs.replace(delivery, labels={**delivery.labels, "url": script(**answer)})
        delivery = again(now, failed(now, context))
    post(msgspec.structs.replace(delivery, labels={**delivery.labels, "url": "/"}), context)
    assert seen("taskretrycount") == ["0", "1", "2", "3", "4"]
    assert seen("taskexecutioncount") == ["0", "1", "1", "1", "2"], "5xx and no answer are not counted"
    assert seen("taskpreviousresponse") == [None, "404", "500", None, "409"]
    assert seen("taskretryreason") == [
        None,
        "target default answered 404 OK",
        "target default answered 500 OK",
        "target default closed the connection without an answer",
        "target default answered 409 OK",
    ]


def test_an_attempt_that_was_killed_does_not_forget_the_count(target: Target, context: Context) -> None:
    first = task(script(status=404))
    second = again(first, failed(first, context))
    killed = Evidence(2, "lost", "SIGKILL", "killed by\r\nSIGKILL", datetime.now(UTC), 1.0, "host")
    post(msgspec.structs.replace(second, labels=task().labels, evidence=(*second.evidence, killed)), context)
    assert target.asked[-1].headers["x-appengine-taskexecutioncount"] == "1"
    assert target.asked[-1].headers["x-appengine-taskretryreason"] == "killed by??SIGKILL"


# -- connections --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [{}, {"body": "short"}, {"body": "short", "chunked": 1}, {"size": MAX_READ - 1}, {"status": 204}],
)
def test_one_connection_serves_task_after_task(answer: dict[str, Any], target: Target, context: Context) -> None:
    for _ in range(3):
        post(task(script(**answer)), context)
    assert target.connections == 1


def test_a_failure_that_was_answered_keeps_the_connection(target: Target, context: Context) -> None:
    failed(task(script(status=500, body="no")), context)
    post(task(), context)
    assert target.connections == 1


@pytest.mark.parametrize("answer", [{"size": 50_000_000}, {"then": "close"}, {"then": "shut"}])
def test_a_connection_that_ended_costs_no_attempt(answer: dict[str, Any], target: Target, context: Context) -> None:
    for _ in range(3):
        assert post(task(script(**answer)), context)
    assert target.connections == 3
    assert len(target.asked) == 3


def test_a_connection_closed_just_as_we_write_costs_no_attempt(target: Target, context: Context) -> None:
    for _ in range(3):
        assert post(task(script(again="hangup")), context)
    # each but the first was asked twice: on the connection that was kept, then on a fresh one
    assert [asked.connection for asked in target.asked] == [1, 1, 2, 2, 3]


def test_a_target_that_dies_at_work_is_not_asked_twice_in_one_attempt(target: Target, context: Context) -> None:
    post(task(), context)
    error = failed(task(script(again="hangup", late=AT_ONCE + 0.2)), context)
    assert error.reason == "target default closed the connection without an answer"
    assert [asked.connection for asked in target.asked] == [1, 1]


def test_a_fresh_connection_that_is_closed_is_not_tried_again_at_once(target: Target, context: Context) -> None:
    failed(task(script(instead="hangup")), context)
    assert len(target.asked) == 1
    post(task(), context)
    failed(task(script(instead="hangup")), context)
    assert len(target.asked) == 4


INTERIM = "HTTP/1.1 102 Processing\r\n\r\n", "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\nX-A: b\r\n\r\n"


@pytest.mark.parametrize("status", [100, 102, 103, 199])
@pytest.mark.parametrize("times", [1, 40])
def test_interim_responses_are_not_the_answer(status: int, times: int, target: Target, context: Context) -> None:
    early = f"HTTP/1.1 {status} Early\r\nX-Early: yes\r\n\r\n" * times
    assert post(task(script(raw=early + "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")), context)
    refused = early + "HTTP/1.1 503 Busy\r\nContent-Length: 2\r\n\r\nno"
    error = failed(task(script(raw=refused)), context)
    assert error.reason == "target default answered 503 Busy"
    assert (error.detail["body"], error.slow_down) == ("no", True)
    assert "X-Early" not in error.detail["headers"]


def test_interim_responses_of_several_kinds_come_before_one_answer(target: Target, context: Context) -> None:
    early = "HTTP/1.1 100 Continue\r\n\r\n" + "".join(INTERIM) * 3
    assert post(task(script(raw=early + "HTTP/1.1 204 No Content\r\n\r\n")), context)
    # the connection goes on with the next request
    keeps = {"early": "".join(INTERIM)}
    connections = target.connections
    for _ in range(3):
        assert post(task(script(**keeps)), context)
    assert target.connections == connections + 1


@pytest.mark.parametrize("each", ["HTTP/1.1 102 Processing\r\n\r\n", INTERIM[1].replace("b", "b" * 60_000)])
def test_interim_responses_without_end_are_an_error(each: str, context: Context) -> None:
    with raw_target(each.encode() * 5_000) as port:
        handler = forward(f"http://127.0.0.1:{port}/")
        with pytest.raises(Retry, match="answered what is not HTTP"):
            handler(envelope.new("mirror", b"{}", {}), context)


def test_an_answer_that_breaks_off_after_an_interim_one_is_none(context: Context) -> None:
    for end in ("", "HTTP/1.1 200", "HTTP/1.1 200 OK\r\nA: b\r\n"):
        error = failed(task(script(raw=INTERIM[0] + end)), context)
        assert error.reason == "target default broke its answer off"


def test_another_protocol_that_nobody_asked_for_is_an_error(target: Target, context: Context) -> None:
    late = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    error = failed(task(script(raw=late)), context)
    words = "target default answered 101 Switching Protocols, but no other protocol was asked for"
    assert (error.reason, error.detail["status"]) == (words, 101)
    # what follows is not the next task's answer
    failed(task(script(status=500)), context)
    assert target.connections == 2


def test_after_a_deadline_in_the_middle_of_an_answer_its_rest_is_nobodys(target: Target, context: Context) -> None:
    def interrupt(_signal: int, _frame: object) -> None:
        raise DeadlineExceeded

    post(task(), context)
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        target.on_request = lambda _: signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGALRM)
        with pytest.raises(DeadlineExceeded):
            post(task(script(instead="hang")), context)
    finally:
        signal.signal(signal.SIGALRM, before)
    target.on_request = lambda _: None
    post(task("/after"), context)
    assert [asked.connection for asked in target.asked] == [1, 1, 2]


def test_interrupted_anywhere_a_task_never_gets_the_answer_of_another(tmp_path: Path) -> None:
    """In a process that measures no coverage: an exception inside the tracer would leave its lock taken for ever."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    words = "import sys; from pathlib import Path; from tests.push import test_dispatch as tests; "
    words += "tests.interrupt_everywhere(Path(sys.argv[1]))"
    command = [sys.executable, "-c", words, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def interrupt_everywhere(directory: Path) -> None:
    """Interrupts at every moment of a request, then asks something that is answered differently."""

    def interrupt(_signal: int, _frame: object) -> None:
        raise DeadlineExceeded

    interrupted = 0
    with Target() as target:
        context = context_for(directory, default=target.url, other=target.url)
        dispatcher = context.resource(Dispatcher.open)
        signal.signal(signal.SIGALRM, interrupt)
        for step in range(150):
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.00001 + step * 0.00001)
                post(task(script(body="done")), context)
                signal.setitimer(signal.ITIMER_REAL, 0)
            except DeadlineExceeded:
                interrupted += 1
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
            assert failed(task(script(status=404)), context).detail["status"] == 404
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        dispatcher.close()
    assert interrupted


def test_a_forked_process_does_not_write_to_its_parents_connection(target: Target, context: Context) -> None:
    post(task("/parent"), context)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            code = 0 if post(task("/child"), context) else 1
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0
    post(task("/parent"), context)
    assert [(asked.url, asked.connection) for asked in target.asked] == [("/parent", 1), ("/child", 2), ("/parent", 1)]


def test_proxies_of_the_environment_are_not_used(
    target: Target, other: Target, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, other.url)
    post(task(), context)
    assert not other.connections


def test_cookies_of_one_task_are_not_sent_with_the_next(target: Target, context: Context) -> None:
    post(task(script(header="Set-Cookie: a=b")), context)
    post(task(), context)
    assert "cookie" not in target.asked[1].headers


# -- TLS ----------------------------------------------------------------------------------------------------------


def certificate(directory: Path, host: str) -> Path:
    """A certificate for this host that vouches for itself, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, host)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = directory / f"{host}.pem"
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    private = key.private_bytes(encoding, form, serialization.NoEncryption())
    path.write_bytes(private + made.public_bytes(encoding))
    return path


@pytest.mark.parametrize(
    ("host", "trusted", "fine"), [("localhost", True, True), ("localhost", False, False), ("elsewhere", True, False)]
)
def test_https_wants_a_certificate_that_the_system_trusts_for_this_host(
    host: str, trusted: bool, fine: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pem = certificate(tmp_path, host)
    # where OpenSSL looks for the system's authorities
    monkeypatch.setenv("SSL_CERT_FILE", str(pem if trusted else tmp_path / "none.pem"))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(pem)
    with Target(tls) as target:
        context = context_for(tmp_path, default=f"https://localhost:{target.port}", other=target.url)
        if fine:
            assert post(task(), context)
            assert post(task(), context)
            assert target.connections == 1
        else:
            assert "cannot be talked to by TLS" in failed(task(), context).reason
            assert not target.asked
        context.resource(Dispatcher.open).close()


# -- rules, names, pings ------------------------------------------------------------------------------------------


def test_a_task_is_retried_by_its_own_rule_else_its_queues_else_the_defaults(context: Context) -> None:
    own = RetryParameters(task_retry_limit=1)
    assert rule(task(queue="mail", retry=own), context) == own
    assert rule(task(queue="mail"), context) == RetryParameters(task_retry_limit=3, min_backoff_seconds=2)
    assert rule(task(queue="gone"), context) == RetryParameters()
    assert rule(envelope.new("push", b"", {}), context) == RetryParameters()


def test_the_rule_is_asked_of_without_raising_where_queue_yaml_broke(context: Context, tmp_path: Path) -> None:
    (tmp_path / "queue.yaml").write_text("queue: [")
    fresh = Context(context.settings)
    assert rule(task(queue="mail"), fresh) == RetryParameters()


def test_what_a_pool_needs_is_checked_before_the_first_task(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"missing section \[push\]"):
        marks_of(post).requires(parse("", "glassq.toml"))
    context = context_for(tmp_path, default="http://127.0.0.1:1")
    with pytest.raises(SettingsError, match=r"queue.yaml:7: .*other"):
        context.resource(marks_of(post).requires)


def taken(context: Context, name: str) -> str | None:
    """What the names' database says of a name in the queue "default"; a look claims a name that is free."""
    names = context.resource(Dispatcher.open).names
    return names.claim("default", [NameRequest(name, "looks", datetime.now(UTC))]).taken.get(name)


def test_the_name_of_a_task_is_alive_while_it_fails_and_gone_once_it_is_done(context: Context) -> None:
    for _ in range(2):
        failed(task(script(status=500), name="named"), context)
        assert taken(context, "named") == "put"
    post(task(name="named"), context)
    assert taken(context, "named") == "gone"


def test_a_task_that_nobody_named_leaves_no_name(context: Context, tmp_path: Path) -> None:
    post(task(), context)
    assert not (tmp_path / "names.db").exists()


def test_a_names_database_that_cannot_be_used_stops_no_task(target: Target, tmp_path: Path) -> None:
    context = context_for(tmp_path, default=target.url, other=target.url)
    (tmp_path / "names.db").mkdir()
    assert post(task(name="named"), context)
    context.resource(Dispatcher.open).close()


def test_a_ping_is_posted_as_it_came(target: Target, context: Context) -> None:
    ping = envelope.new("mirror", b' {"collection": "timeline"}', {"collection": "timeline"})
    handler = forward(f"{target.url}/taskHandler?key=1", "mail")
    assert handler(ping, context)
    asked = target.asked[0]
    assert (asked.method, asked.url, asked.body) == ("POST", "/taskHandler?key=1", ping.body)
    assert asked.headers["content-type"] == "application/json"
    assert asked.headers["x-glassq-source"] == "mirror"
    assert asked.headers["x-appengine-queuename"] == "mail"
    assert asked.headers["x-appengine-taskname"] == ping.id
    assert asked.headers["x-appengine-taskretrycount"] == "0"
    assert marks_of(handler).retry_policy(ping, context).task_retry_limit == 3


def test_an_endpoint_gets_the_type_and_the_kept_headers_of_a_ping_but_none_that_are_ours(
    target: Target, context: Context
) -> None:
    kept = {"x-github-event": "push", "x-glassq-source": "forged", "host": "elsewhere", "x-odd": "a\r\nb: c"}
    form = "application/x-www-form-urlencoded"
    ping = envelope.new("github", b"payload=1", {}, content_type=form, headers={**kept, "content-type": "text/html"})
    assert forward(f"{target.url}/hook")(ping, context)
    headers = target.asked[0].headers
    assert (headers["x-github-event"], headers["x-glassq-source"]) == ("push", "github")
    assert headers["content-type"] == form
    assert [name.lower() for name in ping_headers(ping)].count("content-type") == 1
    assert headers["host"] != "elsewhere"
    assert "x-odd" not in headers
    assert "b" not in headers


NEW, OLD = "whsec_" + "bmV3" * 8, "whsec_" + "b2xk" * 8


def signing(context: Context, directory: Path, target: Target, *secrets: str) -> Handler:
    """The handler of a route whose target is to verify what it gets."""
    (directory / "secrets").write_text("".join(f"{each}\n" for each in secrets))
    route = Route(
        "github", HandlerName(f"{target.url}/hook"), name="signed", secret_file=SecretFile(f"{directory}/secrets")
    )
    settings = msgspec.structs.replace(context.settings, routes=(Route("github"), route))
    return endpoints(settings, ["default"])(route).handler


def test_a_target_verifies_what_it_gets_with_either_secret(target: Target, context: Context, tmp_path: Path) -> None:
    handler = signing(context, tmp_path, target, "# the new one", NEW, OLD)
    kept = {"webhook-timestamp": "1", "Webhook-Id": "theirs", "x-github-event": "push"}
    ping = envelope.new("github", b'{"a": 1}', {}, headers=kept)
    before = int(time.time())
    assert handler(ping, context)
    assert handler(ping, context)
    for asked in target.asked:
        request = HookRequest("POST", asked.url, asked.headers, asked.body, "192.0.2.1", time.time())
        for secret in (NEW, OLD):
            assert Standard().prepare(SchemeConfig(secrets=(secret,), tolerance=300.0))(request).skew is not None
        # the same at each attempt, so that the target knows what it has had
        assert asked.headers["webhook-id"] == ping.id
        assert before <= int(asked.headers["webhook-timestamp"]) <= time.time()
        assert asked.headers["x-github-event"] == "push"


def test_without_a_secret_nothing_is_signed(target: Target, context: Context) -> None:
    assert forward(f"{target.url}/hook")(envelope.new("github", b"{}", {}), context)
    assert [name for name in target.asked[0].headers if name.startswith("webhook-")] == []


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([NEW, "whsec_c2hvcnQ="], "the file has no key in secret 2: expected whsec_ and base64 of at least 16 bytes"),
        (["# only this"], "the file is empty: expected one secret per line"),
    ],
)
def test_a_route_that_cannot_sign_is_refused(
    lines: list[str], said: str, target: Target, context: Context, tmp_path: Path
) -> None:
    with pytest.raises(SettingsError) as caught:
        signing(context, tmp_path, target, *lines)
    assert str(caught.value) == f'glassq.toml: [[routes]] (2nd) secret_file = "{tmp_path}/secrets": {said}'


def test_a_ping_that_is_no_json_says_so_and_a_failure_names_the_url_without_its_query(
    target: Target, context: Context
) -> None:
    handler = forward(f"{target.url}/hook?status=503&key=hidden")
    with pytest.raises(Retry) as caught:
        handler(envelope.new("mirror", b"a=b", {}), context)
    assert target.asked[0].headers["content-type"] == "application/octet-stream"
    assert caught.value.reason == f"{target.url}/hook answered 503 OK"
    assert caught.value.slow_down


# -- functions that work tasks ----------------------------------------------------------------------------------------


def test_a_function_works_a_task_by_its_rule_and_its_name_is_kept(context: Context) -> None:
    seen: list[str | None] = []

    def handle(delivery: Delivery, context: Context) -> str:
        seen.append(taken(context, "named"))
        if delivery.body == b"fail":
            raise ValueError("broken")
        if delivery.body == b"drop":
            raise Drop("nothing to do")
        return "worked"

    handler = of_tasks(handle)
    with pytest.raises(ValueError, match="broken"):
        handler(task("/", b"fail", name="named"), context)
    assert (seen, taken(context, "named")) == (["put"], "put")
    assert handler(task("/", b"", name="named"), context) == "worked"
    assert taken(context, "named") == "gone"
    with pytest.raises(Drop):
        handler(task("/", b"drop", name="other"), context)
    assert taken(context, "other") == "gone"
    own = RetryParameters(task_retry_limit=1)
    assert marks_of(handler).retry_policy(task(queue="mail", retry=own), context) == own
    assert of_tasks(handler) is handler


def test_a_function_keeps_what_it_brings_and_works_what_was_put_by_hand(context: Context) -> None:
    marked = of_tasks(retry_policy(lambda _delivery, _context: 7)(lambda delivery, _context: delivery.source))
    assert marks_of(marked).retry_policy(task(), context) == 7
    assert marked(envelope.new("push", b"", {}), context) == "push"


def test_a_dispatch_deadline_ends_a_request_before_the_pool_does(target: Target, context: Context) -> None:
    # the attempt may take 20 s in all; shorter ones than 15 s come only by the labels, as App Engine has it
    error = failed(task(script(instead="hang"), dispatch_deadline=0.3), context)
    assert error.reason == "target default did not answer in time"
    assert context.remaining() == 0


def test_a_dispatch_deadline_is_never_later_than_the_attempts_own(context: Context) -> None:
    before = context.deadline
    of_tasks(lambda _delivery, _context: None)(task(dispatch_deadline=3600.0), context)
    assert context.deadline == before


def test_a_task_whose_route_is_a_url_stays_in_its_queue_under_its_own_rule(target: Target, context: Context) -> None:
    route = Route(source="push", handler=HandlerName(f"{target.url}/hook"))
    found = endpoints(context.settings, ["default", "mail"])(route)
    sent = task("/ignored", name="named", queue="mail")
    assert found.handler(sent, context)
    asked = target.asked[0]
    assert (asked.url, asked.headers["x-appengine-queuename"], asked.headers["x-appengine-taskname"]) == (
        "/hook", "mail", "named",
    )  # fmt: skip
    assert (found.tube, found.retry_policy(sent, context).task_retry_limit) == ("", 3)


@pytest.mark.parametrize("handler", ["http://127.0.0.1:1/hook", "json:loads"])
def test_a_route_of_a_queue_that_is_not_there_is_refused(handler: str, context: Context) -> None:
    route = Route(source="push", handler=HandlerName(handler), queue="nowhere")
    with pytest.raises(SettingsError, match=r'queue = "nowhere": expected a queue of queue.yaml: default, mail'):
        if route.handler.is_url:
            endpoints(context.settings, ["default", "mail"])(route)
        else:
            task_handlers(context.settings, ["default", "mail"])(route, lambda _delivery, _context: None)
