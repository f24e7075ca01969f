"""`glassq kick --rate` and `--canary`: not all at once, and no more of them than is good."""

from __future__ import annotations

import re
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from glassq.cli.find import ALL_STATES, look, our_tubes
from glassq.cli.output import line
from glassq.errors import JobNotFound, SettingsError
from glassq.operations.words import reason
from glassq.queues.beanstalk.protocol import JobStats

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from glassq.cli.app import App
    from glassq.ledger import Entry
    from glassq.queues import Queue

# So many are tried with --canary before the rest follows.
CANARIES = (1, 10)
# How long an outcome may take to be written to the ledger, and between two looks at it, in seconds.
TELLS, LOOK = 1.5, 0.2

_RATE = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,3})?)/(s|m|h)")
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast: `rate` is in jobs a second (None: as fast as it goes).

    With `canary` the first few are waited for, each lot for `patience` seconds at most.
    """

    rate: float | None = None
    canary: bool = False
    patience: float = 0.0

    def lots(self, jobs: Sequence[int]) -> Iterator[tuple[Sequence[int], bool]]:
        """The jobs in lots, each with whether its outcome is waited for before the next one."""
        start = 0
        for size in CANARIES if self.canary else ():
            if jobs[start:]:
                yield jobs[start : start + size], True
            start += size
        if jobs[start:]:
            yield jobs[start:], False

    def paced(self, jobs: Sequence[int]) -> Iterator[int]:
        """The jobs, each when its time has come."""
        began = time.monotonic()
        for number, job in enumerate(jobs):
            if self.rate:
                time.sleep(max(0.0, began + number / self.rate - time.monotonic()))
            yield job


def per_second(text: str) -> float:
    """A rate such as "10/s", "30/m" or "5/h". Raises click.UsageError."""
    match = _RATE.fullmatch(text)
    if not match or not float(match[1]):
        raise click.UsageError(f'--rate {line(text)}: expected a rate such as "10/s", "30/m" or "5/h"')
    return float(match[1]) / _SECONDS[match[2]]


class Canary:
    """Tells what becomes of some buried deliveries once they are kicked; made before they are."""

    def __init__(self, app: App, queue: Queue, jobs: Sequence[int]) -> None:
        """Raises QueueRefused where the queue takes no job: what fails could not be put again."""
        self._app = app
        self._queue = queue
        # what fails is put again, under an id above this
        self._newest = queue.newest_job()
        self._names: dict[int, str] = {}
        for job in jobs:
            with suppress(JobNotFound):
                self._names[job] = look(queue, job).name
        # compared for being another one, as the clocks of hosts differ
        self._before = {name: entry.updated for name, entry in self._entries().items()}

    def wait(self, kicked: Sequence[int], patience: float) -> tuple[list[str], int]:
        """Why the ones that failed again did, in words, and how many have no outcome after `patience` seconds."""
        over = time.monotonic() + patience
        waiting = [job for job in kicked if job in self._names]
        gone: dict[int, float] = {}
        failed = []
        while waiting:
            entries = self._entries()
            fates = {job: self._fate(job, entries, gone) for job in waiting}
            failed += [f"{self._names[job] or f'job {job}'}: {fate}" for job, fate in fates.items() if fate]
            waiting = [job for job in waiting if fates[job] is None]
            if not waiting or time.monotonic() > over:
                break
            time.sleep(LOOK)
        return failed, len(waiting)

    def _fate(self, job: int, entries: dict[str, Entry], gone: dict[int, float]) -> str | None:
        """Why it failed again; "" where it did not; None while that is not known. `gone` says since when jobs are."""
        name = self._names[job]
        entry = entries.get(name)
        if entry and entry.updated != self._before.get(name):
            return "" if entry.state in ("done", "dropped") else reason(entry.reason) or entry.state
        try:
            return "it was buried again" if self._queue.stats_job(job).state == "buried" else None
        except JobNotFound:
            since = gone.setdefault(job, time.monotonic())
            return self._search(name) if time.monotonic() - since > TELLS else None

    def _search(self, name: str) -> str:
        """Without a ledger: whatever is still in the queue was not done."""
        for seen in self._queue.scan(ALL_STATES, *our_tubes(self._queue)):
            if isinstance(seen, tuple):
                if seen[1] - seen[0] <= self._newest:
                    break
            elif isinstance(seen, JobStats):
                if seen.id <= self._newest:
                    break
                with suppress(JobNotFound):
                    found = look(self._queue, seen.id, seen)
                    if found.name == name:
                        return found.reason
        return ""

    def _entries(self) -> dict[str, Entry]:
        """What the ledger says of them now."""
        try:
            with self._app.ledger() as ledger:
                told = [entry for name in self._names.values() if name and (entry := ledger.get(name))]
        except SettingsError:
            return {}
        return {entry.delivery: entry for entry in told}


def stopped(kicked: int, failed: list[str], unknown: int, left: int, patience: float) -> str:
    """What to say where the rest is not kicked."""
    words = f"stopped: of {kicked} kicked, {len(failed)} failed again"
    if unknown:
        words += f", {unknown} came to no outcome within {patience:g} s (is glassq-worker running?)"
    said = "".join(f"; {each}" for each in failed[:3])
    return f"{words}{said}; {left} were left buried: mend the cause, and go on with the same command"
