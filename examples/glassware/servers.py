"""What runs in `make example`: the simulated Glass, glassq, and the Glassware under gunicorn."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from glassq.dev.demo import prepare
from glassq.dev.simulator.glass import SimulatedGlass
from glassq.dev.stack import Stack, require_beanstalkd
from glassq.errors import StackError
from glassq.glass import names
from glassq.glass.credentials import CredentialStore
from glassq.glass.subscriptions import subscribe
from glassq.ledger.reader import LedgerReader
from glassq.push.request import DEFAULT_QUEUE, tube_of
from glassq.queues import open_queue
from glassq.settings import load, toml_value
from glassq.values import url_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from glassq.dev.simulator.glass import Attachment, TimelineItem
    from glassq.ledger.entry import Entry
    from glassq.queues import TubeStats
    from glassq.settings import Settings

HERE = Path(__file__).resolve().parent
# How long a server may take to come up, and to end; in seconds.
START, STOP = 30.0, 10.0

# As in README.md, with fewer processes.
SERVERS = {
    "glassware-public": ["--worker-class", "gthread", "--threads", "8"],
    "glassware-tasks": ["--workers", "2", "--timeout", "600"],
}


@dataclass(frozen=True, slots=True)
class Example:
    """Everything that runs. `public` and `tasks` are the addresses of the Glassware's two listeners."""

    settings: Settings
    glass: SimulatedGlass
    public: str
    tasks: str
    check: Callable[[], None]

    def enrol(self, user: str, callback: str) -> None:
        """The user consents: credentials in the store, and a subscription made through the API."""
        account = self.glass.add_user(user)
        CredentialStore.open(self.settings).add(user, account["refresh_token"])
        token = self.settings.secret("sources.mirror.verify_tokens_file")[0]
        subscribe(self.settings, user, "timeline", callback, token)

    @property
    def callback(self) -> str:
        """The Glassware's."""
        return f"http://{self.public}/glassCallback"

    @property
    def intake(self) -> str:
        """glassq's own."""
        return f"http://{self.settings.intake.bind}/hooks/mirror"

    def files(self, item: TimelineItem) -> list[tuple[Path, Attachment]]:
        """Where an item's attachments must come to lie."""
        photos = self.settings.storage.url.directory
        assert photos is not None, "they are stored on disk"
        kept = [each for each in item.attachments if each.content_type != names.STREAM]
        return [
            (photos / names.object_name(item.user, item.id, each.id if number else None, each.content_type), each)
            for number, each in enumerate(kept)
        ]

    def counts(self) -> tuple[TubeStats, TubeStats]:
        """The pings at the intake's tube, and the tasks. Raises StackError where a process has died."""
        self.check()
        queue = open_queue(self.settings.queue)
        try:
            # in this order: what goes from the one to the other meanwhile is seen twice rather than not at all
            return queue.stats_tube(), queue.stats_tube(tube_of(self.settings.queue.tube, DEFAULT_QUEUE))
        finally:
            queue.close()

    def answers(self) -> list[tuple[int, Entry]]:
        """What the Glassware answered to each delivery that is done, as the ledger has it."""
        with LedgerReader(self.settings.ledger) as ledger:
            done = ledger.recent(10_000, "done")
        return [(msgspec.json.decode(each.result)["status"], each) for each in done]


@contextmanager
def running(directory: Path) -> Iterator[Example]:
    """The simulated Glass, glassq and the Glassware; all state of an earlier run in `directory` is removed.

    Raises StackError where one of them does not come up, or beanstalkd is missing.
    """
    require_beanstalkd()
    with SimulatedGlass() as glass, ExitStack() as cleanup:
        # gunicorn gets them open: nobody else can take their ports meanwhile
        listeners = [cleanup.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(2)]
        public, tasks = (f"127.0.0.1:{each.getsockname()[1]}" for each in listeners)
        directory = prepare(directory, glass)
        config = directory / "glassq.toml"
        text = config.read_text("utf-8").replace("glassq.glass.photos:store", f"http://{tasks}/taskHandler")
        config.write_text(text + _push(directory, tasks), "utf-8")
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

        # the pool comes up while they do
        stack = cleanup.enter_context(Stack(directory, logs=True))
        for address in (public, tasks):
            _wait_for(address, check)
        yield Example(load(str(config), {}), glass, public, tasks, check)


def _push(directory: Path, tasks: str) -> str:
    """The sections of glassq.toml that tasks need."""
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
            # a Ctrl-C is ours: we stop them in order
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
    """Until a program answers there, whatever it says; gunicorn listens before it has loaded one."""
    over = time.monotonic() + START
    while time.monotonic() < over:
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
    raise StackError(f"nobody answers at {address}")
