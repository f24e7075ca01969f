"""Two real pools on one PostgreSQL: limits and keys hold over both of them."""

from __future__ import annotations

import signal
import time
from collections import Counter
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from glassq import delivery as envelope
from glassq import taskqueue
from glassq.operations import Operations, queue_tables
from glassq.push.client import Client
from glassq.queues import open_producer
from glassq.queues.base import NewJob
from glassq.queues.durable import put_durably
from glassq.settings import load
from tests.conftest import Process, wait_for
from tests.push.targets import Target

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from glassq.settings import Settings
    from tests.postgres import PostgresServer

# What happens is one line each, in a file of both pools: event, source, key, the pool, the time.
HANDLERS = """
import os, time
from pathlib import Path

STORY = Path(__file__).parent.parent

def tell(event, delivery):
    key, pool = delivery.labels.get("customer", "-"), os.environ["POOL"]
    with (STORY / "story").open("a") as story:
        story.write(f"{event} {delivery.source} {key} {pool} {time.monotonic()}\\n")

def hold(delivery):
    tell("start", delivery)
    while not (STORY / "let-go").exists():
        time.sleep(0.02)
    tell("end", delivery)

def work(delivery):
    tell("start", delivery)
    while not (STORY / "go-on").exists():
        time.sleep(0.02)
    time.sleep(0.03)
    tell("end", delivery)
"""
SETTINGS = """
[queue]
url = "{url}"
[worker]
processes = 5
[[routes]]
source = "few"
name = "few"
handler = "handlers:hold"
concurrency = 3
[[routes]]
source = "keyed"
name = "keyed"
handler = "handlers:work"
concurrency_by = "label.customer"
"""


RATED = """
[queue]
url = "{url}"
[worker]
processes = 3
[push]
queue_yaml = "{yaml}"
[push.targets]
default = "{target}"
"""
# A pool on a host of this name.
NAMED = """
import socket, sys
socket.gethostname = lambda: {name!r}
from glassq.programs.worker import main
sys.exit(main())
"""


class Pools:
    """Two pools in directories of their own, as on two hosts; the story of both is in `directory`."""

    def __init__(self, directory: Path, url: str, settings: str = SETTINGS, **values: object) -> None:
        self.directory = directory
        self.settings: Settings
        self.processes = []
        for name in ("one", "two"):
            home = directory / name
            home.mkdir()
            (home / "handlers.py").write_text(HANDLERS)
            (home / "glassq.toml").write_text(settings.format(url=url, **values))
            self.settings = load(str(home / "glassq.toml"), {})
        queue_tables.init(Operations(self.settings, actor="tests"))
        for name in ("one", "two"):
            home = directory / name
            arguments = [NAMED.format(name=name), "--config", str(home / "glassq.toml")]
            self.processes.append(Process(arguments, home / "log", {"POOL": name}, forks="-c"))

    def put(self, source: str, tube: str, *labels: dict[str, str]) -> None:
        with closing(open_producer(self.settings)) as producer:
            for each in labels:
                delivery = envelope.new(source, b"{}", each, tube=tube)
                job = NewJob(delivery.id, envelope.encode(delivery), delivery.tube)
                put_durably(producer, job, within=30, proof_within=30)

    def story(self, source: str) -> list[tuple[str, str, str, float]]:
        """Event, key, pool and time of each line of this source."""
        file = self.directory / "story"
        lines = file.read_text().splitlines() if file.exists() else []
        found = [line.split() for line in lines]
        return [(each[0], each[2], each[3], float(each[4])) for each in found if each[1] == source]

    def count(self, event: str, source: str) -> int:
        return sum(line[0] == event for line in self.story(source))

    def output(self) -> str:
        return "".join(process.output() for process in self.processes)


@pytest.fixture
def pools(tmp_path: Path, postgres: PostgresServer) -> Iterator[Pools]:
    made = Pools(tmp_path, postgres.url(postgres.database()).whole)
    yield made
    (tmp_path / "let-go").touch()
    for process in made.processes:
        process.end()


