"""Named tasks added by several processes, some of which die or stand still half-way: at least once.

Twice only where an adder died after its put, and nobody could know of it.
"""

from __future__ import annotations

import os
import textwrap
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from glassq.database.engine import parse_url
from glassq.push import taskqueue
from glassq.push.client import Client
from glassq.push.names import Names
from glassq.push.taskqueue import Queue, Task
from glassq.settings import PushSettings, Settings
from glassq.values import TargetUrl
from tests.conftest import ROOT, Beanstalkd, wait_for
from tests.forked import Forked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

TUBE = "glassq.push.default"
# Seconds after which a claim is taken over in these tests.
CONFIRM = 1.5

# Adds a task named "a". Before and after its put, and after its proof, it says so, and where it is told to, waits for a
# line.
ADDER = textwrap.dedent(
    """
    import sys
    from glassq.push.names import Names
    from glassq.database.engine import parse_url
    from glassq.push import taskqueue
    from glassq.push.client import Client
    from glassq.queues.beanstalk.connection import BeanstalkConnection
    from glassq.queues.beanstalk.producer import BeanstalkProducer
    from glassq.queues.beanstalk.prover import SyncerProver
    from glassq.settings import PushSettings, Settings
    from glassq.values import TargetUrl

    url, syncer, names, confirm, wait = sys.argv[1:]

    def stop(word):
        print(word, flush=True)
        if word == wait:
            sys.stdin.readline()

    class Stopping(BeanstalkConnection):
        def pipeline(self, commands):
            stop("before")
            results = super().pipeline(commands)
            stop("after")
            return results

    class Proving(BeanstalkProducer):
        def confirm(self, receipts, *, within):
            super().confirm(receipts, within=within)
            stop("proven")

    push = PushSettings(names=names, targets={"default": TargetUrl("http://127.0.0.1:8080")})
    client = Client(
        Settings(push=push),
        producer=Proving(
            lambda: Stopping(url, "glassq", ttr=60, connect_timeout=1, timeout=2),
            SyncerProver(syncer, connect_timeout=5),
        ),
        names=Names(parse_url(names, "[push] names"), confirm=float(confirm)),
    )
    stop("begin")
    try:
        taskqueue.Queue("default", client=client).add(taskqueue.Task(name="a"))
        print("added", flush=True)
    except taskqueue.Error as error:
        print(type(error).__name__, flush=True)
    client.close()
    """
)


class Adder:
    """A process that adds the task, as far as it is let."""

    def __init__(self, server: Beanstalkd, names: str, wait: str) -> None:
        arguments = [ADDER, server.url, server.syncer.address, names, str(CONFIRM), wait]
        (given, typing), (hearing, said) = os.pipe(), os.pipe()
        self._process = Forked("-c", arguments, (given, said, 2), os.environ, ROOT)
        for theirs in (given, said):
            os.close(theirs)
        self._stdin, self._stdout = os.fdopen(typing, "w", 1), os.fdopen(hearing)

    def heard(self, word: str) -> None:
        """Returns when it has said this."""
        for line in self._stdout:
            if line.strip() == word:
                return
        pytest.fail(f"the adder ended without {word!r}")

    def go_on(self) -> None:
        self._stdin.write("\n")

    def result(self) -> str:
        """Its last word."""
        self._stdin.close()
        words = self._stdout.read().split()
        self._process.wait(30)
        return words[-1]

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(10)
        self._stdout.close()
        with suppress(BrokenPipeError):
            self._stdin.close()


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'names.db'}"


@pytest.fixture
def adder(beanstalkd: Beanstalkd, url: str) -> Iterator[Callable[[str], Adder]]:
    started: list[Adder] = []

    def start(wait: str) -> Adder:
        started.append(Adder(beanstalkd, url, wait))
        return started[-1]

    yield start
    for each in started:
        each.kill()


@pytest.fixture
def default(beanstalkd: Beanstalkd, url: str) -> Iterator[Queue]:
    push = PushSettings(names=url, targets={"default": TargetUrl("http://127.0.0.1:8080")})
    settings = Settings(queue=beanstalkd.settings, push=push)
    client = Client(settings, names=Names(parse_url(url, "[push] names"), confirm=CONFIRM))
    yield Queue("default", client=client)
    client.close()


