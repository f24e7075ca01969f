"""The servers of `make example`: the simulated Glass, glassq, and the Glassware under gunicorn."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from glassq.dev.demo import prepare
from glassq.dev.queue_server import require_beanstalkd
from glassq.dev.simulator.glass import SimulatedGlass
from glassq.dev.stack import Stack
from glassq.errors import StackError
from glassq.glass import names
from glassq.glass.credentials import CredentialStore
from glassq.glass.subscriptions import subscribe
from glassq.ledger.reader import LedgerReader
from glassq.operations import Operations, queue_tables
from glassq.push.request import DEFAULT_QUEUE, tube_of
from glassq.queues import open_inspector
from glassq.settings import load, toml_value
from glassq.values import url_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from glassq.dev.simulator.glass import Attachment, TimelineItem
    from glassq.ledger.entry import Entry
    from glassq.queues.base import TubeCounts
    from glassq.settings import Settings

HERE = Path(__file__).resolve().parent
# Deadlines for a server's start and stop, in seconds.
START, STOP = 30.0, 10.0

# As in README.md, with fewer processes.
SERVERS = {
    "glassware-public": ["--worker-class", "gthread", "--threads", "8"],
    "glassware-tasks": ["--workers", "2", "--timeout", "600"],
}


@dataclass(frozen=True, slots=True)
class Example:
    """The running servers. `public` and `tasks` are the addresses of the Glassware's two listeners."""

    settings: Settings
    glass: SimulatedGlass
    public: str
    tasks: str
    check: Callable[[], None]

    def enrol(self, user: str, callback: str) -> None:
        """Enrols a user: stores the credentials, and subscribes through the API."""
        account = self.glass.add_user(user)
        CredentialStore.open(self.settings).add(user, account["refresh_token"])
        token = self.settings.secret("sources.mirror.verify_tokens_file")[0]
        subscribe(self.settings, user, "timeline", callback, token)

    @property
    def callback(self) -> str:
        """The Glassware's callback URL."""
        return f"http://{self.public}/glassCallback"

    @property
    def intake(self) -> str:
        """The callback URL of glassq's intake."""
        return f"http://{self.settings.intake.bind}/hooks/mirror"

    def files(self, item: TimelineItem) -> list[tuple[Path, Attachment]]:
        """The paths for an item's attachments, each with the attachment."""
        photos = self.settings.storage.url.directory
        assert photos is not None, "they are stored on disk"
        kept = [each for each in item.attachments if each.content_type != names.STREAM]
        return [
            (photos / names.object_name(item.user, item.id, each.id if number else None, each.content_type), each)
            for number, each in enumerate(kept)
        ]

    def counts(self) -> tuple[TubeCounts, TubeCounts]:
        """The counts of the pings' tube and of the tasks' tube. Raises StackError if a process has died."""
        self.check()
        main = self.settings.queue.tube
        with closing(open_inspector(self.settings)) as queue:
            # in this order, so that a ping on its way between the two is counted twice rather than not at all
            pings, tasks = queue.counts([main, tube_of(main, DEFAULT_QUEUE)])
        return pings, tasks

    def answers(self) -> list[tuple[int, Entry]]:
        """The Glassware's status for each finished delivery, from the ledger."""
        with LedgerReader(self.settings.ledger) as ledger:
            done = ledger.recent(10_000, "done")
        return [(msgspec.json.decode(each.result)["status"], each) for each in done]


@contextmanager
def running(directory: Path, *, queue: str = "") -> Iterator[Example]:
    """Runs the simulated Glass, glassq and the Glassware; removes the state of an earlier run in `directory`.

    With `queue` the queue is the one at this URL, which runs already. Raises StackError if one of them does not start,
    or beanstalkd is missing.
    """
    if not queue:
        require_beanstalkd()
    with SimulatedGlass() as glass, ExitStack() as cleanup:
        # gunicorn inherits the open sockets, so that no other process can take their ports
        listeners = [cleanup.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(2)]
        public, tasks = (f"127.0.0.1:{each.getsockname()[1]}" for each in listeners)
        directory = prepare(directory, glass)
        config = directory / "glassq.toml"
        text = config.read_text("utf-8").replace("glassq.glass.photos:store", f"http://{tasks}/taskHandler")
        config.write_text(text + _push(directory, tasks), "utf-8")
        if queue:
            _take_queue(config, queue)
        (directory / "log").mkdir()
        processes = {
            name: cleanup.enter_context(_gunicorn(listener, options, config, directory / "log" / f"{name}.log"))
            for listener, (name, options) in zip(listeners, SERVERS.items(), strict=True)
        }

        def check() -> None:
            stack.check()
            for name, process in processes.items():
                if process.poll() is not None:
                    raise StackError(f"{name} ended with exit code {process.returncode}: see {directory / 'log'}")

        # the pool starts while the gunicorns do
        stack = cleanup.enter_context(Stack(directory, logs=True))
        for address in (public, tasks):
            _wait_for(address, check)
        yield Example(load(str(config), {}), glass, public, tasks, check)


def _take_queue(config: Path, url: str) -> None:
    """Names another queue in the settings, and changes nothing else; makes what it needs."""
    text = re.sub(r"\[queue\]\n(.+\n)*", f"[queue]\nurl = {toml_value(url)}\n", config.read_text("utf-8"))
    config.write_text(text, "utf-8")
    queue_tables.init(Operations(load(str(config), {}), actor="example"))


def _push(directory: Path, tasks: str) -> str:
    """The sections of glassq.toml for tasks."""
    names = f"sqlite:///{url_path(directory)}/task-names.db"
    return (
        f"\n[push]\nqueue_yaml = {toml_value(HERE / 'queue.yaml')}\nnames = {toml_value(names)}\n"
        f"\n[push.targets]\ndefault = {toml_value(f'http://{tasks}')}\n"
    )


@contextmanager
def _gunicorn(
    listener: socket.socket, options: list[str], config: Path, log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "gunicorn", "--chdir", str(HERE), "--no-control-socket"]
    command += ["--bind", f"fd://{listener.fileno()}"]
    with log.open("ab") as output:
        process = subprocess.Popen(
            [*command, *options, "app:get_app()"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, "GLASSQ_CONFIG": str(config)},
            pass_fds=[listener.fileno()],
            # keeps a Ctrl-C from the servers: this process stops them in order
            start_new_session=True,
        )
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_for(address: str, check: Callable[[], None]) -> None:
    """Waits for any answer at the address: gunicorn listens before it has loaded the program."""
    deadline = time.monotonic() + START
    while time.monotonic() < deadline:
        check()
        connection = HTTPConnection(address, timeout=START)
        try:
            connection.request("GET", "/")
            connection.getresponse()
        except (OSError, HTTPException):
            time.sleep(0.05)
        else:
            return
        finally:
            connection.close()
    raise StackError(f"no server answers at {address}")
