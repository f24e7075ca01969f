"""Intake and pool on PostgreSQL: pings are acknowledged, worked, retried, buried; kills lose none of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from glassq.delivery import decode
from glassq.queues import open_inspector, open_tables
from glassq.settings import load
from tests.conftest import Process, free_port, wait_for
from tests.postgres import PostgresServer, missing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from glassq.settings import Settings

SETTINGS = """
[queue]
url = "{url}"
tube = "pings"
[intake]
bind = "127.0.0.1:{bind}"
workers = 1
journal = "{home}/spool"
journal_min_free = "1MiB"
[sources.mirror]
verify_tokens_file = "{home}/tokens"
[worker]
processes = 2
max_attempts = 2
max_lost = 1000
backoff = "1s"
backoff_cap = "2s"
[[routes]]
source = "mirror"
handler = "written:handle"
[bodies]
url = "file://{home}/bodies"
[ledger]
url = "sqlite:///{home}/ledger.db"
"""
# Records which pings are done; what fails, fails at each attempt.
HANDLER = """
import json, os
from pathlib import Path
from glassq import Bury, Retry
record = os.open(Path(__file__).with_name("done"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

def handle(delivery):
    name = json.loads(delivery.body)["itemId"]
    if name.startswith("fails"):
        raise Retry("it fails")
    if name.startswith("once") and delivery.attempt == 1:
        raise Retry("the first attempt fails", delay=0.1)
    os.write(record, (name + "\\n").encode())
"""


class Programs:
    """A server, an intake and a pool; what is acknowledged is in `sent`."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.server = PostgresServer(home)
        self.bind = free_port()
        self.config = home / "glassq.toml"
        url = self.server.url(self.server.database())
        self.config.write_text(SETTINGS.format(url=url, bind=self.bind, home=home))
        (home / "tokens").write_text("a token of sixteen\n")
        (home / "tokens").chmod(0o600)
        (home / "written.py").write_text(HANDLER)
        self.settings: Settings = load(str(self.config), {})
        tables = open_tables(self.settings, self.settings.queue.url)
        assert tables is not None
        with closing(tables):
            tables.upgrade()
        self.sent: set[str] = set()
        self.web = self._start("glassq-web")
        self.pool = self._start("glassq-worker")

    def kill_pool(self) -> None:
        """All its processes at once, and starts it again."""
        listed = f"/proc/{self.pool.pid}/task/{self.pool.pid}/children"
        children = [int(pid) for pid in Path(listed).read_text().split()]
        for pid in (self.pool.pid, *children):
            os.kill(pid, signal.SIGKILL)
        self.pool.wait()
        self.pool = self._start("glassq-worker")

    def ping(self, name: str) -> bool:
        """Whether it was acknowledged."""
        body = {"collection": "timeline", "itemId": name, "operation": "INSERT", "userToken": "u"}
        body["verifyToken"] = "a token of sixteen"
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.bind}/hooks/mirror",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                acknowledged = answer.status == 200
        except OSError:
            return False
        if acknowledged:
            self.sent.add(name)
        return acknowledged

    def done(self) -> list[str]:
        record = self.home / "done"
        return record.read_text().split() if record.exists() else []

    def buried(self) -> list[str]:
        with closing(open_inspector(self.settings)) as inspector:
            jobs = inspector.find(frozenset({"buried"}), ["pings"])
            return sorted(json.loads(decode(job.body).body)["itemId"] for job in jobs)

    def close(self) -> None:
        for process in (self.web, self.pool):
            process.end()
        self.server.remove()

    def _start(self, name: str) -> Process:
        where = ["--config", str(self.config)]
        return Process(where, self.home / f"{name}.log", cwd=self.home, forks=name)


@pytest.fixture
def programs(tmp_path: Path) -> Iterator[Programs]:
    if why := missing():
        (pytest.fail if os.environ.get("CI") else pytest.skip)(why)
    running = Programs(tmp_path)
    yield running
    running.close()


def test_pings_are_worked_retried_and_buried_and_none_is_lost_by_kills(programs: Programs) -> None:
    wait_for(lambda: programs.ping("first"), "the first ping to be acknowledged")
    assert programs.ping("once-1")
    assert programs.ping("fails")
    wait_for(lambda: {"first", "once-1"} <= set(programs.done()), "both to be worked")
    wait_for(lambda: programs.buried() == ["fails"], "the third to be buried")
    for number in range(90):
        programs.ping(f"ping-{number}")
        if number == 30:
            programs.kill_pool()
        if number == 60:
            programs.server.kill()
            # the intake's journal takes what the queue cannot
            assert programs.ping("while-it-is-away")
            programs.server.start()
    assert len(programs.sent) == 94
    wanted = programs.sent - {"fails"}
    wait_for(lambda: wanted <= set(programs.done()), "all that was acknowledged to be worked")
    assert programs.buried() == ["fails"]


def test_beanstalkds_pool_and_intake_load_neither_psycopg_nor_botocore() -> None:
    code = (
        "import sys, glassq.intake.wsgi, glassq.worker.pool, glassq.programs.worker, glassq.programs.web\n"
        "from glassq.queues import open_producer, open_receiver\n"
        "from glassq.settings import Settings\n"
        "settings = Settings()\n"
        "open_producer(settings), open_receiver(settings)\n"
        "others = ('psycopg', 'glassq.queues.postgres', 'glassq.database.postgres', 'boto', 'glassq.queues.sqs')\n"
        "sys.exit(any(name.startswith(others) for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
