"""glassq-tasks as a client meets it, on a unix socket."""

from __future__ import annotations

import base64
import random
import re
import stat
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from glassq.push.request import from_labels
from glassq.queues import open_inspector, open_receiver
from glassq.queues.base import ALL_STATES
from glassq.settings import Settings
from tests.intake.wire import Wire, request
from tests.push.http.conftest import QUEUE

if TYPE_CHECKING:
    from tests.intake.wire import Answer
    from tests.push.http.conftest import Tasks

URL = "http://127.0.0.1:9/base/send?to=ann"
OWN = QUEUE.removeprefix("/v2/")


def http(**task: Any) -> dict[str, Any]:
    return {"task": {"httpRequest": {"url": URL, "body": base64.b64encode(b"hello").decode()}, **task}}


def named(name: str) -> str:
    return f"{OWN}/tasks/{name}"


def test_a_task_is_in_the_queue_when_it_is_answered(tasks: Tasks) -> None:
    status, made = tasks.call(f"POST {QUEUE}/tasks", http(scheduleTime="2000-01-01T00:00:00Z"))
    assert status == 200
    own = made["name"].removeprefix(named(""))
    (delivery,) = [found for found in tasks.deliveries() if found.id == own]
    task = from_labels(delivery.labels)
    assert (task.queue, task.name, task.target, task.url, task.form) == ("mail", own, "default", "/send?to=ann", "http")
    assert (delivery.body, delivery.tube) == (b"hello", "glassq.push.mail")
    assert made["httpRequest"] == {"url": URL, "httpMethod": "POST", "headers": {}}
    assert made["scheduleTime"] == "2000-01-01T00:00:00.000000Z"
    assert "added" in tasks.log()


def test_a_name_is_taken_also_once_its_task_was_deleted(tasks: Tasks) -> None:
    message = http(name=named("once"), scheduleTime=_in_an_hour())
    assert tasks.call(f"POST {QUEUE}/tasks", message)[1]["name"] == named("once")
    status, refused = tasks.call(f"POST {QUEUE}/tasks", message)
    assert (status, refused["error"]["status"]) == (409, "ALREADY_EXISTS")
    assert tasks.call(f"DELETE {QUEUE}/tasks/once") == (200, {})
    for line in (f"GET {QUEUE}/tasks/once", f"DELETE {QUEUE}/tasks/once", f"POST {QUEUE}/tasks/once:run"):
        status, refused = tasks.call(line)
        assert (status, refused["error"]["status"]) == (404, "NOT_FOUND"), line
    assert tasks.call(f"POST {QUEUE}/tasks", message)[0] == 409
    # a name is one of its queue
    assert tasks.call("POST /tasks/slow", {"path": "/", "name": "once", "delay": 60})[0] == 200


def test_of_many_that_want_one_name_one_gets_it(tasks: Tasks) -> None:
    message = http(name=named("many"), scheduleTime=_in_an_hour())
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: tasks.call(f"POST {QUEUE}/tasks", message)[0], range(8)))
    assert sorted(answers) == [200] + [409] * 7


def test_a_waiting_task_is_shown_run_and_deleted(tasks: Tasks) -> None:
    retry = {"maxAttempts": 2, "minBackoff": "1.5s"}
    message = http(name=named("later"), scheduleTime=_in_an_hour(), dispatchDeadline="20s", retryConfig=retry)
    tasks.call(f"POST {QUEUE}/tasks", message)
    _, seen = tasks.call(f"GET {QUEUE}/tasks/later?responseView=FULL")
    assert (seen["glassq"]["state"], seen["view"], seen["dispatchDeadline"]) == ("delayed", "FULL", "20s")
    assert base64.b64decode(seen["httpRequest"]["body"]) == b"hello"
    assert (seen["retryConfig"]["maxAttempts"], seen["retryConfig"]["minBackoff"]) == (2, "1.5s")
    _, run = tasks.call(f"POST {QUEUE}/tasks/later:run", {"responseView": "BASIC"})
    assert (run["glassq"]["state"], "body" in run["httpRequest"]) == ("ready", False)
    assert tasks.call(f"DELETE {QUEUE}/tasks/later") == (200, {})


