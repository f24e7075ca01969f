"""PostgreSQL as the queue, beside a plain psycopg loop of the same statements: `python -m bench.postgres`.

Each round measures ours and the plain one in turn. (a) puts of one connection; (b) two children of a pool that drain a
tube; (c) both with many jobs waiting elsewhere and a dead past in the indexes; (d) from a put to its handler.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg

from glassq import delivery as envelope
from glassq.queues import open_producer, open_tables
from glassq.queues.base import NewJob
from glassq.queues.postgres import statements
from glassq.settings import load
from tests.postgres import PostgresServer

sys.path.insert(0, str(Path(__file__).parent))
from disk import Disk, disks
from measure import compared, median, say, side_by_side
from servers import ROOT, process

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator

    from glassq.queues import Producer

TUBE, PLAIN = "bench", "plain"
LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)
SETTINGS = """\
[queue]
url = "{url}"
tube = "{tube}"
[worker]
processes = 2
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
    """A server with the queue's tables, and settings for it."""

    def __init__(self, place: Path, disk: Disk) -> None:
        self.place = place
        self.server = PostgresServer(place, options={"shared_buffers": "256MB", "max_wal_size": "2GB"}, env=disk.env)
        self.database = self.server.database()
        self.url = self.server.url(self.database)
        (place / "secret").write_text("0123456789abcdef\n")
        (place / "secret").chmod(0o600)
        self.settings = load(str(self.config("noop")), {})
        tables = open_tables(self.settings, self.url)
        assert tables is not None
        with closing(tables):
            tables.upgrade()

    def config(self, handler: str) -> Path:
        path = self.place / f"{handler}.toml"
        path.write_text(SETTINGS.format(url=self.url, tube=TUBE, handler=f"handlers:{handler}", place=self.place))
        (self.place / "handlers.py").write_text((ROOT / "bench/handlers.py").read_text())
        return path

    def plain(self) -> psycopg.Connection[Any]:
        return psycopg.connect(self.url.whole, autocommit=True)

    def fill(self, tube: str, jobs: int) -> None:
        with self.plain() as connection:
            connection.execute(
                "INSERT INTO glassq_jobs (tube, key, body) "
                "SELECT %s, number::text, %s FROM generate_series(1, %s) AS number",
                [tube, body(), jobs],
            )

    def pause(self, seconds: int) -> None:
        with self.plain() as connection:
            connection.execute(
                "INSERT INTO glassq_tubes VALUES (%s, now() + %s * interval '1 second') "
                "ON CONFLICT (name) DO UPDATE SET paused_until = EXCLUDED.paused_until",
                [TUBE, seconds],
            )


def body() -> bytes:
    return envelope.encode(envelope.new("mirror", b'{"n":' + b"1" * 900 + b"}", {}))


def puts(scene: Scene, seconds: float) -> tuple[float, float]:
    """Puts a second of one connection, each by itself: ours, and the plain loop's."""
    data = body()
    with closing(open_producer(scene.settings)) as producer:
        ours = per_second(seconds, lambda: put(producer, data))
    with scene.plain() as connection:
        cursor = connection.cursor()

        def insert() -> None:
            cursor.execute(statements.PUT, [[PLAIN], ["key"], [data], [0.0]], prepare=True).fetchall()

        return ours, per_second(seconds, insert)


def put(producer: Producer, data: bytes) -> None:
    [answer] = producer.put([NewJob("key", data, PLAIN)], within=10)
    producer.confirm([answer], within=10)  # type: ignore[list-item]


def per_second(seconds: float, act: Callable[[], object]) -> float:
    act()
    began = time.perf_counter()
    done = 0
    while time.perf_counter() - began < seconds:
        act()
        done += 1
    return done / (time.perf_counter() - began)


def drained(scene: Scene, tube: str, jobs: int) -> float:
    """Jobs a second, until the tube is empty."""
    began = time.perf_counter()
    with scene.plain() as connection:
        while connection.execute("SELECT EXISTS (SELECT FROM glassq_jobs WHERE tube = %s)", [tube]).fetchone() != (
            False,
        ):
            time.sleep(0.02)
    return jobs / (time.perf_counter() - began)


