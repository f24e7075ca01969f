"""The soak: a steady load for minutes or hours, and what every process holds meanwhile must stay as it is.

`make soak MINUTES=60` runs it. A third of the time, ten minutes at the most, is warm-up: caches fill, children are
recycled for the first time. Exit 0 only when nothing was lost and nothing grows after it.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from tests.chaos import report as reports
from tests.chaos.harness import ROOT, Machine
from tests.chaos.load import Load
from tests.chaos.processes import holding, zombies
from tests.chaos.report import Report

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

CLIENTS, RATE = 8, 50.0
# Between two samples, in seconds.
EVERY = 3.0
WARM_UP, WARM_UP_MOST = 1 / 3, 600.0
# What memory may grow, in bytes an hour: with it a child reaches `max_rss` (512 MiB) after two weeks, and it is
# recycled long before. A short soak cannot tell so little from noise: then a growth in all of NOISE is allowed.
RSS_SLOPE = 1.5 * (1 << 20)
NOISE = 1 << 20
# The rest may swing, by a request under way; its slope is judged by how much it adds over the soak.
SWING = {"descriptors": 2.0, "threads": 1.0, "zombies": 0.5}
COLUMNS = ("descriptors", "threads", "zombies", "MiB")
# The soak begins with so many senders at once, for two seconds: threads and connections that are made when they are
# first needed are there before it is measured.
BURST_CLIENTS, BURST_RATE, BURST = 96, 5000.0, 2.0
REST = 60.0


@dataclass(frozen=True, slots=True)
class Series:
    """What one process held of one thing, over time: pairs of (seconds, amount)."""

    who: str
    what: str
    points: tuple[tuple[float, float], ...]

    @property
    def slope(self) -> float:
        """Growth an hour: the straight line through the points, by least squares."""
        if len(self.points) < 2:
            return 0.0
        middle, mean = fmean(at for at, _ in self.points), fmean(amount for _, amount in self.points)
        spread = sum((at - middle) ** 2 for at, _ in self.points)
        return 3600 * sum((at - middle) * (amount - mean) for at, amount in self.points) / spread

    @property
    def grows(self) -> bool:
        """Whether it would go on growing, as far as one can tell in this time."""
        hours = (self.points[-1][0] - self.points[0][0]) / 3600
        added = self.slope * hours
        return added > max(NOISE, RSS_SLOPE * hours) if self.what == "MiB" else added > SWING[self.what]


class Recorder:
    """Samples everything on a machine."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._points: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)

    def sample(self, at: float) -> None:
        """What all processes hold now; `at` is in seconds."""
        for who, pid in self._processes():
            held = holding(pid)
            if held is not None:
                amounts = (held.descriptors, held.threads, zombies(pid), held.rss)
                for what, amount in zip(COLUMNS, amounts, strict=True):
                    self._points[who, what].append((at, amount))
        self._points["beanstalkd's files", "MiB"].append((at, _size(self._machine.disk)))

    def series(self) -> list[Series]:
        """All that was sampled. A child that was replaced in the soak has a series of its own, as has the new one."""
        return [Series(who, what, tuple(points)) for (who, what), points in self._points.items()]

    def _processes(self) -> Iterator[tuple[str, int]]:
        for service in self._machine.services:
            main = service.main()
            if main is not None:
                yield service.name, main.pid
            for child in service.children():
                yield f"{service.name} child {child.pid}", child.pid


def _size(directory: Path) -> int:
    """Bytes; a file may be removed while one looks."""
    size = 0
    for file in directory.iterdir():
        with suppress(FileNotFoundError):
            size += file.stat().st_size
    return size


def soak(machine: Machine, minutes: float) -> tuple[Report, list[Series]]:
    """Runs it on a machine that is up; returns what became of the pings, and what was held after the warm-up."""
    warm_up = min(WARM_UP_MOST, WARM_UP * minutes * 60)
    recorder = Recorder(machine)
    sender = partial(Load, machine.web_port, machine.token, machine.directory / "client.log")
    with sender(name="burst", clients=BURST_CLIENTS, rate=BURST_RATE) as burst:
        time.sleep(BURST)
    with sender(name="soak", clients=CLIENTS, rate=RATE) as load:
        started = time.monotonic()
        for number in itertools.count():
            at = warm_up + number * EVERY
            if at > minutes * 60:
                break
            time.sleep(max(0.0, started + at - time.monotonic()))
            recorder.sample(at)
    report = Report(seed=0, planned=0, settled=machine.settle(REST))
    reports.count(report, [burst, load], reports.read_handled(machine.directory / "handled.log"))
    reports.acknowledgements(report, load)
    return report, recorder.series()


def table(series: Sequence[Series]) -> Table:
    """A row for each process, in each cell the range and the slope; for people."""
    made = Table("process", *COLUMNS, title="soak, after the warm-up: range, growth an hour", title_justify="left")
    rows: dict[str, dict[str, Series]] = defaultdict(dict)
    for each in series:
        rows[each.who][each.what] = each
    for who, row in rows.items():
        made.add_row(who, *(_cell(row.get(what)) for what in COLUMNS))
    return made


def _cell(series: Series | None) -> str:
    if series is None:
        return ""
    unit, digits = (1 << 20, 1) if series.what == "MiB" else (1, 0)
    amounts = [amount / unit for _, amount in series.points]
    text = f"{min(amounts):.{digits}f} to {max(amounts):.{digits}f}, {series.slope / unit:+.{digits}f}"
    return f"{text} GROWS" if series.grows else text


def main() -> int:
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="how long, warm-up included")
    parser.add_argument("--dir", type=Path, help="where everything lies, and stays (var/soak/TIME)")
    arguments = parser.parse_args()
    console = Console()
    directory = arguments.dir or ROOT / "var" / "soak" / time.strftime("%Y%m%d-%H%M%S")
    directory.mkdir(parents=True)
    console.print(f"{arguments.minutes:g} minutes; everything is kept in {directory}")
    with Machine(directory) as machine:
        report, series = soak(machine, arguments.minutes)
    console.print(table(series))
    console.print(
        f"acknowledged {report.acknowledged}, handled {report.handled}, lost {len(report.lost)}, "
        f"p50 {report.p50 * 1e3:.1f} ms, p99 {report.p99 * 1e3:.1f} ms"
    )
    return 0 if report.ok and not any(each.grows for each in series) else 1


if __name__ == "__main__":
    sys.exit(main())
