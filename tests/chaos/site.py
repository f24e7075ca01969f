"""Two machines with an intake and a pool each, and the three PostgreSQL nodes that are their queue.

A supervisor restarts each service when it ends, as systemd would.
"""

from __future__ import annotations

import math
import secrets
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from glassq.errors import GlassqError
from glassq.queues import open_inspector
from glassq.settings import load
from tests.chaos.harness import HANDLER, INTERVAL, PATIENT, ROOT, Service, journaled_in, listens
from tests.ports import free_port
from tests.postgres_cluster import PostgresCluster

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.chaos.processes import Handle
    from tests.postgres_cluster import Node

HOSTS, CHILDREN = 2, 2
# How long everything may take to settle, in seconds, from the last time that less was left to do.
SETTLE_TIMEOUT = 120.0
SETTINGS = """\
[queue]
url = "{queue}"
ttr = "20s"
[intake]
bind = "127.0.0.1:{web}"
workers = 2
journal = "{directory}/journal"
journal_min_free = "1MiB"
"""


@dataclass
class Host:
    """A machine with an intake and a pool. It has no queue of its own."""

    directory: Path
    queue: str
    token: str
    services: list[Service] = field(default_factory=list)
    port: int = 0

    def prepare(self) -> None:
        self.directory.mkdir(parents=True)
        self.port = free_port()
        (self.directory / "tokens").write_text(f"{self.token}\n")
        shutil.copy(HANDLER, self.directory / "torture_handler.py")
        text = (SETTINGS + PATIENT).format(queue=self.queue, web=self.port, directory=self.directory, children=CHILDREN)
        (self.directory / "glassq.toml").write_text(text)
        self.services = [self._service("web", lambda: listens(self.port)), self._service("worker", self._is_whole)]

    @property
    def pool(self) -> Service:
        return self.services[1]

    def journaled(self) -> int:
        """How many pings lie in its journal."""
        return journaled_in(self.directory / "journal")

    def _is_whole(self) -> bool:
        return len(self.pool.children()) >= CHILDREN

    def _service(self, name: str, answers: Callable[[], bool]) -> Service:
        program = [sys.executable, str(ROOT / f"bin/glassq-{name}"), "--config", str(self.directory / "glassq.toml")]
        return Service(name, program, self.directory / f"{name}.log", answers)


class Site:
    """The cluster and the hosts. A supervisor restarts each service when it ends, as systemd would."""

    def __init__(self, directory: Path, *, disk: Path | None = None) -> None:
        self.directory = directory
        self.disk = disk
        self.journaled_most = 0
        self.seen: set[Handle] = set()
        self._stopped = threading.Event()
        self._cleanup = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as cleanup:
            place = self.disk or self.directory / "nodes"
            place.mkdir(parents=True, exist_ok=True)
            self.cluster = cleanup.enter_context(PostgresCluster(place))
            self.queue = self.cluster.url(self.cluster.database()).whole
            token = secrets.token_urlsafe(12)
            self.hosts = [Host(self.directory / f"host{number}", self.queue, token) for number in range(1, HOSTS + 1)]
            self.token = token
            for host in self.hosts:
                host.prepare()
            self._create_tables()
            supervisor = threading.Thread(target=self._supervise, name="supervisor", daemon=True)
            supervisor.start()
            cleanup.callback(self._stop, supervisor)
            self.wait(lambda: all(each.up for each in self.services), "the services to be up", 60)
            self._cleanup = cleanup.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._cleanup.close()

    @property
    def services(self) -> list[Service]:
        return [service for host in self.hosts for service in host.services]

    @property
    def primary(self) -> Node:
        return self.cluster.primary

    def waiting(self) -> int:
        """How many deliveries are not done: in the queue, and in the journals. Raises GlassqError."""
        inspector = open_inspector(load(str(self.hosts[0].directory / "glassq.toml"), {}))
        try:
            queued = sum(counts.jobs for counts in inspector.counts())
        finally:
            inspector.close()
        return queued + sum(host.journaled() for host in self.hosts)

    def settle(self) -> bool:
        """Waits until nothing is left to do; whether that came in time."""
        least, over = math.inf, time.monotonic() + SETTLE_TIMEOUT
        while time.monotonic() < over:
            with suppress(GlassqError):
                left = self.waiting()
                if not left:
                    return True
                if left < least:
                    least, over = left, time.monotonic() + SETTLE_TIMEOUT
            time.sleep(0.2)
        return False

    def wait(self, condition: Callable[[], object], what: str, seconds: float = SETTLE_TIMEOUT) -> None:
        over = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > over:
                raise TimeoutError(f"waited in vain for {what}; {self.directory}")
            time.sleep(INTERVAL)

    def _create_tables(self) -> None:
        config = str(self.hosts[0].directory / "glassq.toml")
        command = [sys.executable, str(ROOT / "bin/glassq"), "--config", config, "queue", "init"]
        subprocess.run(command, check=True, capture_output=True, timeout=60)

    def _supervise(self) -> None:
        while not self._stopped.wait(INTERVAL):
            for service in self.services:
                service.tend(time.monotonic())
                self.seen.update(each for each in [*service.children(), service.main()] if each is not None)

    def _stop(self, supervisor: threading.Thread) -> None:
        self._stopped.set()
        supervisor.join()
        for service in self.services:
            service.stop()
        for process in self.seen:
            process.send(signal.SIGKILL)
