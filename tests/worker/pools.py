"""A real pool (bin/glassq-worker) with its own settings and handlers. Tests watch its log, /proc and notify socket."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self

from glassq import delivery as envelope
from tests.conftest import PATIENCE, Process, wait_for
from tests.syncers import queue_section

if TYPE_CHECKING:
    from collections.abc import Mapping

    from glassq.delivery import Delivery
    from tests.conftest import Beanstalkd
    from tests.queues.raw import Queue
    from tests.queues.raw_postgres import PostgresQueue

# The titles of the pool's processes that are no children; one that was forked just now has its parent's.
POOL, TEMPLATE = "glassq-worker: pool", "glassq-worker: template"
OTHERS = (POOL, TEMPLATE, "glassq-worker: metrics", "glassq-worker: schedules", "glassq-worker: sweeping bodies")

# Each attempt writes "start NAME PID VERSION" into the file `story`, and "end NAME PID VERSION" when it returns.
HANDLERS = """
import json, os, time
from pathlib import Path

HERE = Path(__file__).parent
VERSION = "one"

def tell(event, name):
    with (HERE / "story").open("a") as story:
        story.write(f"{event} {name} {os.getpid()} {VERSION}\\n")

def handle(delivery):
    ping = json.loads(delivery.body)
    tell("start", ping["name"])
    globals()[ping["do"]](ping["name"])
    tell("end", ping["name"])

def other(delivery):
    handle(delivery)
    tell("other", json.loads(delivery.body)["name"])

def work(name):
    pass

def hold(name):
    while not (HERE / "let-go").exists():
        time.sleep(0.02)

def hold_stubbornly(name):
    try:
        hold(name)
    except Exception:
        return

def swallow_once(name):
    if (HERE / "swallowed").exists():
        return
    while True:
        try:
            (HERE / "swallowed").touch()
            time.sleep(60)
        except BaseException:
            pass

def die(name):
    os._exit(7)
"""


class Notified:
    """systemd's end of the notify socket: all messages so far, in order."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.messages: list[dict[str, str]] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._thread = threading.Thread(target=self._receive)
        self._thread.start()

    def _receive(self) -> None:
        # nothing but `close` makes it empty
        while message := self._socket.recv(4096):
            self.messages.append(dict(line.split("=", 1) for line in message.decode().split("\n")))

    def has(self, name: str) -> bool:
        return any(name in message for message in self.messages)

    def count(self, name: str) -> int:
        return sum(name in message for message in self.messages)

    def close(self) -> None:
        """May be called again."""
        if self._thread.is_alive():
            self._socket.shutdown(socket.SHUT_RD)
        self._thread.join()
        self._socket.close()


