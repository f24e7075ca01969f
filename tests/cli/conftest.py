"""`glassq` on a real queue with deliveries in every state."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import tempfile
import threading
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from glassq import delivery as envelope
from glassq import log
from glassq.cli import main
from glassq.delivery import Delivery, Evidence
from glassq.ledger import Entry, open_ledger
from glassq.settings import LedgerSettings
from glassq.values import QueueUrl
from tests import forked
from tests.conftest import free_port, program
from tests.queues.raw_postgres import PostgresQueue, fresh_url
from tests.syncers import queue_section

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.queues.raw import Queue

# What a stranger may send to play tricks on a terminal.
NASTY = "\x1b]0;owned\x07\x1b[2J[red]bold[/red] \u202egpj.exe\x9b31m"


#: commands that start programs of ours, which this process would not fork
PROCESSES = ("doctor", "config")


@dataclass(frozen=True)
class Said:
    """What one run of a command came to."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def with_bind(settings: str) -> str:
    """These sections, and an address of intake's at which nobody answers: somebody may, at the default one."""
    before, intake, after = settings.partition("[intake]\n")
    if "bind = " in after.partition("\n[")[0]:
        return settings
    return f'{before}[intake]\nbind = "127.0.0.1:{free_port()}"\n{after if intake else ""}'


@dataclass
class Cli:
    """Runs `glassq` with a settings file of its own. The ledger is a file, unless `ledger_url` names another."""

    directory: Path
    url: str
    env: dict[str, str] = field(default_factory=dict)
    ledger_url: str = ""

    @property
    def file(self) -> Path:
        return self.directory / "glassq.toml"

    @property
    def ledger(self) -> LedgerSettings:
        return LedgerSettings(url=self.ledger_url or f"sqlite:///{self.directory}/ledger.db")

    def configure(self, more: str = "") -> None:
        bodies = "" if "[bodies]" in more else f'[bodies]\nurl = "file://{self.directory}/bodies"\n'
        self.file.write_text(
            f'{queue_section(self.url)}{bodies}[ledger]\nurl = "{self.ledger.url}"\n'
            f'[storage]\nurl = "file://{self.directory}/photos"\n{with_bind(more)}'
        )

    def __call__(self, *arguments: str, answer: str | None = None) -> Said:
        """`answer` is what standard input holds; it is never a terminal."""
        with tempfile.TemporaryFile() as given:
            given.write((answer or "").encode())
            given.seek(0)
            # commands handle signals
            here = threading.current_thread() is threading.main_thread() and arguments[0] not in PROCESSES
            return (self._called if here else self._forked)(given.fileno(), *arguments)

    def _called(self, standard_input: int, *arguments: str) -> Said:
        """In this process, which takes a fifth of the CPU time of one that is forked."""
        with ExitStack() as stack:
            out, err = [stack.enter_context(tempfile.TemporaryFile()) for _ in range(2)]
            numbers = {"stdin": standard_input, "stdout": out.fileno(), "stderr": err.fileno()}
            patch = stack.enter_context(pytest.MonkeyPatch.context())
            for name, number in numbers.items():
                stream = os.fdopen(number, "r" if name == "stdin" else "w", closefd=False, errors="backslashreplace")
                patch.setattr(sys, name, stack.enter_context(stream))
            for name, value in self.env.items():
                patch.setenv(name, value)
            code = main.main(["--config", str(self.file), *arguments])
            log.release()
            sys.stdout.flush()
            sys.stderr.flush()
            return Said(code, forked.text(out), forked.text(err))

    def started(self, *arguments: str, answer: str | None = None) -> Said:
        """The same, with a Python of its own from its first instruction on."""
        done = subprocess.run(
            [*program("glassq"), "--config", str(self.file), *arguments],
            input=answer or "",
            capture_output=True,
            text=True,
            timeout=60,
            env={**os.environ, **self.env},
        )
        return Said(done.returncode, done.stdout, done.stderr)

    def at_terminal(self, *arguments: str, answer: str) -> Said:
        """The same with an operator at a terminal, who types `answer`."""
        keyboard, terminal = pty.openpty()
        try:
            os.write(keyboard, answer.encode())
            return self._forked(terminal, *arguments)
        finally:
            os.close(keyboard)
            os.close(terminal)

    def _forked(self, standard_input: int, *arguments: str) -> Said:
        return Said(*forked.run(["--config", str(self.file), *arguments], os.environ | self.env, standard_input))

    def record(self, delivery: Delivery, state: str, job: int = 0, **fields: Any) -> None:
        ledger = open_ledger(self.ledger)
        now = datetime.now(UTC)
        ledger.record(
            Entry(
                delivery.id,
                delivery.source,
                delivery.received,
                state,
                delivery.attempt,
                now,
                0.5,
                str(job or ""),
                **fields,
            )
        )
        ledger.close()


# The main cases of every command run on each engine.
EACH_ENGINE = pytest.mark.parametrize("cli", ["beanstalkd", "postgres"], indirect=True)


@pytest.fixture
def cli(request: pytest.FixtureRequest, tmp_path: Path) -> Cli:
    engine = getattr(request, "param", "beanstalkd")
    server = request.getfixturevalue(engine)
    made = Cli(tmp_path, fresh_url(server) if engine == "postgres" else server.url)
    made.configure()
    return made


@pytest.fixture
def queue(request: pytest.FixtureRequest, cli: Cli) -> Iterator[Queue | PostgresQueue]:
    """The queue that `cli` is about."""
    on_postgres = QueueUrl(cli.url).engine == "postgres"
    opened = PostgresQueue(QueueUrl(cli.url)) if on_postgres else request.getfixturevalue("beanstalkd").queue()
    yield opened
    opened.close()


@pytest.fixture
def offline(tmp_path: Path) -> Cli:
    """Without a queue, for commands that need none."""
    made = Cli(tmp_path, f"beanstalk://{tmp_path}/nobody.sock")
    made.configure()
    return made


def working_in(directory: Path) -> set[int]:
    """The living processes that have a file of this directory open, on Linux."""
    found = set()
    for descriptors in Path("/proc").glob("[0-9]*/fd"):
        # a process may end meanwhile, or be another user's
        with suppress(OSError):
            for link in descriptors.iterdir():
                with suppress(OSError):
                    if link.readlink().is_relative_to(directory):
                        found.add(int(link.parts[2]))
    return found


def a_delivery(body: bytes = b'{"collection":"timeline","verifyToken":"s3cret"}', **fields: Any) -> Delivery:
    made = envelope.new("mirror", body, {"collection": "timeline", "operation": "INSERT"})
    return msgspec.structs.replace(made, **fields)


def evidence(message: str = "503 from the API", **fields: Any) -> Evidence:
    values: dict[str, Any] = {"attempt": 1, "outcome": "retry", "error": "HttpError", "duration": 1.5, "host": "here"}
    values["at"] = datetime.now(UTC) - timedelta(minutes=5)
    return Evidence(message=message, **{**values, **fields})


def put(queue: Queue, delivery: Delivery, state: str = "ready") -> int:
    """Puts the delivery and brings its job into `state`; returns the job's id."""
    return put_bytes(queue, envelope.encode(delivery), state)


def put_bytes(queue: Queue, body: bytes, state: str = "ready") -> int:
    job = queue.put(body, delay=3600 if state == "delayed" else 0)
    if state in ("reserved", "buried"):
        queue.reserve_job(job)
    if state == "buried":
        queue.bury(job)
    return job