def test_a_running_task_is_not_deleted_and_a_buried_one_is_run(tasks: Tasks) -> None:
    tasks.call("POST /tasks/slow", {"path": "/", "name": "running"})
    place = QUEUE.replace("mail", "slow")
    with closing(open_receiver(Settings(queue=tasks.beanstalkd.settings))) as receiver:
        job = receiver.reserve(["glassq.push.slow"], 5)
        assert job is not None
        status, refused = tasks.call(f"DELETE {place}/tasks/running")
        assert (status, refused["error"]["status"]) == (400, "FAILED_PRECONDITION")
        assert tasks.call(f"POST {place}/tasks/running:run")[1]["glassq"]["state"] == "reserved"
        receiver.bury(job)
        assert tasks.call(f"GET {place}/tasks/running")[1]["glassq"]["state"] == "buried"
        assert tasks.call(f"POST {place}/tasks/running:run")[1]["glassq"]["state"] == "ready"
    assert tasks.call("DELETE /tasks/slow/running") == (200, {})


def test_a_task_that_is_parked_beside_its_queue_is_one_of_its_tasks(tasks: Tasks) -> None:
    tasks.call("POST /tasks/slow", {"path": "/", "name": "parked", "delay": 60})
    with closing(open_inspector(Settings(queue=tasks.beanstalkd.settings))) as inspector:
        (job,) = [found for found in inspector.find(ALL_STATES, ["glassq.push.slow"]) if b'"parked"' in found.body]
        inspector.change(job, state="ready", tube="glassq.push.slow.held.mailer")
    assert tasks.call("GET /tasks/slow/parked")[1]["glassq"]["state"] == "ready"
    assert "parked" in [task["name"].rpartition("/")[2] for task in tasks.call("GET /tasks/slow")[1]["tasks"]]
    assert tasks.call("DELETE /tasks/slow/parked") == (200, {})


def test_all_tasks_of_a_queue_are_listed_page_by_page(tasks: Tasks) -> None:
    tasks.call(f"POST {QUEUE}:purge", {})
    made = [tasks.call(f"POST {QUEUE}/tasks", http())[1]["name"] for _ in range(5)]
    seen, pages, token = [], 0, ""
    while pages == 0 or token:
        _, page = tasks.call(f"GET {QUEUE}/tasks?pageSize=2&pageToken={token}")
        seen += [task["name"] for task in page["tasks"]]
        token, pages = page.get("nextPageToken", ""), pages + 1
    assert (seen, pages) == (made[::-1], 3)
    assert [task["name"] for task in tasks.call("GET /tasks/mail?page_size=5")[1]["tasks"]] == [
        name.replace("projects/p/locations/l", "projects/-/locations/-") for name in made[::-1]
    ]
    assert tasks.call(f"POST {QUEUE}:purge", {})[0] == 200
    assert tasks.call(f"GET {QUEUE}/tasks")[1] == {"tasks": []}


def test_queues_are_shown_paused_and_resumed(tasks: Tasks) -> None:
    tasks.call(f"POST {QUEUE}/tasks", http())
    assert tasks.call(f"POST {QUEUE}:pause", {})[1]["state"] == "PAUSED"
    assert tasks.call(f"GET {QUEUE}")[1]["state"] == "PAUSED"
    assert tasks.call(f"POST {QUEUE}:resume", {})[1]["state"] == "RUNNING"
    names = [queue["name"].rpartition("/")[2] for queue in tasks.call(f"GET {QUEUE.rpartition('/')[0]}")[1]["queues"]]
    assert names == ["default", "mail", "slow", "unused"]
    nowhere = QUEUE.replace("mail", "unused")
    assert tasks.call(f"POST {nowhere}:pause", {})[1]["error"]["status"] == "FAILED_PRECONDITION"


