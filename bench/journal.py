"""How an intake journal with many records behaves: `python -m bench.journal [RECORDS]`, or `make bench-journal`.

It fills a journal, then measures what must stay quick with it: the start of a process, a look (which status, doctor and
each scrape of the metrics take), and moving on, while another thread writes pings into the same journal.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from glassq import delivery as envelope
from glassq.journal import Journal, JournalRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

BODY = b'{"collection":"timeline","itemId":"3hidvm0xez6r8_dacdb3103b8b604","operation":"INSERT","userToken":"u"}' * 3
BATCH = 64
# How often the other thread writes a ping, in seconds.
PACE = 0.002


def record() -> JournalRecord:
    """A ping as intake keeps it."""
    delivery = envelope.new("mirror", BODY, {"collection": "timeline", "operation": "INSERT"})
    return JournalRecord(delivery.id, envelope.encode(delivery))


def open_journal(directory: Path) -> Journal:
    return Journal(directory, max_size=1 << 40, min_free=0)


def timed(what: str, act: Callable[[], object]) -> object:
    """Does it, and prints how long that took."""
    began = time.perf_counter()
    came = act()
    print(f"{what:<58} {1000 * (time.perf_counter() - began):10.1f} ms", flush=True)
    return came


def fill(directory: Path, number: int) -> None:
    """Writes so many records, as fast as it can."""
    journal = open_journal(directory)
    journal.start()
    job = record()
    began = time.perf_counter()
    for _ in range(number // BATCH):
        journal.write([JournalRecord(envelope.new_id(), job.body) for _ in range(BATCH)])
    took = time.perf_counter() - began
    print(f"written: {number} records of {len(job.body)} bytes, {BATCH} a commit: {number / took:,.0f}/s")
    journal.close()


class Pings:
    """A thread that writes one ping after another, and notes how long each took."""

    def __init__(self, journal: Journal) -> None:
        self.seconds: list[float] = []
        self._journal = journal
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._over.wait(PACE):
            began = time.perf_counter()
            self._journal.write([record()])
            self.seconds.append(time.perf_counter() - began)

    def stop(self, what: str) -> None:
        """Ends it and prints what it has noted."""
        self._over.set()
        self._thread.join()
        found = sorted(self.seconds)
        print(
            f"{what}: {len(found)} pings, p50 {1000 * statistics.median(found):.2f} ms, "
            f"p99 {1000 * found[int(0.99 * len(found))]:.1f} ms, slowest {1000 * found[-1]:.1f} ms",
            flush=True,
        )


def move_on(journal: Journal) -> None:
    """Moves everything on, in the slices of the intake's watcher, with looks between; pings come meanwhile."""
    moved, looks = 0, []

    def put(packet: Sequence[JournalRecord]) -> dict[str, Exception]:
        # a queue that proves at once
        return {}

    pings, began = Pings(journal), time.perf_counter()
    while more := journal.move_on(put, seconds=2.0):  # type: ignore[arg-type]
        moved += more
        looked = time.perf_counter()
        if journal.look().count < BATCH:
            break
        looks.append(time.perf_counter() - looked)
    took = time.perf_counter() - began
    print(
        f"moved on: {moved} in {took:.1f} s, {moved / took:,.0f}/s; slowest look {1000 * max(looks, default=0):.1f} ms"
    )
    pings.stop("written while it is moved on")


def main() -> None:
    """Measures, and prints a line for each."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("records", type=int, nargs="?", default=1_000_000)
    arguments.add_argument("--directory", type=Path, default=None, help="where the journal is made")
    given = arguments.parse_args()
    # as in the intake's worker
    sys.setswitchinterval(0.0005)
    gc.freeze()
    with tempfile.TemporaryDirectory(dir=given.directory) as place:
        directory = Path(place) / "journal"
        fill(directory, given.records)
        journal = open_journal(directory)
        print(timed("look, with its notes", journal.look))
        for notes in (directory / "segments").glob("*.notes"):
            notes.unlink()
        print(timed("look, when a power cut has taken the notes", journal.look))
        timed("start, and the first ping on disk", lambda: (journal.start(), journal.write([record()])))
        pings = Pings(journal)
        time.sleep(5)
        pings.stop("written while the notes are made again, and beside")
        timed("look, after that", journal.look)
        move_on(journal)
        journal.close()


if __name__ == "__main__":
    main()
