"""A target in plain shell, its tasks put by `taskqueue.add` and worked by a real pool through a real beanstalkd."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import pytest

from glassq import settings as settings_of
from glassq.cli.commands.dev import new_sections
from glassq.dev.stack import Stack, write_settings
from glassq.push import queue_yaml
from glassq.push.client import Client
from glassq.push.request import tube_of
from glassq.push.taskqueue import Queue, Task
from glassq.settings import toml_value
from glassq.values import Bind
from tests.conftest import ROOT, Process, free_port, wait_for
from tests.queues.raw import open_queue

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from glassq.settings import Settings

SHELL = ROOT / "examples" / "shell"
DEADLINE = 60.0
PUSH = """
[push]
queue_yaml = {queue_yaml}
names = "sqlite:///{directory}/task-names.db"
[push.targets]
shell = "http://127.0.0.1:{port}"
"""


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, Path]]:
    """The port that target.sh answers at, and the directory it keeps payloads in."""
    state = tmp_path_factory.mktemp("state")
    command = [sys.executable, str(SHELL / "listen.py"), "--port", "0", str(SHELL / "target.sh")]
    process = Process(command, state / "listen.log", {"STATE_DIRECTORY": str(state)})
    try:
        wait_for(lambda: "listening at" in process.output() or not process.running(), "listen.py to listen", DEADLINE)
        said = re.search(r":(\d+)$", process.output(), re.MULTILINE)
        assert said, process.output()
        yield int(said[1]), state
    finally:
        code = process.end()
    assert code == 0, process.output()


@pytest.fixture(scope="module")
def settings(target: tuple[int, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """beanstalkd and the pool run, with the example's queue.yaml."""
    directory = tmp_path_factory.mktemp("stack")
    write_settings(directory, {"intake": {"bind": f"127.0.0.1:{free_port()}"}}, "glassq.glass.photos:store")
    config = directory / "glassq.toml"
    push = PUSH.format(queue_yaml=toml_value(SHELL / "queue.yaml"), directory=directory, port=target[0])
    # the photos' handler would want credentials; there are tasks only
    config.write_text(config.read_text().partition("[[routes]]")[0] + push)
    with Stack(directory, logs=True):
        yield settings_of.load(str(config), {})


def all_worked(settings: Settings) -> bool:
    queue = open_queue(settings.queue)
    try:
        counts = queue.stats_tube(tube_of(settings.queue.tube, "shell"))
    finally:
        queue.close()
    assert not counts.buried
    return not counts.ready + counts.reserved + counts.delayed


def ask(port: int, request: bytes) -> bytes:
    """The whole answer to a request of these very bytes, after which we send no more."""
    with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE) as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        while piece := connection.recv(4096):
            answer += piece
    return answer


def test_tasks_are_appended_once_each_and_one_that_fails_first_is_tried_again(
    target: tuple[int, Path], settings: Settings
) -> None:
    payloads = target[1] / "payloads"
    large = "x" * 50_000
    wanted = [*(f"hello {number}" for number in range(10)), "fail-once: hello again", "Grüße & $(id) `id`", large]
    client = Client(settings)
    try:
        Queue("shell", client=client).add([Task(words, url="/append") for words in wanted])
    finally:
        client.close()
    wait_for(lambda: all_worked(settings), "all tasks to be worked", DEADLINE)
    # in any order: a queue has none
    assert sorted(payloads.read_text("utf-8").splitlines()) == sorted(wanted)
    wait_for(lambda: not list(target[1].glob("payload.*")), "target.sh to clean up")


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"POST /append HTTP/1.1\r\nContent-Length: 2\r\n\r\nhi", b"403"),
        (b"POST /append HTTP/1.1\r\nX-AppEngine-QueueName: q\r\nX-AppEngine-TaskName: ../up\r\n\r\n", b"400"),
        (b"POST /append HTTP/1.1\r\nContent-Length: $(id)\r\n\r\n", b"400"),
        (b"POST /append HTTP/1.1\r\nContent-Length: 102401\r\n\r\n", b"413"),
        (b"GET / HTTP/1.1\r\nX-AppEngine-QueueName: q\r\nX-AppEngine-TaskName: t\r\n\r\n", b"404"),
        (
            b"POST /append HTTP/1.1\r\nX-AppEngine-QueueName: q\r\nX-AppEngine-TaskName: t\r\n"
            b"Content-Length: 9\r\n\r\ncut",
            b"400",
        ),
    ],
)
def test_what_is_no_task_is_refused_and_leaves_nothing(
    target: tuple[int, Path], request_: bytes, status: bytes
) -> None:
    payloads = target[1] / "payloads"
    before = payloads.read_bytes() if payloads.exists() else b""
    assert ask(target[0], request_).split()[1] == status
    assert (payloads.read_bytes() if payloads.exists() else b"") == before
    assert not (target[1] / "done" / "t").exists()


def test_a_task_that_comes_twice_is_appended_once(target: tuple[int, Path]) -> None:
    request = (
        b"POST /append HTTP/1.1\r\nx-appengine-queuename: shell\r\nX-APPENGINE-TASKNAME: twice\r\n"
        b"Content-Length: 5\r\n\r\ntwice"
    )
    assert ask(target[0], request).split()[1] == b"200"
    assert ask(target[0], request).split()[1] == b"200"
    assert (target[1] / "payloads").read_text("utf-8").splitlines().count("twice") == 1


def test_the_examples_queue_is_read_and_runs_one_task_at_a_time() -> None:
    queue = queue_yaml.load(str(SHELL / "queue.yaml"), ["shell"])["shell"]
    assert queue.max_concurrent_requests == 1
    assert queue.retry.task_retry_limit == 7


def test_the_readme_gives_glassq_dev_the_queue_and_the_target(tmp_path: Path) -> None:
    """What it has pasted into the directory of `glassq dev --dir var/shell` is settings."""
    var = tmp_path / "var" / "shell"
    write_settings(var, new_sections(var, Bind(f"127.0.0.1:{free_port()}")), "handlers:handle")
    (paste,) = re.findall(r"^    (cp .*?\n    END)$", (SHELL / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    (tmp_path / "examples").symlink_to(SHELL.parent)
    subprocess.run(["sh", "-ec", textwrap.dedent(f"    {paste}")], cwd=tmp_path, check=True, timeout=60)
    push = settings_of.load(str(var / "glassq.toml"), {}).push
    assert push is not None
    assert push.targets == {"shell": "http://127.0.0.1:8083"}
    assert "shell" in queue_yaml.load(push.queue_yaml, push.targets)
    assert push.names == f"sqlite:///{var}/task-names.db"


def test_the_script_can_be_started() -> None:
    assert os.access(SHELL / "target.sh", os.X_OK)
