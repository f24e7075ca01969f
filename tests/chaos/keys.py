"""Keys under load: no two deliveries of one key are worked at once, however children end.

`make keys` works 100,000 deliveries of 1,000 keys by a pool whose children are killed meanwhile. The handler holds a
lock of its key's file, which the kernel frees when a process dies: so whatever two processes do at once is seen, and
nothing else.

With `--rounds N` nobody is killed: the same deliveries are worked with and without a limit by key, in turn. With `--hot
N` so many more have one key: how long do the others take, without them, behind them, and among them?
"""

from __future__ import annotations

import argparse
import math
import os
import random
import signal
import statistics
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

from glassq import delivery as envelope
from glassq.queues import open_producer
from glassq.queues.base import NewJob, Receipt
from glassq.settings import Settings
from tests.conftest import Beanstalkd
from tests.worker.pools import PoolRun

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# Deliveries of one packet when they are put.
PACKET = 500
# The key that `--hot` more deliveries have.
HOT = "hottest"

HANDLERS = """
import fcntl, os, time
from pathlib import Path

HERE = Path(__file__).parent
PAUSE = float((HERE / "pause").read_text())

def handle(delivery):
    key = delivery.labels["user"]
    lock = os.open(HERE / "keys" / key, os.O_CREAT | os.O_RDWR)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        say("at-once", f"{key} {delivery.id}")
    time.sleep(PAUSE)
    while (HERE / "hold").exists():
        time.sleep(0.01)
    say("done", f"{time.monotonic()} {key} {delivery.id} {delivery.attempt}")
    os.close(lock)

def say(file, line):
    at = os.open(HERE / file, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.write(at, f"{line}\\n".encode())
    os.close(at)
"""


class KeyRun:
    """A pool whose route has a limit by key (without `limited`: none), and a handler that takes `pause` seconds."""

    def __init__(
        self, directory: Path, server: Beanstalkd, *, pause: float = 0.0, limited: bool = True, **worker: object
    ):
        self.server = server
        self.pool = PoolRun(directory, server, **worker)
        self.pool.write_handlers(HANDLERS)
        self.limit(limited=limited)
        (self.pool.dir / "keys").mkdir()
        (self.pool.dir / "pause").write_text(str(pause))

    def limit(self, *, limited: bool) -> None:
        """Writes the settings."""
        self.pool.write_settings(
            route='name = "sync"\nconcurrency_by = "label.user"\n' if limited else 'name = "sync"\n'
        )

    def put(self, keys: Sequence[str]) -> None:
        """Puts a delivery of each key, in this order."""
        producer = open_producer(Settings(queue=self.server.settings))
        made = [envelope.new("mirror", b"{}", {"user": key}, tube="glassq") for key in keys]
        jobs = [NewJob(each.id, envelope.encode(each), "glassq") for each in made]
        for start in range(0, len(jobs), PACKET):
            taken = producer.put(jobs[start : start + PACKET], within=30.0)
            assert all(isinstance(each, Receipt) for each in taken), taken
        producer.close()

    def done(self) -> list[tuple[float, str, str, int]]:
        """When, by time.monotonic(), which key and delivery, and at which attempt."""
        with suppress(FileNotFoundError):
            lines = (self.pool.dir / "done").read_text().splitlines()
            return [(float(at), key, name, int(attempt)) for at, key, name, attempt in map(str.split, lines)]
        return []

    def count(self) -> int:
        """How many attempts are done; cheap."""
        with suppress(FileNotFoundError):
            return (self.pool.dir / "done").read_bytes().count(b"\n")
        return 0

    def at_once(self) -> list[str]:
        """What was worked at once with another of its key."""
        with suppress(FileNotFoundError):
            return (self.pool.dir / "at-once").read_text().splitlines()
        return []

    def kill_one(self) -> None:
        """Kills a child, whatever it does."""
        if children := self.pool.children():
            with suppress(ProcessLookupError):
                os.kill(random.choice(children), signal.SIGKILL)

    def finish(self, wanted: int, *, kill_every: float = 0.0, within: float = 500.0) -> float:
        """Waits until so many different deliveries are done that are not of the hot key.

        Returns the seconds from the first attempt to the end of the last of them.
        """
        deadline, next_kill = time.monotonic() + within, time.monotonic() + kill_every
        others: set[str] = set()
        first, last, read, rest = math.inf, 0.0, 0, b""
        while len(others) < wanted:
            assert time.monotonic() < deadline, f"{len(others)} of {wanted}\n{self.pool.log()[-3000:]}"
            if kill_every and time.monotonic() >= next_kill:
                self.kill_one()
                next_kill += kill_every
            time.sleep(0.1)
            with suppress(FileNotFoundError), (self.pool.dir / "done").open("rb") as file:
                file.seek(read)
                new = file.read()
                read += len(new)
                *lines, rest = (rest + new).split(b"\n")
                for at, key, name, _ in map(str.split, (line.decode() for line in lines)):
                    first = min(first, float(at))
                    if key != HOT:
                        others.add(name)
                        last = max(last, float(at))
        return last - first


