"""A pool on a service of Amazon's: its settings, its handler, and who puts deliveries for it."""

from __future__ import annotations

import json
import os
import signal
import time
from abc import ABC, abstractmethod
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from glassq import delivery as envelope
from glassq.queues import open_inspector, open_producer, open_tables
from glassq.queues.base import NewJob, Receipt
from glassq.settings import load
from tests.conftest import Process
from tests.queues.aws.service import CREDENTIALS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from glassq.settings import Settings

SETTINGS = """
[queue]
url = "{url}"
tube = "pings"
ttr = "{ttr}s"
timeout = "5s"
[worker]
processes = {processes}
max_attempts = 3
max_lost = 1000
backoff = "1s"
backoff_cap = "2s"
max_jobs = 100000
# a lease is longer than it
deadline = "{ttr}s"
grace = "5s"
[[routes]]
source = "chaos"
handler = "written:handle"
[bodies]
url = "file://{home}/bodies"
[ledger]
url = "sqlite:///{home}/ledger.db"
{more}"""
# What begins and what is done goes to a file each; what fails, fails once or always.
HANDLER = """
import json, os, time
from pathlib import Path
from glassq import Retry
record = os.open(Path(__file__).with_name("worked"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

def handle(delivery):
    known = json.loads(delivery.body)
    os.write(record, f"begin {delivery.id} {os.getpid()}\\n".encode())
    if known.get("fails") == "always" or (known.get("fails") == "once" and delivery.attempt == 1):
        os.write(record, f"fail {delivery.id} {os.getpid()}\\n".encode())
        raise Retry("it fails", delay=known.get("delay", 1))
    time.sleep(known.get("lasts", 0))
    os.write(record, f"done {delivery.id} {os.getpid()}\\n".encode())
"""


def make_queue(config: Path) -> Settings:
    """Makes at the service what these settings need there; the settings."""
    settings = load(str(config), {})
    tables = open_tables(settings, settings.queue.url)
    assert tables is not None
    with closing(tables):
        tables.upgrade()
    return settings


class AwsPool(ABC):
    """A pool that works what is put; `worked` says what it did."""

    def __init__(self, home: Path, url: str, *, processes: int, ttr: int, more: str = "") -> None:
        """`url` is its queue's; `ttr` is in seconds; `more` are settings."""
        self.home = home
        self._env = dict(CREDENTIALS)
        os.environ.update(CREDENTIALS)
        self.config = home / "glassq.toml"
        self.config.write_text(SETTINGS.format(url=url, home=home, processes=processes, ttr=ttr, more=more))
        (home / "written.py").write_text(HANDLER)
        self.settings = make_queue(self.config)
        self._producer = open_producer(self.settings)
        self._process: Process | None = None

    def start(self) -> None:
        where = ["--config", str(self.config)]
        env = {**self._env, "RUNTIME_DIRECTORY": str(self.home)}
        self._process = Process(where, self.home / "pool.log", env, cwd=self.home, forks="glassq-worker")

    def put(self, bodies: Sequence[dict[str, object]], *, delay: float = 0.0) -> list[str]:
        """Puts a delivery for each until all are taken; their ids."""
        made = [envelope.new("chaos", json.dumps(body).encode(), {}, tube="pings") for body in bodies]
        waiting = [NewJob(each.id, envelope.encode(each), "pings", delay) for each in made]
        while waiting:
            answers = self._producer.put(waiting, within=5.0, again=True)
            waiting = [job for job, answer in zip(waiting, answers, strict=True) if not isinstance(answer, Receipt)]
        return [each.id for each in made]

    def children(self) -> list[int]:
        """The pids of those that work."""
        assert self._process is not None
        try:
            found = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        except OSError:
            return []
        return [pid for each in found if "glassq-worker: child" in _title(pid := int(each))]

    def kill_child(self, number: int) -> int:
        """Kills one of them; its pid, 0 if there is none."""
        found = self.children()
        if not found:
            return 0
        pid = found[number % len(found)]
        os.kill(pid, signal.SIGKILL)
        return pid

    def kill(self) -> None:
        """All its processes at once."""
        assert self._process is not None
        for pid in (self._process.pid, *self.children()):
            os.kill(pid, signal.SIGKILL)
        self._process.wait()

    @abstractmethod
    def left(self) -> int:
        """How many deliveries wait or are worked, buried ones aside: what the service itself knows."""

    def worked(self) -> list[tuple[str, str, int]]:
        """What was begun, failed and done: the word, the delivery, and the pid."""
        record = self.home / "worked"
        text = record.read_text() if record.exists() else ""
        # a line that is written right now may be there in part, where it crosses two pages
        lines = text[: text.rfind("\n") + 1].splitlines()
        return [(word, delivery, int(pid)) for word, delivery, pid in (line.split() for line in lines)]

    def done(self) -> list[str]:
        return [delivery for word, delivery, _ in self.worked() if word == "done"]

    def buried(self) -> list[str]:
        """The deliveries that were buried, each as often as it lies there."""
        with closing(open_inspector(self.settings)) as inspector:
            found = inspector.find(frozenset({"buried"}), ["pings"])
            return sorted(envelope.decode(job.body).id for job in found)

    def end(self) -> float:
        """Stops it; how long that took, in seconds."""
        began = time.monotonic()
        if self._process is not None:
            self._process.end()
        return time.monotonic() - began


def _title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""
