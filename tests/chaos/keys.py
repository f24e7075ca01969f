"""Keys under load: no two deliveries of one key are worked at once, however children end.

`make keys` works 100,000 deliveries of 1,000 keys by a pool whose children are killed meanwhile, and says how fast that
is beside the same without keys. The handler holds a lock of its key's file, which the kernel frees when a process dies:
so whatever two processes do at once is seen, and nothing else.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

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
        """Waits until so many different deliveries are done; the seconds from the first to the last."""
        deadline, next_kill = time.monotonic() + within, time.monotonic() + kill_every
        while self.count() < wanted or len({name for _, _, name, _ in self.done()}) < wanted:
            assert time.monotonic() < deadline, f"{self.count()} of {wanted}\n{self.pool.log()[-3000:]}"
            if kill_every and time.monotonic() >= next_kill:
                self.kill_one()
                next_kill += kill_every
            time.sleep(0.05)
        times = [at for at, _, _, _ in self.done()]
        return max(times) - min(times)


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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--deliveries", type=int, default=100_000)
    parser.add_argument("--keys", type=int, default=1_000)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--kill-every", type=float, default=2.0, help="seconds between two kills; 0: none")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    given = parser.parse_args()
    print(f"seed {given.seed}")
    random.seed(given.seed)
    keys = [f"user-{random.randrange(given.keys)}" for _ in range(given.deliveries)]
    with run(processes=given.processes, max_lost=50) as made:
        made.put(keys)
        made.pool.start()
        seconds = made.finish(len(keys), kill_every=given.kill_every)
        twice = made.at_once()
        worked = made.done()
    print(
        f"{len(keys)} deliveries of {given.keys} keys in {seconds:.0f} s, {len(worked)} attempts, {len(twice)} at once"
    )
    return 1 if twice else 0


if __name__ == "__main__":
    sys.exit(main())
