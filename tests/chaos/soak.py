"""The soak: a steady load for minutes or hours. The resources of all processes must not grow meanwhile.

`make soak MINUTES=60` runs it. A third of the time, at most ten minutes, is warm-up: caches fill, and children are
recycled for the first time. Exits 0 only if no ping was lost and nothing grew after the warm-up.
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
from tests.chaos.processes import resources, zombies
from tests.chaos.report import Report

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

CLIENTS, RATE = 8, 50.0
# The time between two samples, in seconds.
SAMPLE_INTERVAL = 3.0
# The warm-up is this share of the soak, but at most this long in seconds.
WARM_UP, MAX_WARM_UP = 1 / 3, 600.0
# The growth of memory that is allowed, in bytes per hour: a child reaches `max_rss` (512 MiB) with it after two weeks,
# and is recycled long before. In a short soak so little is lost in the noise, so a total growth of NOISE is allowed.
RSS_SLOPE = 1.5 * (1 << 20)
NOISE = 1 << 20
# The other resources may vary, because of requests in flight. The limit is for what their slope adds during the soak.
SWING = {"descriptors": 2.0, "threads": 1.0, "zombies": 0.5}
COLUMNS = ("descriptors", "threads", "zombies", "MiB")
# The soak begins with a burst of this many senders, for two seconds. So threads and connections that are made on demand
# exist before the first sample.
BURST_CLIENTS, BURST_RATE, BURST = 96, 5000.0, 2.0
# How long the machine may take to settle after the load, in seconds.
SETTLE_TIMEOUT = 60.0


@dataclass(frozen=True, slots=True)
class Series:
    """The use of one resource by one process over time: pairs of (seconds, amount)."""

    who: str
    what: str
    points: tuple[tuple[float, float], ...]

    @property
    def slope(self) -> float:
        """The growth per hour: the slope of the line through the points, by least squares."""
        if len(self.points) < 2:
            return 0.0
        middle, mean = fmean(at for at, _ in self.points), fmean(amount for _, amount in self.points)
        spread = sum((at - middle) ** 2 for at, _ in self.points)
        return 3600 * sum((at - middle) * (amount - mean) for at, amount in self.points) / spread

    @property
    def grows(self) -> bool:
        """Whether the use grows, as far as the length of the soak can show."""
        hours = (self.points[-1][0] - self.points[0][0]) / 3600
        added = self.slope * hours
        return added > max(NOISE, RSS_SLOPE * hours) if self.what == "MiB" else added > SWING[self.what]


class Recorder:
    """Samples the resources of all processes of a machine."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._points: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)

    def sample(self, at: float) -> None:
        """Samples all processes now; `at` is in seconds."""
        for who, pid in self._processes():
            used = resources(pid)
            if used is not None:
                amounts = (used.descriptors, used.threads, zombies(pid), used.rss)
                for what, amount in zip(COLUMNS, amounts, strict=True):
                    self._points[who, what].append((at, amount))
        self._points["beanstalkd's files", "MiB"].append((at, _size(self._machine.binlog)))

    def series(self) -> list[Series]:
        """All series. A child that was replaced has one of its own, and so has its successor."""
        return [Series(who, what, tuple(points)) for (who, what), points in self._points.items()]

    def _processes(self) -> Iterator[tuple[str, int]]:
        for service in self._machine.services:
            main = service.main()
            if main is not None:
                yield service.name, main.pid
            for child in service.children():
                yield f"{service.name} child {child.pid}", child.pid


def _size(directory: Path) -> int:
    """The size of all files in bytes. A file may be removed meanwhile."""
    size = 0
    for file in directory.iterdir():
        with suppress(FileNotFoundError):
            size += file.stat().st_size
    return size


def soak(machine: Machine, minutes: float) -> tuple[Report, list[Series]]:
    """Runs the soak on a machine that is up; returns the report of the pings, and the series after the warm-up."""
    warm_up = min(MAX_WARM_UP, WARM_UP * minutes * 60)
    recorder = Recorder(machine)
    sender = partial(Load, machine.web_port, machine.token, machine.directory / "client.log")
    with sender(name="burst", clients=BURST_CLIENTS, rate=BURST_RATE) as burst:
        time.sleep(BURST)
    with sender(name="soak", clients=CLIENTS, rate=RATE) as load:
        started = time.monotonic()
        for number in itertools.count():
            at = warm_up + number * SAMPLE_INTERVAL
            if at > minutes * 60:
                break
            time.sleep(max(0.0, started + at - time.monotonic()))
            recorder.sample(at)
    report = Report(seed=0, planned=0, settled=machine.settle(SETTLE_TIMEOUT))
    reports.count(report, [burst, load], reports.read_handled(machine.directory / "handled.log"))
    reports.acknowledgements(report, load)
    return report, recorder.series()


def table(series: Sequence[Series]) -> Table:
    """A table for people: a row for each process, with the range and the slope of each resource."""
    made = Table("process", *COLUMNS, title="soak, after the warm-up: range, growth per hour", title_justify="left")
    rows: dict[str, dict[str, Series]] = defaultdict(dict)
    for one in series:
        rows[one.who][one.what] = one
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
    parser.add_argument("--dir", type=Path, help="directory for all files, which are kept (var/soak/TIME)")
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
    return 0 if report.ok and not any(one.grows for one in series) else 1


if __name__ == "__main__":
    sys.exit(main())
