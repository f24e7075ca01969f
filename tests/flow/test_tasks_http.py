"""A task by HTTP, whole: glassq-tasks takes it, the queue keeps it, a pool sends it to its target. All are real."""

from __future__ import annotations

import base64
import json
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from glassq.dev.stack import Stack, write_settings
from glassq.settings import load
from tests import forked
from tests.conftest import free_port, wait_for
from tests.intake.wire import Wire, request
from tests.push.targets import Asked, Moody, Target

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

QUEUES = "/v2/projects/p/locations/l/queues"
MAIL = f"{QUEUES}/mail/tasks"
QUEUE_YAML = """queue:
- name: mail
  rate: 1000/s
  bucket_size: 1000
  retry_parameters: {min_backoff_seconds: 1, max_backoff_seconds: 1}
"""


class World:
    """glassq with its server of tasks, and where its tasks go: `well`, and an address where nobody listens yet."""

    def __init__(self, directory: Path, well: Target) -> None:
        self.well = well
        self.dead_port = free_port()
        self.dead = f"http://127.0.0.1:{self.dead_port}"
        self.socket = str(directory / "tasks.sock")
        self.config = directory / "glassq.toml"
        push = {"names": f"sqlite:///{directory}/names.db", "queue_yaml": directory / "queue.yaml"}
        sections: dict[str, dict[str, object]] = {
            "intake": {"bind": f"127.0.0.1:{free_port()}"},
            "worker": {"processes": 2},
            "push": push,
            "push.targets": {"default": f"{well.url}/base", "dead": self.dead},
            "tasks": {"bind": f"unix:{self.socket}"},
        }
        (directory / "queue.yaml").write_text(QUEUE_YAML)
        write_settings(directory, sections, {})

    def ask(self, line: str, message: object = None, *headers: str) -> tuple[int, Any]:
        """The status and the JSON of a request such as "POST /tasks/mail"; `message` is its JSON or bytes."""
        body = message if isinstance(message, bytes) else b"" if message is None else json.dumps(message).encode()
        with Wire(self.socket) as wire:
            answer = wire.ask(request(body, *headers, line=f"{line} HTTP/1.1", kind=None))
        return answer.status, json.loads(answer.body)

    def create(self, path: str, *, name: str, base: str = "", **task: object) -> tuple[int, Any]:
        """CreateTask as Cloud Tasks has it."""
        call = {"url": (base or f"{self.well.url}/base") + path, "body": base64.b64encode(b"x").decode()}
        full = f"{MAIL.removeprefix('/v2/')}/{name}"
        return self.ask(f"POST {MAIL}", {"task": {"httpRequest": call, "name": full, **task}})

    def asked(self, path: str) -> list[Asked]:
        """The requests that came for it."""
        return [asked for asked in self.well.asked if asked.url.endswith(path)]

    def is_gone(self, name: str) -> bool:
        return self.ask(f"GET {MAIL}/{name}")[0] == 404

    def glassq(self, *arguments: str) -> str:
        code, out, _ = forked.run(["--config", str(self.config), *arguments])
        assert code == 0
        return out


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    directory = tmp_path_factory.mktemp("tasks-flow")
    with Moody() as well:
        world = World(directory, well)
        with Stack(directory, logs=True) as stack:
            assert stack.tend_tasks(load(str(stack.config), {})) == ""
            yield world


def test_a_task_of_cloud_tasks_and_one_in_short_arrive_as_they_were_sent(world: World) -> None:
    call = {"url": f"{world.well.url}/base/full?a=1", "httpMethod": "PUT", "headers": {"X-Trace": "7"}}
    call["body"] = base64.b64encode(b"\0\xff").decode()
    status, made = world.ask(f"POST {MAIL}", {"task": {"httpRequest": call}})
    assert status == 200
    short = ("Content-Type: text/plain", "X-Own: yes")
    assert world.ask("POST /tasks/mail/short?b=2", b"Dear Ann", *short)[0] == 200
    wait_for(lambda: world.asked("?a=1") and world.asked("?b=2"), "both to arrive")
    [full], [brief] = world.asked("?a=1"), world.asked("?b=2")
    assert (full.method, full.url, full.body, full.headers["x-trace"]) == ("PUT", "/base/full?a=1", b"\0\xff", "7")
    assert full.headers["x-cloudtasks-taskname"] == made["name"].rpartition("/")[2]
    assert (full.headers["x-cloudtasks-queuename"], full.headers["x-cloudtasks-taskretrycount"]) == ("mail", "0")
    assert (brief.method, brief.url, brief.body) == ("POST", "/base/short?b=2", b"Dear Ann")
    assert (brief.headers["content-type"], brief.headers["x-own"]) == ("text/plain", "yes")


def test_a_target_that_fails_at_first_gets_the_task_again(world: World) -> None:
    world.well.moods = [503]
    status, made = world.create("/moody", name="moody")
    assert status == 200
    wait_for(lambda: world.is_gone("moody"), "it to be done")
    retries = [(asked.headers["x-cloudtasks-taskretrycount"], asked.body) for asked in world.asked("/moody")]
    assert retries == [("0", b"x"), ("1", b"x")]
    wait_for(lambda: "done" in world.glassq("show", made["glassq"]["delivery"]), "the ledger to say so")


def test_a_task_to_a_dead_target_is_buried_with_the_reason_and_kicked_once_it_lives(world: World) -> None:
    status, made = world.create("/dead", base=world.dead, name="dead", retryConfig={"maxAttempts": 2})
    assert status == 200
    delivery = made["glassq"]["delivery"]
    wait_for(lambda: world.ask(f"GET {MAIL}/dead")[1]["glassq"]["state"] == "buried", "it to be buried")
    assert "target dead cannot be reached" in world.glassq("buried", "--json")
    with Target(port=world.dead_port) as lives:
        assert world.glassq("kick", "--yes", delivery)
        wait_for(lambda: world.is_gone("dead"), "it to be done")
        assert [asked.url for asked in lives.asked] == ["/dead"]


def test_a_name_is_taken_while_its_task_waits_and_after_it_ran(world: World) -> None:
    def refused() -> bool:
        status, answer = world.create("/once", name="once")
        assert (status, answer["error"]["status"]) == (409, "ALREADY_EXISTS")
        return "is in the queue" not in answer["error"]["message"]

    assert world.create("/once", name="once", scheduleTime=_in(2))[0] == 200
    assert not refused()
    wait_for(lambda: world.is_gone("once"), "it to have run")
    wait_for(refused, "the name to be that of a task that ran")
    assert len(world.asked("/once")) == 1


def test_a_scheduled_task_comes_at_its_time_and_one_that_was_deleted_never(world: World) -> None:
    due = time.time() + 2
    assert world.create("/deleted", name="deleted", scheduleTime=_in(1))[0] == 200
    assert world.ask(f"DELETE {MAIL}/deleted") == (200, {})
    came: list[float] = []
    world.well.on_request = lambda _: came.append(time.time())
    assert world.create("/later", name="later", scheduleTime=_in(2))[0] == 200
    assert world.ask(f"GET {MAIL}/later")[1]["glassq"]["state"] == "delayed"
    wait_for(lambda: world.asked("/later"), "the scheduled one to arrive")
    # beanstalkd's delays have whole seconds
    assert came[0] > due - 1
    assert not world.asked("/deleted")
    assert (world.ask(f"POST {MAIL}/deleted:run")[0], world.create("/deleted", name="deleted")[0]) == (404, 409)


def _in(seconds: float) -> str:
    return datetime.fromtimestamp(time.time() + seconds, UTC).isoformat().replace("+00:00", "Z")
