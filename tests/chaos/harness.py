"""One machine with beanstalkd, its syncer, intake and pool. A supervisor restarts each when it ends, as systemd would.

With a recorder (tests/powercut) all that they do to the disk is recorded, and faults can be ordered.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self

from glassq.journal.segment import segments
from glassq.journal.survey import survey
from glassq.settings import QueueSettings
from glassq.values import QueueUrl
from tests.chaos.processes import Handle, children, handle
from tests.ports import free_port
from tests.proxy import Proxy
from tests.queues.raw import open_queue

if TYPE_CHECKING:
    from collections.abc import Callable

    from glassq.queues.beanstalk.protocol import TubeStats
    from tests.powercut.recording import Control, Recorder

ROOT = Path(__file__).parent.parent.parent
WEB_WORKERS, POOL_CHILDREN = 3, 4
# The time from the end of a process to its restart, in seconds (RestartSec=); the syncer is restarted at once.
RESTART_DELAY = 0.2
# No delivery of the torture is delayed for longer, in seconds.
MAX_DELAY = 60
# The supervisor's interval, in seconds.
INTERVAL = 0.02
# Small files: beanstalkd often needs a new one, so that it notices a full disk.
BINLOG_FILE = 100_000
SYNCER = ROOT / "bin" / "glassq-syncer"
HANDLER = Path(__file__).with_name("handler.py")

SETTINGS = """\
[queue]
url = "beanstalk://127.0.0.1:{queue}"
ttr = "15s"
syncer = "{syncer}"
[intake]
bind = "127.0.0.1:{web}"
workers = {web_workers}
journal = "{journal}"
journal_min_free = "1MiB"
"""
# What each machine of a torture has: faults are no reason to give a delivery up.
PATIENT = """\
[sources.mirror]
verify_tokens_file = "{directory}/tokens"
[worker]
processes = {children}
deadline = "20s"
grace = "5s"
max_attempts = 100
# a fault every other second loses many attempts that are not to blame
max_lost = 1000
backoff = "1s"
backoff_cap = "2s"
[[routes]]
source = "mirror"
handler = "torture_handler:handle"
"""
STATE = """\
[ledger]
url = "sqlite:///{directory}/ledger.db"
[log]
level = "info"
"""


@dataclass
class Service:
    """One unit. `answers` says whether it can be used; `ups` are the times (monotonic) at which it became usable."""

    name: str
    command: list[str]
    log: Path
    answers: Callable[[], bool]
    environment: dict[str, str] = field(default_factory=dict)
    #: is run before each start, and must succeed
    before: list[str] = field(default_factory=list)
    #: from its end to its restart, in seconds
    delay: float = RESTART_DELAY
    down_until: float = 0.0
    ups: list[float] = field(default_factory=list)
    up: bool = False
    _popen: subprocess.Popen[bytes] | None = None
    _ended: float = 0.0

    def main(self) -> Handle | None:
        """Its main process, if it runs."""
        return handle(self._popen.pid) if self._popen is not None and self._popen.poll() is None else None

    def children(self) -> list[Handle]:
        """The children of its main process."""
        return children(self._popen.pid) if self._popen is not None else []

    def tend(self, now: float) -> None:
        """Starts the service if it does not run and may run; notes when it answers."""
        if self._popen is not None and self._popen.poll() is not None:
            self._popen, self._ended, self.up = None, now, False
        if self._popen is None and now >= max(self.down_until, self._ended + self.delay):
            self._start()
        if self._popen is not None and not self.up and self.answers():
            self.up = True
            self.ups.append(time.monotonic())

    def stop(self) -> None:
        """Stops it for good."""
        if self._popen is None:
            return
        for process in [*self.children(), handle(self._popen.pid)]:
            if process is not None:
                process.send(signal.SIGCONT)
        self._popen.terminate()
        try:
            self._popen.wait(30)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()
        self._popen = None

    def _start(self) -> None:
        environment = {**os.environ, **self.environment}
        with self.log.open("ab") as output:
            if self.before and subprocess.run(self.before, stdout=output, stderr=output, env=environment).returncode:
                self._ended = time.monotonic()
                return
            self._popen = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment
            )


@dataclass(frozen=True, slots=True)
class Plan:
    """How a machine is set up. `handler` is copied as torture_handler.py; `beanstalkd` are options of it."""

    handler: Path = HANDLER
    beanstalkd: tuple[str, ...] = ("-f1000", "-s", str(BINLOG_FILE))
    web_workers: int = WEB_WORKERS
    children: int = POOL_CHILDREN
    #: more of glassq.toml
    settings: str = ""


class Machine:
    """All services, with their files in one directory. They run while the context lasts."""

    def __init__(
        self, directory: Path, *, disk: Path | None = None, plan: Plan | None = None, recorder: Recorder | None = None
    ) -> None:
        """`disk` is where binlog and journal are, if not in `directory`; a recorder must have it as its root."""
        self.directory = directory.resolve()
        self.disk = disk or self.directory / "disk"
        # each in a directory that may be a disk of its own
        self.binlog, self.journal = self.disk / "queue" / "binlog", self.disk / "intake" / "journal"
        self.plan = plan or Plan()
        self._recorder = recorder
        self.seen: set[Handle] = set()
        self._cleanup = ExitStack()
        self._stopped = threading.Event()
        self._watches: list[Callable[[float], None]] = []

    def __enter__(self) -> Self:
        with ExitStack() as cleanup:
            queue, self.web_port, self.syncer_port = free_port(), free_port(), free_port()
            self.queue_port = queue
            self.proxy = cleanup.enter_context(Proxy(queue))
            self._prepare()
            self._make_services(queue)
            supervisor = threading.Thread(target=self._supervise, name="supervisor", daemon=True)
            supervisor.start()
            cleanup.callback(self._stop, supervisor)
            self.wait_until_up()
            self._cleanup = cleanup.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._cleanup.close()

    @property
    def services(self) -> list[Service]:
        """All services, each after those it needs."""
        return [self.beanstalkd, self.syncer, self.web, self.pool]

    def watch(self, watch: Callable[[float], None]) -> None:
        """From now on the supervisor calls `watch(now)` at each interval."""
        self._watches.append(watch)

    def wait_until_up(self, deadline: float = 60.0) -> None:
        """Raises TimeoutError if one of the services is not up after `deadline` seconds."""
        over = time.monotonic() + deadline
        while not all(service.up and service.main() for service in self.services):
            if time.monotonic() > over:
                down = [service.name for service in self.services if not service.up]
                raise TimeoutError(f"not up: {down}; {self.directory}")
            time.sleep(INTERVAL)

    def tube(self) -> TubeStats:
        """The counts of glassq's tube, not through the proxy. Raises QueueError."""
        queue = open_queue(QueueSettings(url=QueueUrl(f"beanstalk://127.0.0.1:{self.queue_port}")))
        try:
            return queue.stats_tube()
        finally:
            queue.close()

    def journaled(self) -> int:
        """How many deliveries lie in intake's journal, with damaged ones, of which there should be none."""
        return journaled_in(self.journal)

    def control(self, service: str) -> Control:
        """Orders faults of a service; there must be a recorder."""
        assert self._recorder is not None
        return self._recorder.control(service)

    def step(self, seconds: float) -> None:
        """The wall clock of all services is off by so much from now on; there must be a recorder."""
        for service in self.services:
            self.control(service.name).step(seconds)

    def settle(self, deadline: float) -> bool:
        """Waits until there is nothing left to do; False if there still is after `deadline` seconds."""
        over = time.monotonic() + deadline
        while time.monotonic() < over:
            with contextlib.suppress(Exception):
                self._kick_late_ones()
                tube = self.tube()
                if not (self.journaled() or tube.ready or tube.reserved or tube.delayed):
                    return True
            time.sleep(0.1)
        return False

    def stragglers(self) -> list[Handle]:
        """Living processes that no longer belong to any service."""
        owned = {process for service in self.services for process in [*service.children(), service.main()]}
        return [process for process in list(self.seen) if process not in owned and process.lives()]

    def _kick_late_ones(self) -> None:
        """Kicks, as an operator does, what is delayed for longer than any delay: the clock was an hour on then."""
        queue = open_queue(QueueSettings(url=QueueUrl(f"beanstalk://127.0.0.1:{self.queue_port}")))
        try:
            while (job := queue.peek_first("delayed")) and queue.stats_job(job.id).time_left > MAX_DELAY:
                queue.kick(job.id)
        finally:
            queue.close()

    def _prepare(self) -> None:
        self.binlog.mkdir(parents=True, exist_ok=True)
        self.journal.parent.mkdir(exist_ok=True)
        self.token = secrets.token_urlsafe(12)
        (self.directory / "tokens").write_text(f"{self.token}\n")
        shutil.copy(self.plan.handler, self.directory / "torture_handler.py")
        text = (SETTINGS + PATIENT + STATE).format(
            queue=self.proxy.port,
            syncer=f"127.0.0.1:{self.syncer_port}",
            web=self.web_port,
            directory=self.directory,
            journal=self.journal,
            web_workers=self.plan.web_workers,
            children=self.plan.children,
        )
        self.config = self.directory / "glassq.toml"
        self.config.write_text(text + self.plan.settings)

    def _make_services(self, port: int) -> None:
        program = shutil.which("beanstalkd")
        if program is None:
            raise FileNotFoundError("beanstalkd is missing: make setup")
        python, config = sys.executable, ["--config", str(self.config)]
        binlog = ["-b", str(self.binlog), *self.plan.beanstalkd]
        self.beanstalkd = self._service(
            "beanstalkd", [program, "-l", "127.0.0.1", "-p", str(port), *binlog], lambda: listens(port)
        )
        command = [python, str(SYNCER), "--binlog", str(self.binlog)]
        self.beanstalkd.before = [*command, "--prepare"]
        where = ["--queue", f"beanstalk://127.0.0.1:{port}", "--listen", f"127.0.0.1:{self.syncer_port}"]
        self.syncer = self._service("syncer", [*command, *where], lambda: listens(self.syncer_port))
        self.syncer.delay = 0.0
        self.web = self._service("web", [python, str(ROOT / "bin/glassq-web"), *config], lambda: listens(self.web_port))
        self.pool = self._service(
            "pool",
            [python, str(ROOT / "bin/glassq-worker"), *config],
            lambda: len(self.pool.children()) >= self.plan.children,
        )

    def _service(self, name: str, command: list[str], answers: Callable[[], bool]) -> Service:
        environment = self._recorder.environment(name) if self._recorder else {}
        return Service(name, command, self.directory / f"{name}.log", answers, environment)

    def _supervise(self) -> None:
        while not self._stopped.wait(INTERVAL):
            now = time.monotonic()
            for service in self.services:
                service.tend(now)
                processes = [*service.children(), service.main()]
                self.seen.update(process for process in processes if process is not None)
            for watch in self._watches:
                watch(now)

    def _stop(self, supervisor: threading.Thread) -> None:
        self._stopped.set()
        supervisor.join()
        for service in reversed(self.services):
            service.stop()
        for process in self.seen:
            process.send(signal.SIGKILL)


def journaled_in(journal: Path) -> int:
    """How many deliveries lie in a journal."""
    spooled = sum(1 for _ in journal.rglob("*.job"))
    place = journal / "segments"
    return spooled + sum(survey(segment).left for segment in (segments(place) if place.is_dir() else ()))


def listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.2)
        return probe.connect_ex(("127.0.0.1", port)) == 0
