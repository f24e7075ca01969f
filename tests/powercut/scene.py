"""What is recorded: all of glassq under load, with old jobs, retries, tasks, kicks, and faults.

What somebody was promised is said into the recorder's log as soon as he has it: "kept PING" for a 200 and for a task
that was added, and "done PING" by the handler, before it returns.
"""

from __future__ import annotations

import itertools
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
from glassq.settings import QueueSettings, load
from glassq.values import QueueUrl
from tests.chaos.harness import Machine, Plan
from tests.chaos.load import Load, Try
from tests.powercut.checking import CHURNED
from tests.powercut.recording import SAID, Action, Call, Recorder, read
from tests.queues.raw import open_queue

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from glassq.queues.base import WaitingState

# The smallest file that holds our jobs: a new one every few dozen commands.
FILE_SIZE = 8192
RATE, CLIENTS = 150.0, 8
# Old jobs that lie buried or delayed before the load begins, in pings of which one in five is either.
OLD = 150

# Jobs that are put and deleted at once: a new file about ten times a second.
CHURN, CHURN_EVERY = 8, 0.1
# How long the syncer or beanstalkd is frozen, in seconds: longer than intake waits for a proof.
FREEZE = 1.0
# How long the pool may take to work what a power cut has left, in seconds.
SETTLE = 120.0

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
    #: old pings, before the load
    old: int = OLD
    unsynced: tuple[tuple[str, str], ...] = ()

    def record(self, directory: Path, recorder: Recorder) -> None:
        """Runs it; returns when it is over, with all processes ended."""
        for service, match in self.unsynced:
            recorder.control(service).order(Call.SYNC, action=Action.SKIP, match=match)
        with Machine(directory, plan=self.plan(directory), recorder=recorder) as machine:
            _load(machine, recorder, "old", self.old / 1.5, self.old)
            with ExitStack() as acts:
                for act in (self._tasks, self._kicks, self._churns, self._troubles):
                    acts.enter_context(_beside(act, machine, recorder))
                _load(machine, recorder, "ping", self.rate, self.rate * self.seconds)

    def plan(self, directory: Path) -> Plan:
        """The plan of a machine that works what the scene leaves."""
        (directory / "queue.yaml").write_text(QUEUE_YAML)
        return Plan(
            Path(__file__).with_name("handler.py"),
            (self.interval, "-s", str(self.file_size)),
            web_workers=2,
            children=2,
            settings=SETTINGS.format(directory),
        )

    def start_on(self, disk: Path, directory: Path, library: Path) -> set[str]:
        """Starts all on a disk as it was cut, and waits until the pool has nothing to do; the pings that were done."""
        place = directory / "record"
        place.mkdir(parents=True)
        recorder = Recorder(library, root=disk, place=place)
        with Machine(directory, disk=disk, plan=self.plan(directory), recorder=recorder) as machine:
            settled = machine.settle(SETTLE)
        recorder.close()
        if not settled:
            raise TimeoutError(f"not settled: {directory}")
        said = [event.data.decode().split() for event in read(recorder.log) if event.kind == SAID]
        return {ping for words in said for ping in words[1:]}

    def _tasks(self, machine: Machine, recorder: Recorder, over: threading.Event) -> None:
        """Adds tasks, some of them for later, one or a few at a time."""
        chance = random.Random(self.seed)
        client = Client(load(str(machine.config), {}))
        queue = taskqueue.Queue(client=client)
        number = 0
        while not over.wait(chance.uniform(0.02, 0.2)):
            ids = [f"task-{number + more}" for more in range(chance.choice((1, 1, 5)))]
            number += len(ids)
            wait = chance.choice((0, 0, 0, 0, 3600))
            tasks = [taskqueue.Task(json.dumps({"itemId": each}), url="/work", countdown=wait) for each in ids]
            with suppress(taskqueue.Error, GlassqError):
                queue.add(tasks)
                recorder.say(f"kept {' '.join(ids)}")
        client.close()

    def _kicks(self, machine: Machine, _: Recorder, over: threading.Event) -> None:
        """Kicks buried and delayed jobs, as an operator does."""
        queue = open_queue(QueueSettings(url=QueueUrl(f"beanstalk://127.0.0.1:{machine.queue_port}")))
        states: tuple[WaitingState, ...] = ("buried", "delayed")
        for state in itertools.cycle(states):
            if over.wait(0.05):
                break
            with suppress(GlassqError):
                job = queue.peek_first(state)
                if job is not None:
                    queue.kick(job.id)
        queue.close()

    def _churns(self, machine: Machine, _: Recorder, over: threading.Event) -> None:
        """Puts jobs and deletes them: beanstalkd begins files, copies old jobs and removes files."""
        queue = open_queue(QueueSettings(url=QueueUrl(f"beanstalk://127.0.0.1:{machine.queue_port}")))
        while not over.wait(CHURN_EVERY):
            with suppress(GlassqError):
                for job in [queue.put(CHURNED, tube="powercut.churn") for _ in range(CHURN)]:
                    queue.delete(job)
        queue.close()

    def _troubles(self, machine: Machine, _: Recorder, over: threading.Event) -> None:
        """Freezes syncer or beanstalkd, so that pings go into the journal; beanstalkd dies as it removes a file."""
        chance = random.Random(self.seed)
        for trouble in itertools.cycle(("syncer", "unlink", "beanstalkd")):
            if over.wait(chance.uniform(0.5, 1.5)):
                return
            if trouble == "unlink":
                machine.control("beanstalkd").order(Call.UNLINK, last=0, action=Action.DIE_AFTER)
                continue
            main = (machine.syncer if trouble == "syncer" else machine.beanstalkd).main()
            if main is not None:
                main.send(signal.SIGSTOP)
                over.wait(FREEZE)
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
