"""The App Engine way, whole: tasks and pings reach an HTTP endpoint through a real pool, as queue.yaml says."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from glassq import delivery as envelope
from glassq import taskqueue
from glassq.errors import EX_CONFIG
from glassq.push.client import Client
from glassq.settings import load
from tests import forked
from tests.conftest import PATIENCE, free_port, wait_for
from tests.push.targets import Asked, Moody, Target
from tests.worker.pools import PoolRun

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import Beanstalkd
    from tests.queues.raw import Queue

FAST = "queue:\n- name: default\n  rate: 1000/s\n  bucket_size: 1000\n"
TUBE = "glassq.push.default"
# What a program of its own does to add a task.
ADD = """
from glassq import taskqueue
task = taskqueue.add(b"\\x00photo", url="/work", name="photo-17", headers={"X-Own": "1"})
print(task.name, task.was_enqueued)
"""
PING = b'{"collection": "timeline",  "itemId": "3hidvm0xez6r8", "operation": "INSERT"}'
# How long one request waits for another that is under way at the same time, in seconds.
OVERLAP = 0.1


class Push(PoolRun):
    """A pool with push queues, and a client of theirs."""

    def __init__(self, directory: Path, server: Beanstalkd, targets: dict[str, str], **worker: object) -> None:
        super().__init__(directory, server, **worker)
        self._targets = targets
        self.yaml = self.dir / "queue.yaml"
        self.yaml.write_text(FAST)
        self.write_push()
        self._client: Client | None = None

    def write_push(self, handler: str = "handlers:handle") -> None:
        """With a route for pings that leads to `handler`."""
        targets = "".join(f'{name} = "{url}"\n' for name, url in self._targets.items())
        push = f'[push]\nqueue_yaml = "{self.yaml}"\nnames = "sqlite:///{self.dir}/names.db"\n'
        self.write_settings(handler, f"{push}[push.targets]\n{targets}")

    def queue(self, name: str = "default") -> taskqueue.Queue:
        self._client = self._client or Client(load(str(self.config), {}))
        return taskqueue.Queue(name, client=self._client)

    def add(self, count: int = 1, queue: str = "default", **task: Any) -> None:
        self.queue(queue).add([taskqueue.Task(url="/work", **task) for _ in range(count)])

    def kill(self) -> None:
        """Parent and children at once, as a power cut does; it can be started again."""
        assert self.process is not None
        for pid in (self.process.pid, *self.children()):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.ended()
        self.notified.messages.clear()

    def __exit__(self, *_: object) -> None:
        if self._client is not None:
            self._client.close()
        super().__exit__()


@pytest.fixture
def target() -> Iterator[Target]:
    with Target() as target:
        yield target


@pytest.fixture
def push(tmp_path: Path, beanstalkd: Beanstalkd, target: Target) -> Iterator[Push]:
    with Push(tmp_path, beanstalkd, {"default": target.url}, processes=2) as push:
        yield push


def refused_as(queue: taskqueue.Queue, name: str) -> str:
    """Why a task of this name cannot be added."""
    try:
        queue.add(taskqueue.Task(url="/again", name=name))
    except taskqueue.Error as error:
        return type(error).__name__
    return ""


def told(asked: list[Asked], header: str) -> list[str | None]:
    return [each.headers.get(header.lower()) for each in asked]


def glassq(push: Push, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["--config", str(push.config), *arguments]
    return subprocess.CompletedProcess(command, *forked.run(command))


def waiting(queue: Queue, tube: str) -> int:
    counts = queue.stats_tube(tube)
    return counts.ready + counts.reserved + counts.delayed


def test_a_task_of_another_process_arrives_once_with_its_headers_and_its_name_stays_taken(
    push: Push, target: Target
) -> None:
    push.start().ready()
    added = subprocess.run(
        [sys.executable, "-c", ADD], env={**os.environ, "GLASSQ_CONFIG": str(push.config)},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert added.stdout == "photo-17 True\n", added.stderr
    wait_for(lambda: refused_as(push.queue(), "photo-17") == "TombstonedTaskError", f"a tombstone\n{push.log()}")
    (asked,) = target.asked
    assert (asked.method, asked.url, asked.body) == ("POST", "/work", b"\x00photo")
    assert asked.headers["user-agent"] == "AppEngine-Google; (+http://code.google.com/appengine)"
    assert asked.headers["content-type"] == "application/octet-stream"
    assert asked.headers["x-own"] == "1"
    told_of_it = {name: value for name, value in asked.headers.items() if name.startswith("x-appengine-")}
    assert float(told_of_it.pop("x-appengine-tasketa")) == pytest.approx(time.time(), abs=3600)
    assert told_of_it == {
        "x-appengine-queuename": "default",
        "x-appengine-taskname": "photo-17",
        "x-appengine-taskretrycount": "0",
        "x-appengine-taskexecutioncount": "0",
    }


def test_a_task_that_fails_is_asked_for_again_and_told_how_often(tmp_path: Path, beanstalkd: Beanstalkd) -> None:
    with Moody(500, 404, 500) as target, Push(tmp_path, beanstalkd, {"default": target.url}) as push:
        every_second = "min_backoff_seconds: 1, max_backoff_seconds: 1, task_retry_limit: 3"
        push.yaml.write_text(f"{FAST}  retry_parameters: {{{every_second}}}\n")
        push.start().ready().add(name="stubborn", payload=b"same")
        wait_for(lambda: refused_as(push.queue(), "stubborn") == "TombstonedTaskError", f"the end\n{push.log()}")
    assert told(target.asked, "X-AppEngine-TaskRetryCount") == ["0", "1", "2", "3"]
    # a 5xx is no answer of the handler's
    assert told(target.asked, "X-AppEngine-TaskExecutionCount") == ["0", "0", "1", "1"]
    assert told(target.asked, "X-AppEngine-TaskPreviousResponse") == [None, "500", "404", "500"]
    assert told(target.asked, "X-AppEngine-TaskName") == ["stubborn"] * 4
    assert {each.body for each in target.asked} == {b"same"}


def test_a_task_that_is_given_up_lies_buried_with_what_was_answered(
    tmp_path: Path, beanstalkd: Beanstalkd, queue: Queue
) -> None:
    with Moody(500, 418) as target, Push(tmp_path, beanstalkd, {"default": target.url}) as push:
        push.yaml.write_text(f"{FAST}  retry_parameters: {{task_retry_limit: 1, min_backoff_seconds: 0}}\n")
        push.start().ready()
        task = push.queue().add(taskqueue.Task(url="/work"))
        wait_for(lambda: queue.stats_tube(TUBE).buried, f"the task to be buried\n{push.log()}")
        # the ledger, by which a task of any queue is found, is written a little later
        wait_for(lambda: glassq(push, "show", task.name).returncode == 0, f"the task to be found\n{push.log()}")
        shown = glassq(push, "show", task.name, "--json")
    story = json.loads(shown.stdout)
    assert (story["job"]["state"], story["job"]["tube"]) == ("buried", TUBE)
    assert story["delivery"]["buried"].startswith("target default answered 418")
    assert story["delivery"]["buried"].endswith("(gave up after 2 attempts)")
    first, last = [evidence["detail"] for evidence in story["delivery"]["evidence"]]
    assert (first["status"], last["status"], last["reason"], last["body"]) == (500, 418, "Moody", "not today")
    assert last["headers"]["X-Mood"] == "bad"


def test_pings_go_to_the_url_of_their_route_no_more_at_once_than_their_queue_allows(
    tmp_path: Path, beanstalkd: Beanstalkd, queue: Queue, target: Target
) -> None:
    lock, met, at_once, most = threading.Lock(), threading.Event(), 0, 0

    def on_request(_: Asked) -> None:
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        if most > 1:
            met.set()
        met.wait(OVERLAP)
        with lock:
            at_once -= 1

    target.on_request = on_request
    with Push(tmp_path, beanstalkd, {}, processes=3) as push:
        push.yaml.write_text(f"{FAST}  max_concurrent_requests: 1\n")
        push.write_push(f"{target.url}/taskHandler")
        pings = [envelope.new("mirror", PING, {"collection": "timeline"}) for _ in range(8)]
        for ping in pings:
            queue.put(envelope.encode(ping))
        push.start().ready()
        wait_for(lambda: not waiting(queue, "glassq") + waiting(queue, TUBE), f"all pings to be worked\n{push.log()}")
    assert most == 1
    assert {(each.method, each.url, each.body) for each in target.asked} == {("POST", "/taskHandler", PING)}
    assert sorted(map(str, told(target.asked, "X-AppEngine-TaskName"))) == sorted(ping.id for ping in pings)
    assert set(told(target.asked, "X-Glassq-Source")) == {"mirror"}
    assert set(told(target.asked, "Content-Type")) == {"application/json"}


def test_a_paused_queue_is_let_through_when_its_file_says_so_and_the_pool_hears_of_it(
    push: Push, target: Target
) -> None:
    paused = f"{FAST}- name: slow\n  rate: %s\n"
    push.yaml.write_text(paused % "0")
    push.start().ready()
    push.add(5, "slow", payload=b"slow")
    push.add(1, payload=b"other")
    wait_for(lambda: target.asked, f"the other queue's task\n{push.log()}")
    push.yaml.write_text(paused % "100/s")
    assert [each.body for each in target.asked] == [b"other"]
    push.send(signal.SIGHUP)
    wait_for(lambda: len(target.asked) == 6, f"the paused tasks\n{push.log()}")
    assert set(told(target.asked[1:], "X-AppEngine-QueueName")) == {"slow"}
    assert set(told(target.asked, "X-AppEngine-TaskRetryCount")) == {"0"}


def test_a_mistake_in_queue_yaml_takes_the_reload_back_and_the_pool_goes_on(push: Push, target: Target) -> None:
    push.start().ready().add()
    before = push.children()
    push.yaml.write_text(FAST.replace("1000/s", "fast"))
    push.send(signal.SIGHUP)
    wait_for(lambda: "not reloaded" in push.log(), f"a word on the mistake\n{push.log()}")
    assert 'queue.yaml:3: queue "default": rate = "fast": expected' in push.log()
    push.add()
    wait_for(lambda: len(target.asked) == 2, f"the task\n{push.log()}")
    assert push.children() == before


def test_a_mistake_in_queue_yaml_that_nobody_reloaded_is_no_new_childs_death(push: Push, target: Target) -> None:
    push.start().ready().add()
    before = set(push.children())
    push.yaml.write_text(FAST.replace("1000/s", "fast"))
    for child in before:
        os.kill(child, signal.SIGTERM)
    wait_for(lambda: not before & set(push.children()), "the children to be replaced")
    push.add()
    wait_for(lambda: len(target.asked) == 2, f"a new child to work\n{push.log()}")
    assert "died" not in push.log()


def test_a_mistake_in_queue_yaml_stops_the_start(push: Push) -> None:
    push.yaml.write_text(f"{FAST}  bucket_sise: 5\n")
    assert push.start().ended() == EX_CONFIG
    assert 'queue.yaml:5: queue "default": unknown key bucket_sise; did you mean bucket_size?' in push.log()


def test_a_task_whose_pool_was_killed_in_the_middle_of_its_request_is_delivered_again(
    push: Push, target: Target
) -> None:
    let_go = threading.Event()

    def on_request(_: Asked) -> None:
        if len(target.asked) == 1:
            let_go.wait(PATIENCE)

    target.on_request = on_request
    try:
        push.start().ready().add(name="survivor")
        wait_for(lambda: target.asked, f"the request\n{push.log()}")
        push.kill()
        assert refused_as(push.queue(), "survivor") == "TaskAlreadyExistsError"
        push.start().ready()
        wait_for(lambda: refused_as(push.queue(), "survivor") == "TombstonedTaskError", f"its end\n{push.log()}")
    finally:
        let_go.set()
    assert told(target.asked, "X-AppEngine-TaskName") == ["survivor"] * 2
    assert told(target.asked, "X-AppEngine-TaskRetryCount") == ["0", "0"]


def test_a_target_that_is_down_holds_up_no_other_queue_and_loses_no_task(
    tmp_path: Path, beanstalkd: Beanstalkd, queue: Queue, target: Target
) -> None:
    targets = {"default": target.url, "gone": f"http://127.0.0.1:{free_port()}"}
    with Push(tmp_path, beanstalkd, targets) as push:
        push.yaml.write_text(f"{FAST}- name: sick\n  rate: 1000/s\n  bucket_size: 1000\n  target: gone\n")
        push.add(5, "sick")
        push.add(5, payload=b"well")
        push.start().ready()
        wait_for(lambda: not waiting(queue, TUBE), f"the healthy queue\n{push.log()}")
        wait_for(lambda: "target gone cannot be reached" in push.log(), "a word on the target that is down")
        assert waiting(queue, "glassq.push.sick") == 5
    assert [each.body for each in target.asked] == [b"well"] * 5


def test_all_children_together_keep_to_the_rate_of_a_queue(
    tmp_path: Path, beanstalkd: Beanstalkd, queue: Queue, target: Target
) -> None:
    rate, bucket, enough = 50, 10, 200
    came: list[float] = []
    target.on_request = lambda _: came.append(time.monotonic())
    with Push(tmp_path, beanstalkd, {"default": target.url}, processes=4) as push:
        push.yaml.write_text(f"queue:\n- name: default\n  rate: {rate}/s\n  bucket_size: {bucket}\n")
        for _ in range(4):
            push.add(100)
        assert queue.pause(3600, TUBE)
        push.start().ready()
        begun = time.monotonic()
        queue.pause(0, TUBE)
        wait_for(lambda: len(came) >= enough, f"{enough} tasks\n{push.log()}")
    bounds = [bucket + rate * (at - begun) for at in came]
    assert [number for number, bound in enumerate(bounds, 1) if number > bound] == []
    # a busy machine delivers fewer; more are what nobody may see
    assert enough > 0.5 * bounds[enough - 1]