def most_at_once(lines: list[tuple[str, str, str, float]]) -> int:
    running = most = 0
    for event, _, _, _ in sorted(lines, key=lambda line: line[3]):
        running += 1 if event == "start" else -1
        most = max(most, running)
    return most


def test_what_one_pool_may_do_two_together_may_do(pools: Pools) -> None:
    pools.put("few", "glassq.route.few", *({} for _ in range(8)))
    wait_for(lambda: pools.count("start", "few") == 3, "three attempts to begin")
    # children of both pools are free for others: more than one of them has
    pools.put("keyed", "glassq", *({"customer": f"d{number}"} for number in range(6)))
    wait_for(lambda: pools.count("start", "keyed") == 6, "children of both to work")
    (pools.directory / "go-on").touch()
    # they work each key one by one
    customers = [{"customer": f"c{number % 3}"} for number in range(30)]
    pools.put("keyed", "glassq", *customers)
    wait_for(lambda: pools.count("end", "keyed") == 6 + len(customers), "all keys to be worked")
    keyed = pools.story("keyed")
    assert len({line[2] for line in keyed}) == 2, "both pools worked"
    by_key = {key: [line for line in keyed if line[1] == key] for key in ("c0", "c1", "c2")}
    assert {key: most_at_once(lines) for key, lines in by_key.items()} == dict.fromkeys(by_key, 1)
    assert pools.count("start", "few") == 3
    (pools.directory / "let-go").touch()
    wait_for(lambda: pools.count("end", "few") == 8, "the others to be worked")
    assert most_at_once(pools.story("few")) <= 3
    assert "Traceback" not in pools.output()


def test_the_places_of_a_pool_that_is_killed_are_taken_by_the_other(pools: Pools) -> None:
    pools.put("few", "glassq.route.few", *({} for _ in range(9)))
    wait_for(lambda: pools.count("start", "few") == 3, "three attempts to begin")
    held = Counter(line[2] for line in pools.story("few"))
    killed, left = ("one", "two") if held["one"] >= held["two"] else ("two", "one")
    # with its pool each child ends, and its connection with it
    pools.processes[("one", "two").index(killed)].end(signal.SIGKILL)
    wait_for(lambda: Counter(line[2] for line in pools.story("few"))[left] == 3, "the other pool to have all places")


def test_a_rate_holds_over_two_hosts(tmp_path: Path, postgres: PostgresServer) -> None:
    rate, bucket, count, database = 40, 5, 100, postgres.database()
    yaml = tmp_path / "queue.yaml"
    yaml.write_text(f"queue:\n- name: mail\n  rate: {rate}/s\n  bucket_size: {bucket}\n")
    at: list[float] = []

    def shares() -> dict[str, tuple[float, float]]:
        """The share of each host, and what it uses of that."""
        rows = postgres.execute(
            "SELECT host, rate, used_rate FROM glassq_shares WHERE until > now() AND tube = 'glassq.push.mail'",
            database,
        )
        found = {str(host).partition(":")[0]: (float(str(share)), float(str(used))) for host, share, used in rows}
        assert len(found) == len(rows), "a run has one row"
        assert sum(share for share, _ in found.values()) <= rate + 1e-6
        return found

    with Target() as target:
        target.on_request = lambda _: at.append(time.monotonic())
        pools = Pools(tmp_path, postgres.url(database).whole, RATED, yaml=yaml, target=target.url)
        try:
            wait_for(lambda: len(shares()) == 2, "both hosts to have a share")
            began = time.monotonic()
            with closing(Client(pools.settings)) as client:
                taskqueue.Queue("mail", client=client).add([taskqueue.Task(url="/work") for _ in range(count)])
            wait_for(lambda: all(used > 0 for _, used in shares().values()), "both hosts to work")
            wait_for(lambda: len(at) == count, f"all tasks to be worked\n{pools.output()}")
        finally:
            for process in pools.processes:
                process.end()
    # a bucket that is divided has one token more for each host at most
    early = [k for k, moment in enumerate(sorted(at), 1) if k > bucket + 2 + rate * (moment - began)]
    assert early == []