@contextmanager
def run(pause: float = 0.0, *, limited: bool = True, processes: int = 2, **worker: object) -> Iterator[KeyRun]:
    """A pool on a beanstalkd of its own; it is not started yet."""
    with tempfile.TemporaryDirectory() as place:
        server = Beanstalkd(Path(place))
        try:
            made = KeyRun(Path(place), server, pause=pause, limited=limited, processes=processes, **worker)
            with made.pool:
                yield made
        finally:
            server.stop()


class Result(NamedTuple):
    """One run: seconds until the last delivery that is not of the hot key was done, and beanstalkd's counters."""

    seconds: float
    reserved: int
    released: int


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--deliveries", type=int, default=100_000)
    parser.add_argument("--keys", type=int, default=1_000)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--pause", type=float, default=0.0, help="seconds that the handler sleeps")
    parser.add_argument("--kill-every", type=float, default=2.0, help="seconds between two kills; 0: none")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    parser.add_argument("--rounds", type=int, default=0, help="compare so often; nobody is killed")
    parser.add_argument("--hot", type=int, default=0, help="deliveries of one key beside the others; with --rounds")
    given = parser.parse_args()
    print(f"seed {given.seed}", flush=True)
    random.seed(given.seed)
    keys = [f"user-{random.randrange(given.keys)}" for _ in range(given.deliveries)]
    if given.rounds and given.hot:
        return compare_hot(given, keys)
    if given.rounds:
        return compare_limits(given, keys)
    return torture(given, keys)


def torture(given: argparse.Namespace, keys: list[str]) -> int:
    """Works these deliveries while children are killed; 1 if two of a key were worked at once."""
    with run(given.pause, processes=given.processes, max_lost=50) as made:
        made.put(keys)
        made.pool.start()
        seconds = made.finish(len(keys), kill_every=given.kill_every)
        twice = made.at_once()
        worked = made.done()
    print(
        f"{len(keys)} deliveries of {given.keys} keys in {seconds:.0f} s, {len(worked)} attempts, {len(twice)} at once"
    )
    return 1 if twice else 0


def compare_limits(given: argparse.Namespace, keys: list[str]) -> int:
    """Works them without and with a limit by key, and says how much of the throughput is left."""
    shares = []
    for number in range(given.rounds):
        free, limited = (measured(given, keys, limited=limited) for limited in (False, True))
        shares.append(free.seconds / limited.seconds)
        print(
            f"round {number + 1}: {free.seconds:.1f} s free, {limited.seconds:.1f} s by key, {shares[-1]:.2f}",
            flush=True,
        )
    print(f"of the throughput is left: {_spread(shares)}")
    return 0


def compare_hot(given: argparse.Namespace, keys: list[str]) -> int:
    """Works them alone, behind and among the deliveries of the hot key, and says how much longer they take."""
    hot = [HOT] * given.hot
    mixed = random.sample(keys + hot, len(keys) + len(hot))
    orders = {"behind": hot + keys, "among": mixed}
    slower: dict[str, list[float]] = {name: [] for name in orders}
    for number in range(given.rounds):
        alone = measured(given, keys)
        print(f"round {number + 1}: alone {alone}", flush=True)
        for name, order in orders.items():
            found = measured(given, order)
            slower[name].append(found.seconds / alone.seconds)
            print(f"round {number + 1}: {name} {found}, {slower[name][-1]:.2f}", flush=True)
    for name, all_of_it in slower.items():
        print(f"{name} {given.hot} of one key: {_spread(all_of_it)} of the time alone")
    return 0


def measured(given: argparse.Namespace, keys: list[str], *, limited: bool = True) -> Result:
    """Works these deliveries by a new pool."""
    others = sum(key != HOT for key in keys)
    with run(given.pause, limited=limited, processes=given.processes) as made:
        made.put(keys)
        made.pool.start()
        seconds = made.finish(others)
        assert not (limited and made.at_once())
        counters = server_counters(made.server)
    return Result(round(seconds, 2), counters["cmd-reserve-with-timeout"], counters["cmd-release"])


def server_counters(server: Beanstalkd) -> dict[str, int]:
    """beanstalkd's own `stats`."""
    queue = server.queue()
    try:
        return cast("dict[str, int]", queue._call(lambda client: client.stats()))
    finally:
        queue.close()


def _spread(values: list[float]) -> str:
    return f"min {min(values):.2f}, median {statistics.median(values):.2f}, max {max(values):.2f}"


if __name__ == "__main__":
    sys.exit(main())