def ready(server: Beanstalkd) -> int:
    queue = server.queue()
    found = queue.stats_tube(TUBE).ready
    queue.close()
    return found


def test_of_processes_that_add_one_name_at_once_exactly_one_puts_it(
    beanstalkd: Beanstalkd, adder: Callable[[str], Adder]
) -> None:
    adders = [adder("begin") for _ in range(4)]
    for each in adders:
        each.heard("begin")
    for each in adders:
        each.go_on()
    results = [each.result() for each in adders]
    # on a machine that is slow enough some are told to try again
    assert results.count("added") == 1
    assert set(results) <= {"added", "TaskAlreadyExistsError", "TransientError"}
    assert ready(beanstalkd) == 1


@pytest.mark.parametrize(("killed", "jobs"), [("before", 1), ("after", 2)])
def test_a_name_whose_adder_was_killed_half_way_can_be_added_again(
    beanstalkd: Beanstalkd, adder: Callable[[str], Adder], default: Queue, killed: str, jobs: int
) -> None:
    first = adder(killed)
    first.heard(killed)
    first.kill()
    # killed after its put, but before anybody could know: at least once
    assert default.add(Task(name="a")).was_enqueued
    assert ready(beanstalkd) == jobs
    with pytest.raises(taskqueue.TaskAlreadyExistsError):
        default.add(Task(name="a"))


def test_a_name_whose_adder_was_killed_after_its_put_is_known_from_the_first_attempt(
    beanstalkd: Beanstalkd, adder: Callable[[str], Adder], default: Queue, url: str
) -> None:
    first = adder("after")
    first.heard("after")
    first.kill()
    names = Names(parse_url(url, "[push] names"))
    names.touch("default", "a")
    names.close()
    with pytest.raises(taskqueue.TaskAlreadyExistsError):
        default.add(Task(name="a"))
    assert ready(beanstalkd) == 1


def test_a_second_add_waits_until_the_first_is_confirmed(
    beanstalkd: Beanstalkd, adder: Callable[[str], Adder], default: Queue
) -> None:
    first = adder("before")
    first.heard("before")
    found: list[str] = []

    def second() -> None:
        try:
            default.add(Task(name="a"))
        except taskqueue.Error as error:
            found.append(type(error).__name__)

    thread = threading.Thread(target=second)
    thread.start()
    first.go_on()
    assert first.result() == "added"
    thread.join()
    assert found == ["TaskAlreadyExistsError"]
    assert ready(beanstalkd) == 1


def test_an_adder_that_stood_still_before_its_put_does_not_put_any_more(
    beanstalkd: Beanstalkd, adder: Callable[[str], Adder], default: Queue
) -> None:
    first = adder("before")
    first.heard("before")
    assert default.add(Task(name="a")).was_enqueued
    first.go_on()
    assert first.result() == "TransientError"
    assert ready(beanstalkd) == 1
    with pytest.raises(taskqueue.TaskAlreadyExistsError):
        default.add(Task(name="a"))


@pytest.mark.parametrize(("stage", "said"), [("after", "TransientError"), ("proven", "TaskAlreadyExistsError")])
def test_an_adder_that_stood_still_after_its_put_takes_it_back(
    beanstalkd: Beanstalkd, adder: Callable[[str], Adder], default: Queue, stage: str, said: str
) -> None:
    first = adder(stage)
    first.heard(stage)
    assert default.add(Task(name="a")).was_enqueued
    first.go_on()
    assert first.result() == said
    wait_for(lambda: ready(beanstalkd) == 1, "one of two jobs to be taken back")
    with pytest.raises(taskqueue.TaskAlreadyExistsError):
        default.add(Task(name="a"))


def test_without_its_database_a_named_task_is_refused_for_now_and_an_unnamed_one_is_added(
    beanstalkd: Beanstalkd, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    push = PushSettings(
        names=f"sqlite:///{tmp_path}/file/names.db", targets={"default": TargetUrl("http://127.0.0.1:8080")}
    )
    client = Client(Settings(queue=beanstalkd.settings, push=push))
    queue = Queue("default", client=client)
    with pytest.raises(taskqueue.TransientError, match="task names"):
        queue.add([Task(name="a"), Task()])
    assert queue.add(Task()).was_enqueued
    client.close()
    assert ready(beanstalkd) == 1