def test_the_payload_alone_is_enough(tasks: Tasks) -> None:
    said = ("Glassq-Delay: 60", "X-Trace: 7", "Content-Type: text/plain")
    status, made = tasks.call("POST /tasks/mail/send%2Fit?to=ann%20b", b"letter", *said)
    assert status == 200
    _, seen = tasks.call(f"GET /tasks/mail/{made['name']}?responseView=2")
    assert seen["appEngineHttpRequest"] == {
        "relativeUri": "/send%2Fit?to=ann%20b",
        "httpMethod": "POST",
        "headers": {"Content-Type": "text/plain", "X-Trace": "7"},
        "body": base64.b64encode(b"letter").decode(),
    }


REFUSED: list[tuple[str, Any, int, str]] = [
    (f"POST {QUEUE.replace('mail', 'other')}/tasks", http(), 404, "queue 'other' is not in"),
    ("GET /tasks/other", None, 404, "queue 'other' is not in"),
    (f"POST {QUEUE.replace('mail', 'a_b')}/tasks", http(), 400, "queue: expected 1 to 100"),
    (f"POST {QUEUE.replace('/p/', '/p%20/')}/tasks", http(), 400, "project: expected"),
    (f"POST {QUEUE.replace('/l/', '/l.l/')}/tasks", http(), 400, "location: expected"),
    (f"POST {QUEUE}/tasks", {"task": {"httpRequest": {"url": "http://evil.test/"}}}, 400, "[push.targets]"),
    (
        f"POST {QUEUE}/tasks",
        {"task": {"appEngineHttpRequest": {"appEngineRouting": {"service": "x"}}}},
        400,
        'target "x"',
    ),
    (f"POST {QUEUE}/tasks?async=1", http(), 400, 'Unknown name "async"'),
    (f"POST {QUEUE}/tasks", {**http(), "responseView": "ALL"}, 400, "responseView: expected one of"),
    (f"GET {QUEUE}/tasks?pageSize=-1", None, 400, "pageSize: expected a number"),
    (f"GET {QUEUE}/tasks?pageToken=x", None, 400, "pageToken: expected a nextPageToken"),
    (f"GET {QUEUE}/tasks/a%20b", None, 400, "task: expected 1 to 500"),
    (f"POST {QUEUE}/tasks/a", {}, 404, ":run"),
    (f"POST {QUEUE}/tasks/a:stop", {}, 404, ":run"),
    (f"POST {QUEUE}:drop", {}, 404, "no such method"),
    (f"POST {QUEUE.rpartition('/')[0]}", {}, 501, "queue.yaml"),
    (f"PATCH {QUEUE}", {}, 501, "queue.yaml"),
    (f"DELETE {QUEUE}", None, 501, "queue.yaml"),
    (f"POST {QUEUE}/tasks:batchCreate", {}, 501, "one by one"),
    (f"POST {QUEUE}:setIamPolicy", {}, 501, "IAM"),
    ("GET /v2/projects/p/locations", None, 501, "locations"),
    (f"PUT {QUEUE}/tasks", {}, 405, "Method Not Allowed"),
    ("GET /v2", None, 404, "Not Found"),
    ("GET /v1/x", None, 404, "Not Found"),
    ("GET /metrics", None, 404, "Not Found"),
    ("POST /tasks/mail", b"\xff", 400, "Invalid JSON"),
    ("POST /tasks/mail/a b".replace(" b", "%23#b"), b"", 400, ""),
    ("POST /tasks/mail/../../etc", b"", 400, "leads out of the target"),
    (f"POST {QUEUE}/tasks", b"x" * 204_801, 400, "the request has 204801 bytes, of 204800"),
]


@pytest.mark.parametrize(("line", "message", "status", "says"), REFUSED, ids=range(len(REFUSED)))
def test_what_cannot_be_is_refused_in_googles_form(
    tasks: Tasks, line: str, message: Any, status: int, says: str
) -> None:
    found, refused = tasks.call(line, message)
    assert (found, refused["error"]["code"]) == (status, status), refused
    assert says in refused["error"]["message"]