def plain_loop(url: str, tube: str) -> None:
    """Completes jobs, each with the reserve of the next one in the same statement."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET synchronous_commit = off")
        cursor = connection.cursor()
        wanted = [1, 60.0, [tube], [LONG_AGO]]
        both, alone = statements.and_next(statements.COMPLETE), statements.RESERVE
        held = None
        while True:
            if held is None:
                held = cursor.execute(alone, wanted, prepare=True).fetchone()
                if held is None:
                    time.sleep(0.01)
                continue
            _, *following = cursor.execute(both, [held[0], held[3], *wanted], prepare=True).fetchone()
            held = following if following[0] is not None else None


def drains(scene: Scene, jobs: int) -> tuple[float, float]:
    """What two children of a pool, and two plain loops, drain a second."""
    scene.pause(3600)
    scene.fill(TUBE, jobs)
    with pool(scene, "noop"):
        time.sleep(2)
        scene.pause(0)
        ours = drained(scene, TUBE, jobs)
    scene.fill(PLAIN, jobs)
    with side_by_side(2, plain_loop, scene.url.whole, PLAIN):
        return ours, drained(scene, PLAIN, jobs)


@contextmanager
def pool(scene: Scene, handler: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, str(ROOT / "bin/glassq-worker"), "--config", str(scene.config(handler))]
    with process(command, scene.place / "worker.log") as started:
        yield started


def latencies(scene: Scene, pings: int) -> list[float]:
    """From a put to its handler, in seconds; one at a time."""
    with pool(scene, "stamp"), closing(open_producer(scene.settings)) as producer:
        time.sleep(4)
        for _ in range(pings):
            data = envelope.encode(envelope.new("mirror", b'{"sent": %f}' % time.time(), {}))
            producer.put([NewJob("key", data, TUBE)], within=10)
            time.sleep(0.03)
        time.sleep(1)
    found = [float(line) for path in scene.place.glob("late.*") for line in path.read_text().split()]
    return sorted(found)


def measure(scene: Scene, rounds: int, jobs: int) -> dict[str, float]:
    """Prints what it finds; our median rates."""
    found: dict[str, float] = {}
    for what, one in (("put", lambda: puts(scene, 2)), ("drain", lambda: drains(scene, jobs))):
        pairs = [one() for _ in range(rounds)]
        mine, theirs, ratio = compared([a for a, _ in pairs], [b for _, b in pairs])
        print(f"  {what:<6} {mine:>8}/s   plain {theirs:>8}/s   {ratio}", flush=True)
        found[what] = median([a for a, _ in pairs])
        with scene.plain() as connection:
            connection.execute("DELETE FROM glassq_jobs WHERE tube = %s", [PLAIN])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--waiting", type=int, default=1_000_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        for number, disk in enumerate(disks(Path(made))):
            place = Path(made) / str(number)
            place.mkdir()
            scene = Scene(place, disk)
            try:
                print(f"{disk.name}:", flush=True)
                empty = measure(scene, options.rounds, options.jobs)
                late = latencies(scene, 100)
                p50, p95 = (1000 * late[int(len(late) * part)] for part in (0.5, 0.95))
                print(f"  put to handler: p50 {p50:.1f} ms, p95 {p95:.1f} ms")
                if not number and options.waiting:
                    say(f"{options.waiting:,} jobs wait, then 200,000 are put and drained")
                    scene.fill("elsewhere", options.waiting // 2)
                    scene.fill(TUBE, options.waiting // 2)
                    scene.pause(0)
                    full = aged(scene, options)
                    for what, rate in full.items():
                        print(
                            f"  {what}, {options.waiting:,} waiting: {rate:,.0f}/s, {rate / empty[what]:.2f} of empty"
                        )
            finally:
                scene.server.remove()


def aged(scene: Scene, options: argparse.Namespace) -> dict[str, float]:
    """Our rates with a backlog, after 200,000 jobs were put and drained at its head."""
    with pool(scene, "noop"):
        began, left = time.perf_counter(), 200_000
        put_rate = puts(scene, 5)[0]
        rates = []
        with scene.plain() as connection:

            def there() -> int:
                [(number,)] = connection.execute("SELECT count(*) FROM glassq_jobs WHERE tube = %s", [TUBE]).fetchall()
                return int(number)

            first = last = there()
            at = time.perf_counter()
            while first - last < left and time.perf_counter() - began < 200:
                time.sleep(5)
                now, when = there(), time.perf_counter()
                rates.append((last - now) / (when - at))
                last, at = now, when
        say(f"{first - last:,} drained; a second: {', '.join(f'{rate:,.0f}' for rate in rates)}")
    return {"put": put_rate, "drain": median(rates[-3:])}


if __name__ == "__main__":
    main()
