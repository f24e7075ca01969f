"""bin/glassq-tasks as a real process: one on a unix socket and one on TCP, for all tests of this directory."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from glassq.delivery import Delivery, decode
from glassq.errors import DamagedDelivery, JobNotFound
from tests.conftest import ROOT, Beanstalkd, Process, free_port, wait_for
from tests.intake.wire import HEALTH, Wire
from tests.syncers import queue_section

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.intake.wire import Answer

TOKEN = "a-token-that-nobody-guesses"
QUEUE = "/v2/projects/p/locations/l/queues/mail"
DOCUMENT: dict[str, Any] = yaml.safe_load((ROOT / "docs" / "openapi-tasks.yaml").read_text("utf-8"))
TARGETS = {"default": "http://127.0.0.1:9/base", "other": "https://other.test", "deep": "http://127.0.0.1:9/base/deep/"}


class Tasks:
    """glassq-tasks with its files in `directory`; without `tokens` it listens on a unix socket."""

    def __init__(self, directory: Path, beanstalkd: Beanstalkd, tokens: str = "", more: str = "") -> None:
        directory.mkdir()
        self.dir = directory
        self.beanstalkd = beanstalkd
        self.file = directory / "glassq.toml"
        self.metrics = ("127.0.0.1", free_port())
        self.address: tuple[str, int] | str = ("127.0.0.1", free_port()) if tokens else str(directory / "tasks.sock")
        bind = f"127.0.0.1:{self.address[1]}" if tokens else f"unix:{self.address}"
        (directory / "tokens").write_text(tokens)
        (directory / "queue.yaml").write_text(
            "queue:\n- name: mail\n  rate: 100/s\n- name: slow\n  rate: 1/m\n- name: unused\n  rate: 1/m\n"
        )
        targets = "".join(f'{name} = "{url}"\n' for name, url in TARGETS.items())
        token_file = f'token_file = "{directory / "tokens"}"\n' if tokens else ""
        self.file.write_text(
            f"{queue_section(beanstalkd.url)}"
            f'[push]\nqueue_yaml = "{directory / "queue.yaml"}"\nnames = "sqlite:///{directory / "names.db"}"\n'
            f"[push.targets]\n{targets}"
            f'[tasks]\nbind = "{bind}"\n{token_file}{more}\n'
            f'[metrics]\ntasks = "127.0.0.1:{self.metrics[1]}"\n'
            '[log]\nlevel = "debug"\n'
        )
        self.process = Process(["--config", str(self.file)], directory / "tasks.log", forks="glassq-tasks")

    def wait_ready(self) -> None:
        wait_for(lambda: not self.process.running() or self.healthy(), "glassq-tasks to answer")
        assert self.process.running(), self.log()

    def healthy(self) -> bool:
        try:
            return self.ask(HEALTH).status == 200
        except (OSError, EOFError):
            return False

    def ask(self, data: bytes) -> Answer:
        """The answer to these bytes, on a connection of its own."""
        with Wire(self.address) as wire:
            return wire.ask(data)

    def call(self, line: str, message: Any = None, *headers: str) -> tuple[int, Any]:
        """The status and the JSON of a request, such as "POST /tasks/mail"; `message` is its JSON or bytes."""
        answer = self.ask(self.request(line, message, *headers))
        assert answer.headers["content-type"] == "application/json", answer
        _check(*line.split(" ", 1), answer.status)
        return answer.status, json.loads(answer.body)

    def request(self, line: str, message: Any = None, *headers: str) -> bytes:
        body = message if isinstance(message, bytes) else b"" if message is None else json.dumps(message).encode()
        token = [f"Authorization: Bearer {TOKEN}"] if isinstance(self.address, tuple) else []
        lines = [f"{line} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}", *token, *headers]
        return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body

    def deliveries(self) -> list[Delivery]:
        """All deliveries in the queue, in the order of their puts."""
        with_bodies = []
        queue = self.beanstalkd.queue()
        try:
            for ref in range(1, queue.max_job_id() + 1):
                try:
                    with_bodies.append(decode(queue.peek(ref).body))
                except (JobNotFound, DamagedDelivery):
                    continue
        finally:
            queue.close()
        return with_bodies

    def log(self) -> str:
        return self.process.output()

    def stop(self) -> None:
        assert self.process.end() == 0, self.log()
        assert "Traceback" not in self.log()


def _check(method: str, target: str, status: int) -> None:
    """Fails for an answer that the document does not have; what has no path in it is 404, 405 or 501."""
    path = target.partition("?")[0]
    fitting = [known for known in DOCUMENT["paths"] if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", known), path)]
    # the first is the longest: POST /tasks/QUEUE/PATH takes more parts than one
    operation = DOCUMENT["paths"][fitting[0]].get(method.lower()) if fitting else None
    if operation is None:
        assert status in (400, 404, 405, 501), f"{method} {path} answers {status}"
    else:
        assert str(status) in operation["responses"], f"{method} {path} answers {status}"


@pytest.fixture(scope="session")
def own_beanstalkd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Beanstalkd]:
    server = Beanstalkd(tmp_path_factory.mktemp("tasks-queue"), options=("-z", "131072"))
    yield server
    server.stop()


@pytest.fixture(scope="session")
def tasks(tmp_path_factory: pytest.TempPathFactory, own_beanstalkd: Beanstalkd) -> Iterator[Tasks]:
    """On a unix socket, without tokens."""
    server = Tasks(tmp_path_factory.mktemp("tasks") / "unix", own_beanstalkd)
    server.wait_ready()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def tcp(tmp_path_factory: pytest.TempPathFactory, own_beanstalkd: Beanstalkd) -> Iterator[Tasks]:
    """On TCP, with two tokens."""
    server = Tasks(tmp_path_factory.mktemp("tasks") / "tcp", own_beanstalkd, f"# rotated\n{TOKEN}\nthe-next-one\n")
    server.wait_ready()
    yield server
    server.stop()
