"""Tasks without an HTTP server: functions and deferred calls in a real pool, added by programs of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from glassq import delivery as envelope
from glassq import taskqueue
from glassq.push.client import Client
from glassq.settings import load
from tests.conftest import PATIENCE, Beanstalkd, wait_for
from tests.worker.pools import PoolRun

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from glassq.delivery import Delivery
    from glassq.queues.base import WaitingState as Waiting

HANDLERS = """
from pathlib import Path

import glassq
from glassq import taskqueue

HERE = Path(__file__).parent

def tell(line):
    with (HERE / "story").open("a") as story:
        story.write(f"{line}\\n")

def send(delivery):
    task = glassq.task(delivery)
    tell(f"send {task.queue} {task.params['to']} {task.headers['x-own']} {task.retry_count}")
    # the next step; a second attempt must not add it twice
    try:
        taskqueue.add(b"chained", url="/next", name=f"next-{task.name}")
    except (taskqueue.TaskAlreadyExistsError, taskqueue.TombstonedTaskError):
        tell("was there")
    if task.retry_count == 0:
        raise glassq.Retry("not yet")
    tell("sent")

def follow(delivery):
    tell(f"next {delivery.body.decode()}")
"""
CALLS = """
from os import system

from glassq import deferred
from handlers import tell

def resize(photo, width=640):
    tell(f"resize {photo} {width}")

def fail(reason):
    tell(f"fail {reason}")
    raise deferred.PermanentTaskFailure(reason)
"""
QUEUE_YAML = """
queue:
- name: default
  rate: 1000/s
  bucket_size: 1000
- name: mail
  rate: 1000/s
  retry_parameters:
    min_backoff_seconds: 1
    max_backoff_seconds: 1
    task_retry_limit: 1
"""
PUSH = """
[push]
queue_yaml = "{0}/queue.yaml"
names = "sqlite:///{0}/names.db"
deferred = ["calls"]
[[routes]]
source = "push"
queue = "mail"
url = "/mail/*"
handler = "handlers:send"
[[routes]]
source = "push"
url = "/next"
handler = "handlers:follow"
"""


class Tasks(PoolRun):
    """A pool whose handlers are functions of tasks; there is no target."""

    def __init__(self, directory: Path, server: Beanstalkd) -> None:
        super().__init__(directory, server)
        self.server = server
        (self.dir / "queue.yaml").write_text(QUEUE_YAML)
        (self.dir / "calls.py").write_text(CALLS)
        self.write_handlers(HANDLERS)
        self.write_settings("handlers:follow", PUSH.format(self.dir))

    def run(self, code: str) -> None:
        """A program of its own, which finds the settings by GLASSQ_CONFIG, and the modules where they are."""
        env = {**os.environ, "GLASSQ_CONFIG": str(self.config), "PYTHONPATH": str(self.dir)}
        subprocess.run([sys.executable, "-c", code], env=env, check=True, timeout=PATIENCE)

    def told(self) -> list[str]:
        story = self.dir / "story"
        return story.read_text().splitlines() if story.exists() else []

    def first(self, state: Waiting, queue: str) -> Delivery | None:
        looks = self.server.queue()
        job = looks.peek_first(state, f"glassq.push.{queue}")
        looks.close()
        return None if job is None else envelope.decode(job.body)


@pytest.fixture
def tasks(tmp_path: Path, beanstalkd: Beanstalkd) -> Iterator[Tasks]:
    with Tasks(tmp_path, beanstalkd) as tasks:
        yield tasks


def test_a_function_works_tasks_is_tried_again_and_adds_the_next_step_once(tasks: Tasks) -> None:
    add = "taskqueue.add(url='/mail/a', params={'to': 'you'}, headers={'X-Own': '1'}, queue_name='mail', name='first')"
    tasks.run(f"from glassq import taskqueue\n{add}")
    tasks.start()
    wait_for(lambda: "sent" in tasks.told() and "next chained" in tasks.told(), "both steps to be worked")
    told = [line for line in tasks.told() if line != "next chained"]
    assert told == ["send mail you 1 0", "send mail you 1 1", "was there", "sent"]
    assert tasks.told().count("next chained") == 1
    refused = f"try:\n    {add}\nexcept taskqueue.TombstonedTaskError:\n    raise SystemExit\nraise SystemExit(1)"
    wait_for(lambda: tasks.first("ready", "mail") is None, "the first task to be over")
    tasks.run(f"from glassq import taskqueue\n{refused}")


def test_a_function_gives_up_by_the_rule_of_its_tasks_queue(tasks: Tasks) -> None:
    tasks.run("from glassq import taskqueue\ntaskqueue.add(url='/mail/a', queue_name='mail')")
    tasks.start()
    wait_for(lambda: tasks.first("buried", "mail"), "the task to be buried")
    buried = tasks.first("buried", "mail")
    assert buried is not None
    assert (buried.buried, len(buried.evidence)) == ("KeyError: 'to' (gave up after 2 attempts)", 2)


def test_a_call_that_was_deferred_by_a_program_is_made_by_the_pool(tasks: Tasks) -> None:
    tasks.run(
        "from glassq import deferred\nimport calls\n"
        "deferred.defer(calls.resize, 'a', width=320)\ndeferred.defer(calls.fail, 'never', _queue='mail')"
    )
    tasks.start()
    wait_for(lambda: tasks.first("buried", "mail"), "the second call to be buried")
    wait_for(lambda: "resize a 320" in tasks.told(), "the first call to be made")
    assert sorted(tasks.told()) == ["fail never", "resize a 320"]
    buried = tasks.first("buried", "mail")
    assert buried is not None
    assert buried.buried == "calls:fail: never"


@pytest.mark.parametrize("call", ["os:system", "calls:system", "calls:tell"])
def test_a_call_that_was_forged_lies_buried_and_calls_nothing(tasks: Tasks, call: str) -> None:
    client = Client(load(str(tasks.config), {}))
    forged = f'{{"call": "{call}", "args": ["touch {tasks.dir}/forged"]}}'
    taskqueue.Queue(client=client).add(taskqueue.Task(forged, url="/_ah/queue/deferred"))
    client.close()
    tasks.start()
    wait_for(lambda: tasks.first("buried", "default"), "the task to be buried")
    buried: Any = tasks.first("buried", "default")
    assert (buried.attempt, call in buried.buried) == (1, True)
    assert not (tasks.dir / "forged").exists()
    assert tasks.told() == []


def test_a_task_that_nothing_takes_is_refused_when_it_is_added(tasks: Tasks) -> None:
    client = Client(load(str(tasks.config), {}))
    with pytest.raises(taskqueue.InvalidTaskError, match='only a task that a route with source = "push" takes needs'):
        taskqueue.Queue(client=client).add(taskqueue.Task(url="/elsewhere"))
    client.close()


def test_a_module_of_calls_that_cannot_be_imported_stops_the_start(tasks: Tasks) -> None:
    (tasks.dir / "calls.py").write_text("import nowhere_at_all\n")
    tasks.start()
    assert tasks.ended() == 78
    assert "[push] deferred: module" in tasks.log()
    assert "cannot be imported: ModuleNotFoundError: No module named 'nowhere_at_all'" in tasks.log()
