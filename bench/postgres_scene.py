"""A database with the queue's tables, and the loops that are measured on it: ours, and plain ones of psycopg."""

from __future__ import annotations

import multiprocessing
import sys
import time
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import psycopg
from measure import PAUSE, side_by_side
from servers import ROOT, START_TIMEOUT, process

from glassq import delivery as envelope
from glassq.queues import open_inspector, open_producer, open_tables
from glassq.queues.base import NewJob, Refusal
from glassq.queues.postgres import statements
from glassq.settings import load

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator, Sequence
    from multiprocessing.sharedctypes import SynchronizedArray
    from pathlib import Path

    from glassq.settings import Settings
    from glassq.values import QueueUrl

TUBE, PLAIN = "bench", "plain"
LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)
# What takes turns is measured once each has done so much; a turn is so many seconds long.
WARM, TURN = 20, 0.2
CHILDREN = 2
SETTINGS = """\
[queue]
url = "{url}"
tube = "{tube}"
[worker]
processes = {children}
[[routes]]
source = "mirror"
handler = "{handler}"
[sources.mirror]
verify_tokens_file = "{place}/secret"
[bodies]
url = "file://{place}/bodies"
[ledger]
url = ""
"""


class Scene:
    """A database with the queue's tables, and settings for it."""

    def __init__(self, place: Path, url: QueueUrl) -> None:
        self.place = place
        self.url = url
        place.mkdir(parents=True, exist_ok=True)
        (place / "secret").write_text("0123456789abcdef\n")
        (place / "secret").chmod(0o600)
        (place / "handlers.py").write_text((ROOT / "bench/handlers.py").read_text())
        self.settings = load(str(self.config("noop")), {})
        tables = open_tables(self.settings, self.url)
        assert tables is not None
        with closing(tables):
            tables.upgrade()

    def config(self, handler: str) -> Path:
        path = self.place / f"{handler}.toml"
        path.write_text(
            SETTINGS.format(url=self.url, tube=TUBE, children=CHILDREN, handler=f"handlers:{handler}", place=self.place)
        )
        return path

    def plain(self) -> psycopg.Connection[Any]:
        return psycopg.connect(self.url.whole, autocommit=True)

    def fill(self, tube: str, jobs: int) -> None:
        """Puts so many, with ids that rise as ours do."""
        with self.plain() as connection:
            connection.execute(
                "INSERT INTO glassq_jobs (tube, key, body) "
                "SELECT %s, lpad(number::text, 36, '0'), %s FROM generate_series(1, %s) AS number",
                [tube, body(), jobs],
            )

    def waiting(self, tube: str) -> int:
        with self.plain() as connection:
            [(number,)] = connection.execute("SELECT count(*) FROM glassq_jobs WHERE tube = %s", [tube]).fetchall()
            return int(number)

    def empty(self, tube: str) -> None:
        with self.plain() as connection:
            connection.execute("DELETE FROM glassq_jobs WHERE tube = %s", [tube])

    def pause(self, seconds: float = PAUSE) -> None:
        """Pauses the tube, or lets it go on (0) and tells those who wait. It counts no jobs, as an inspector would."""
        with self.plain() as connection:
            connection.execute(
                "INSERT INTO glassq_tubes VALUES (%s, now() + %s * interval '1 second') "
                "ON CONFLICT (name) DO UPDATE SET paused_until = EXCLUDED.paused_until",
                [TUBE, seconds],
            )
            connection.execute("SELECT pg_notify(%s, %s)", [statements.CHANNEL, TUBE])

    @contextmanager
    def pool(self, handler: str = "noop") -> Iterator[subprocess.Popen[bytes]]:
        """Yields once its children wait for jobs of the tube, which is empty or paused."""
        command = [sys.executable, str(ROOT / "bin/glassq-worker"), "--config", str(self.config(handler))]
        with process(command, self.place / "worker.log") as started:
            deadline = time.monotonic() + START_TIMEOUT
            with closing(open_inspector(self.settings)) as inspector:
                while inspector.counts([TUBE])[0].waiting < CHILDREN:
                    if time.monotonic() > deadline:
                        sys.exit(f"bench: the pool does not start\n{(self.place / 'worker.log').read_text()}")
                    time.sleep(0.05)
            yield started


def body() -> bytes:
    return envelope.encode(envelope.new("mirror", b'{"n":' + b"1" * 900 + b"}", {}))


def in_turn(connections: int, seconds: float, *makers: Callable[[], Callable[[], None]]) -> list[float]:
    """How often so many processes together do each of these things a second, in short turns.

    Each of them makes its own of each, and all are at the same one: a noisy second slows all of them.
    """
    done = multiprocessing.Array("q", len(makers))
    with side_by_side(connections, _take_turns, makers, done):
        deadline = time.monotonic() + START_TIMEOUT
        while min(done) < WARM * connections:
            if time.monotonic() > deadline:
                sys.exit("bench: nothing is done")
            time.sleep(0.01)
        before, began = list(done), time.perf_counter()
        time.sleep(seconds)
        share = (time.perf_counter() - began) / len(makers)
        return [(now - then) / share for now, then in zip(done, before, strict=True)]


def _take_turns(makers: Sequence[Callable[[], Callable[[], None]]], done: SynchronizedArray[int]) -> None:
    acts = [make() for make in makers]
    while True:
        number = int(time.monotonic() / TURN) % len(acts)
        acts[number]()
        with done.get_lock():
            done[number] += 1


def our_put(settings: Settings) -> Callable[[], None]:
    """Puts a job, as the intake does with a batch of one."""
    data, producer = body(), open_producer(settings)

    def put() -> None:
        [answer] = producer.put([NewJob(envelope.new_id(), data, PLAIN)], within=10)
        if isinstance(answer, Refusal):
            raise answer.error
        producer.confirm([answer], within=10)

    return put


def plain_put(url: str) -> Callable[[], None]:
    data, cursor = body(), psycopg.connect(url, autocommit=True).cursor()

    def put() -> None:
        cursor.execute(statements.PUT, [[PLAIN], [envelope.new_id()], [data], [0.0]], prepare=True).fetchall()

    return put


def plain_drain(url: str, tube: str) -> None:
    """Completes jobs, each with the reserve of the next one in the same statement; begins where the last one was."""
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.cursor(binary=True)
        # as in a session of ours
        cursor.execute(statements.RECEIVER_SESSION, [1])
        both, alone = statements.and_next(statements.COMPLETE), statements.RESERVE
        held, since = None, LONG_AGO
        while True:
            wanted = [1, 60.0, [tube], [since]]
            if held is None:
                held = cursor.execute(alone, wanted, prepare=True).fetchone()
            else:
                row = cursor.execute(both, [held[0], held[3], *wanted], prepare=True).fetchone()
                assert row is not None
                held = row[1:] if row[1] is not None else None
            if held is None:
                since = LONG_AGO
                time.sleep(0.01)
            else:
                since = held[6]
