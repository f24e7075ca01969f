"""What is recorded: all of glassq under load, with old jobs, retries, tasks, kicks, and a syncer frozen at times.

What somebody was promised is said into the recorder's log as soon as he has it: "kept PING" for a 200 and for a task
that was added, and "done PING" by the handler, before it returns.
"""

from __future__ import annotations

import json
import random
import signal
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from glassq import taskqueue
from glassq.errors import GlassqError
from glassq.push.client import Client
from glassq.settings import QueueSettings, QueueUrl, load
from tests.chaos.harness import Machine, Plan
from tests.chaos.load import Load, Try
from tests.powercut.recording import Action, Call, Recorder
from tests.queues.raw import open_queue

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# The smallest file that holds our jobs: a new one every few dozen commands.
FILE_SIZE = 8192
RATE, CLIENTS = 150.0, 8
# Old jobs that lie buried or delayed before the load begins, in pings of which one in five is either.
OLD = 150

SETTINGS = """
[push]
queue_yaml = "{0}/queue.yaml"
names = "sqlite:///{0}/names.db"
[[routes]]
source = "push"
url = "/work"
handler = "torture_handler:handle"
"""
QUEUE_YAML = """
queue:
- name: default
  rate: 1000/s
  bucket_size: 1000
"""


@dataclass(frozen=True, slots=True)
class Scene:
    """What is recorded. `unsynced` makes the syncs of some services' files do nothing: service, part of the path."""

    seconds: float
    seed: int
    rate: float = RATE
    interval: str = "-f1000"
    file_size: int = FILE_SIZE
    freezes: bool = True
    unsynced: tuple[tuple[str, str], ...] = ()

    def record(self, directory: Path, recorder: Recorder) -> None:
        """Runs it; returns when it is over, with all processes ended."""
        for service, match in self.unsynced:
            recorder.control(service).order(Call.SYNC, action=Action.SKIP, match=match)
        (directory / "queue.yaml").write_text(QUEUE_YAML)
        plan = Plan(
            Path(__file__).with_name("handler.py"),
            (self.interval, "-s", str(self.file_size)),
            web_workers=2,
            children=2,
            settings=SETTINGS.format(directory),
        )
        with Machine(directory, plan=plan, recorder=recorder) as machine:
            _load(machine, recorder, "old", OLD / 1.5, OLD)
            with ExitStack() as acts:
                for act in (self._tasks, self._kicks, self._freezes):
                    acts.enter_context(_beside(act, machine, recorder))
                _load(machine, recorder, "ping", self.rate, self.rate * self.seconds)

    def _tasks(self, machine: Machine, recorder: Recorder, over: threading.Event) -> None:
        """Adds tasks, some of them for later, one or a few at a time."""
        chance = random.Random(self.seed)
        client = Client(load(str(machine.config), {}))
        queue = taskqueue.Queue(client=client)
        number = 0
        while not over.wait(chance.uniform(0.02, 0.2)):
            ids = [f"task-{number + more}" for more in range(chance.choice((1, 1, 5)))]
            number += len(ids)
            wait = chance.choice((0, 0, 3600))
            tasks = [taskqueue.Task(json.dumps({"itemId": each}), url="/work", countdown=wait) for each in ids]
            with suppress(taskqueue.Error, GlassqError):
                queue.add(tasks)
                recorder.say(f"kept {' '.join(ids)}")
        client.close()

    def _kicks(self, machine: Machine, _: Recorder, over: threading.Event) -> None:
        """Kicks buried jobs, oldest first, as an operator does."""
        queue = open_queue(QueueSettings(url=QueueUrl(f"beanstalk://127.0.0.1:{machine.queue_port}")))
        while not over.wait(0.15):
            with suppress(GlassqError):
                job = queue.peek_first("buried")
                if job is not None:
                    queue.kick(job.id)
        queue.close()

    def _freezes(self, machine: Machine, _: Recorder, over: threading.Event) -> None:
        """Freezes the syncer, or beanstalkd, now and then: pings go to intake's own files."""
        chance = random.Random(self.seed)
        while self.freezes and not over.wait(chance.uniform(2.0, 5.0)):
            main = chance.choice((machine.syncer, machine.syncer, machine.beanstalkd)).main()
            if main is not None:
                main.send(signal.SIGSTOP)
                over.wait(1.5)
                main.send(signal.SIGCONT)


class _Promises(Load):
    """A load that says which pings were acknowledged."""

    recorder: Recorder

    def _note(self, made: Try) -> Try:
        if made.acknowledged:
            self.recorder.say(f"kept {made.ping}")
        return super()._note(made)


def _load(machine: Machine, recorder: Recorder, name: str, rate: float, pings: float) -> None:
    load = _Promises(
        machine.web_port, machine.token, machine.directory / "client.log", name=name, clients=CLIENTS, rate=rate
    )
    load.recorder = recorder
    with load:
        time.sleep(pings / rate)


@contextmanager
def _beside(
    act: Callable[[Machine, Recorder, threading.Event], None], machine: Machine, recorder: Recorder
) -> Iterator[None]:
    over = threading.Event()
    thread = threading.Thread(target=act, args=(machine, recorder, over), name=act.__name__)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