class PoolRun:
    """One pool in a directory of its own. As a context manager it ends the pool and all its children."""

    def __init__(
        self,
        directory: Path,
        server: Beanstalkd | PostgresQueue,
        look: Queue | PostgresQueue | None = None,
        **worker: object,
    ) -> None:
        self.dir = directory / "pool"
        self.dir.mkdir()
        self._url = server.url
        self._look = look
        self.worker = worker
        self.notified = Notified(directory / "notify")
        self.process: Process | None = None
        self._children: set[int] = set()
        self.write_handlers(HANDLERS)
        self.write_settings()

    def write_handlers(self, text: str) -> None:
        (self.dir / "handlers.py").write_text(text)

    def write_settings(
        self, handler: str = "handlers:handle", more: str = "", *, timeout: str = "5s", queue: str = "", route: str = ""
    ) -> None:
        """Writes glassq.toml. `queue` and `route` are lines for these sections, `more` is appended."""
        worker = {"processes": 1, **self.worker}
        lines = [
            f'{queue_section(self._url)}timeout = "{timeout}"\n{queue}',
            f'[ledger]\nurl = "sqlite:///{self.dir}/ledger.db"',
            f'[[routes]]\nsource = "mirror"\nhandler = "{handler}"\n{route}',
            "[worker]",
            *(f"{key} = {json.dumps(value)}" for key, value in worker.items()),
        ]
        if "[bodies]" not in more:
            lines += ["[bodies]", f'url = "file://{self.dir}/bodies"']
        self.config.write_text("\n".join(lines) + "\n" + more)

    @property
    def config(self) -> Path:
        return self.dir / "glassq.toml"

    def start(self, arguments: list[str] | None = None, **env: str) -> Self:
        """Starts it: with this command, or else forked."""
        if arguments:
            return self._start(arguments, **env)
        return self._start(["--config", str(self.config)], forks="glassq-worker", **env)

    def _start(self, arguments: list[str], *, forks: str = "", **env: str) -> Self:
        env = {"NOTIFY_SOCKET": str(self.notified.path), **env}
        self.process = Process(arguments, self.dir / "log", env, forks=forks)
        return self

    def start_impatient(self, silence: float = 4.0) -> Self:
        """Starts a pool that kills a child after this many seconds of silence (impatient.py)."""
        return self._start([str(self.config), str(silence)], forks="impatient")

    def start_with(self, constants: Mapping[str, float]) -> Self:
        """Starts it with other values of constants, by the names of their modules below glassq and their own."""
        changes = [f"glassq.{name}={value}" for name, value in constants.items()]
        return self._start([str(self.config), "", *changes], forks="impatient")

    def ready(self) -> Self:
        wait_for(lambda: self.notified.has("READY"), f"the pool to be ready\n{self.log()}")
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process is not None:
            # a stopped parent forks no more children
            self.process.send(signal.SIGSTOP)
            self.children()
            self.process.end(signal.SIGKILL)
            for pid in self._children:
                if self._ours(pid):
                    os.kill(pid, signal.SIGKILL)
        self.notified.close()

    # -- its state -------------------------------------------------------------------------------------

    def children(self) -> list[int]:
        """Pids of the living children, oldest first. The orphans that the pool has adopted are among them."""
        return sorted(pid for pid in self.forked() if title(pid) not in OTHERS)

    def templates(self) -> list[int]:
        """Pids of the living templates, oldest first."""
        return sorted(pid for pid in self.forked() if title(pid) == TEMPLATE)

    def template(self) -> int:
        """The pid of the pool's only template; waits for it."""
        found: list[int] = []

        def only_one() -> bool:
            found[:] = self.templates()
            return len(found) == 1

        wait_for(only_one, f"one template\n{self.log()}")
        return found[0]

    def forked(self) -> list[int]:
        """Pids of all living processes that are the pool's."""
        assert self.process is not None
        found = [pid for pid, state in children_of(self.process.pid).items() if state != "Z"]
        self._children |= set(found)
        return found

    def statuses(self) -> list[str]:
        """The status texts that systemd got, in order."""
        return [message["STATUS"] for message in self.notified.messages if "STATUS" in message]

    def zombies(self) -> list[int]:
        assert self.process is not None
        return [pid for pid, state in children_of(self.process.pid).items() if state == "Z"]

    def _ours(self, pid: int) -> bool:
        """Whether the pid is still that of the pool's child: pids are reused."""
        with suppress(OSError):
            return b"glassq-worker" in Path(f"/proc/{pid}/cmdline").read_bytes()
        return False

    def log(self) -> str:
        return self.process.output() if self.process is not None else ""

    def story(self, event: str) -> list[tuple[str, int, str]]:
        """Name of the ping, pid and version of the handler, for each event of this kind."""
        try:
            lines = (self.dir / "story").read_text().splitlines()
        except FileNotFoundError:
            return []
        parts = [line.split() for line in lines]
        return [(name, int(pid), version) for what, name, pid, version in parts if what == event]

    # -- actions -----------------------------------------------------------------------------------------

    def put(self, name: str, do: str = "work", tube: str = "", source: str = "mirror", **labels: str) -> Delivery:
        assert self._look is not None
        delivery = envelope.new(source, json.dumps({"name": name, "do": do}).encode(), labels, tube=tube)
        self._look.put(envelope.encode(delivery), tube=tube or self._look.tube)
        return delivery

    def holding(self, name: str = "held", do: str = "hold") -> int:
        """Puts a delivery whose attempt does not end by itself; returns the pid of the child that works it."""
        before = len(self.story("start"))
        self.put(name, do)
        wait_for(lambda: len(self.story("start")) > before, f"{name} to be started\n{self.log()}")
        return self.story("start")[-1][1]

    def let_go(self) -> None:
        (self.dir / "let-go").touch()

    def send(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send(number)

    def ended(self, deadline: float = PATIENCE) -> int:
        """Waits for the end of the pool; returns its exit code."""
        assert self.process is not None
        return self.process.wait(deadline)


def title(pid: int) -> str:
    """How it is shown in ps; "" if it has ended."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0 ").decode()
    return ""


def children_of(pid: int) -> dict[int, str]:
    """The state of every process that is the child of this one: to look through all of them takes far longer."""
    found = {}
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            for child in map(int, path.read_text().split()):
                with suppress(OSError):
                    found[child] = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0]
    return found


def processes() -> dict[int, tuple[int, str]]:
    """The parent and state of every process, by pid."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            # the name, in brackets, may contain anything
            state, parent = path.read_text().rpartition(")")[2].split()[:2]
            found[int(path.parent.name)] = (int(parent), state)
    return found