MALFORMED = [
    (request(b"{}", line="POST /tasks/mail HTTP/1.1", host="a b"), 400),
    (request(b"{}", line="POST /tasks/mail HTTP/1.1", host=None), 400),
    (request(b"0\r\n\r\n", "Transfer-Encoding: chunked", line="POST /tasks/mail HTTP/1.1", length=...), 411),
    (request(b"{}", "Content-Length: 3", line="POST /tasks/mail HTTP/1.1"), 400),
    (request(b"{}", line="POST http://localhost/tasks/mail HTTP/1.1"), 400),
    (request(b"{}", line="POST /tasks/mail HTTP/9.9"), 400),
    (b"\x16\x03\x01\r\n\r\n", 400),
    (b"GET /" + b"a" * 5_000, 414),
    (request(b"", "A: " + "b" * 40_000, line="GET /tasks/mail HTTP/1.1"), 431),
]


@pytest.mark.parametrize(("data", "status"), MALFORMED, ids=range(len(MALFORMED)))
def test_what_is_no_request_is_refused_and_puts_nothing(tasks: Tasks, data: bytes, status: int) -> None:
    before = len(tasks.deliveries())
    assert tasks.ask(data).status == status
    assert len(tasks.deliveries()) == before


def test_one_connection_takes_requests_that_follow_one_another_at_once(tasks: Tasks) -> None:
    """Also where one is worked in a thread beside: each waits for the answer before it."""
    data = [
        tasks.request(f"POST {QUEUE}/tasks", http()),
        tasks.request(f"POST {QUEUE}/tasks", http(name=named("in-a-row"))),
        tasks.request(f"GET {QUEUE}/tasks/in-a-row"),
        tasks.request(f"POST {QUEUE}/tasks", {"task": 1}),
        tasks.request(f"DELETE {QUEUE}/tasks/in-a-row"),
    ]
    with Wire(tasks.address) as wire:
        wire.send(b"".join(data))
        answers: list[Answer] = [wire.answer() for _ in data]
    assert [answer.status for answer in answers] == [200, 200, 200, 400, 200]


def test_only_user_and_group_may_open_the_socket(tasks: Tasks) -> None:
    assert stat.S_IMODE(Path(str(tasks.address)).stat().st_mode) == 0o660


def test_metrics_are_served_at_their_own_address(tasks: Tasks) -> None:
    with Wire(tasks.metrics) as wire:
        answer = wire.ask(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert answer.status == 200
        assert wire.ask(tasks.request("GET /tasks/mail")).status == 404
    text = answer.body.decode()
    assert "glassq_tasks_workers 1.0" in text
    assert 'glassq_tasks_requests_refused_total{reason="exists"}' in text


def _in_an_hour() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 3_600))


_SPOILS = (b"", b"\0", b"\xff", b'"', b"{", b"9", b" ", b"\n", b"%2e", b"..")


@pytest.mark.parametrize("seed", range(4))
def test_no_spoiled_request_is_answered_as_if_it_were_our_fault(tasks: Tasks, seed: int) -> None:
    chance = random.Random(seed)
    right = [
        tasks.request(f"POST {QUEUE}/tasks", http(name=named(f"spoiled-{seed}"), dispatchDeadline="20s")),
        tasks.request("POST /tasks/mail", {"path": "/a?b", "json": [1, "x"], "delay": 1.5}),
        tasks.request("POST /tasks/mail/a?b=c", b"payload", "Glassq-Delay: 1", "X-A: b"),
        tasks.request(f"GET {QUEUE}/tasks?pageSize=3&responseView=FULL"),
    ]
    for _ in range(400):
        data = bytearray(chance.choice(right))
        for _ in range(chance.randint(1, 3)):
            place = chance.randrange(len(data))
            data[place : place + chance.randint(0, 2)] = chance.choice(
                [b"", b"\0", b"\xff", b'"', b"{", b"9", b" ", b"\n"]
            )
        with Wire(tasks.address) as wire:
            wire.send(bytes(data))
            wire.half_close()
            answers = wire.rest()
        for status in re.findall(rb"HTTP/1\.1 (\d+) ", answers):
            assert int(status) < 500 or status == b"501", bytes(data)
