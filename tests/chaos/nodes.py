"""The torture of many machines: two intakes and two pools on three PostgreSQL nodes, which fail in turn under load.

`make torture ENGINE=postgres` runs it. Each fault has its own line: the longest time without an answer, answers other
than 200, and how long the pools had nothing to work. Exits 0 only if no acknowledged ping was lost, and all settled.
"""

from __future__ import annotations

import argparse
import itertools
import json
import signal
import sys
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from tests.chaos.disk import small_disks
from tests.chaos.harness import ROOT
from tests.chaos.load import Load
from tests.chaos.node_faults import FAULTS, PAUSE, disk_full
from tests.chaos.report import Counted, count, quantile, read_handled
from tests.chaos.site import HOSTS, Site

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.chaos.report import Handled
    from tests.chaos.site import Host

# Senders of each intake: so many at least, and one for so many pings a second.
MIN_CLIENTS, RATE_OF_CLIENT = 8, 15.0
# The size of the disk that the three nodes share, as mount has it.
DISK = "600m"


@dataclass
class Outcome:
    """What one fault came to. Times are in seconds.

    `silence` is the longest time without a 200, `refused` the number of other answers, `idle` the longest time in which
    no delivery was worked. `in_sync` says how long after its end both standbys followed again.
    """

    fault: str
    lasted: float = 0.0
    silence: float = 0.0
    refused: int = 0
    p99: float = 0.0
    idle: float = 0.0
    in_sync: float = 0.0


@dataclass
class NodesReport(Counted):
    """The results of one run."""

    rate: float
    outcomes: list[Outcome] = field(default_factory=list)
    journaled_most: int = 0
    settled: bool = False

    @property
    def ok(self) -> bool:
        """No acknowledged ping lost, none worked that was not sent, and nothing left over."""
        return self.settled and not self.lost and not self.unexpected


def run(site: Site, rate: float, faults: list[str], console: Console) -> NodesReport:
    """Brings about each fault under load, and counts."""
    report = NodesReport(rate)
    spans: list[tuple[float, float, float]] = []
    with ExitStack() as loads:
        made = [loads.enter_context(_load(site, host, rate / HOSTS)) for host in site.hosts]
        time.sleep(PAUSE)
        for name in faults:
            began = time.monotonic()
            FAULTS[name](site)
            ended = time.monotonic()
            site.cluster.wait_until_in_sync(2)
            in_sync = time.monotonic() - ended
            report.journaled_most = max(report.journaled_most, sum(host.journaled() for host in site.hosts))
            time.sleep(PAUSE)
            spans.append((began, ended, time.monotonic()))
            report.outcomes.append(Outcome(name, round(ended - began, 1), in_sync=round(in_sync, 1)))
            console.print(f"done: {name}")
    report.settled = site.settle()
    handled = [entry for host in site.hosts for entry in read_handled(host.directory / "handled.log")]
    for outcome, (began, _, over) in zip(report.outcomes, spans, strict=True):
        _measure(outcome, began, over, made, handled)
    count(report, made, handled)
    return report


def _load(site: Site, host: Host, rate: float) -> Load:
    clients = max(MIN_CLIENTS, round(rate / RATE_OF_CLIENT))
    return Load(
        host.port, site.token, host.directory / "client.log", name=host.directory.name, clients=clients, rate=rate
    )


def _measure(outcome: Outcome, began: float, over: float, loads: list[Load], handled: list[Handled]) -> None:
    """What senders and handlers saw between two moments."""
    for load_ in loads:
        within = [each for each in load_.tries if began <= each.sent < over]
        answered = sorted(each.sent + each.seconds for each in within if each.acknowledged)
        outcome.silence = round(max(outcome.silence, _longest(began, over, answered)), 2)
        outcome.refused += sum(not each.acknowledged for each in within)
        outcome.p99 = round(max(outcome.p99, quantile([each for each in within if each.acknowledged], 0.99)), 3)
    outcome.idle = round(_longest(began, over, sorted(entry.at for entry in handled if began <= entry.at < over)), 2)


def _longest(began: float, over: float, moments: list[float]) -> float:
    return max(after - before for before, after in itertools.pairwise([began, *moments, over]))


def table(report: NodesReport) -> Iterator[Any]:
    """The report for people."""
    made = Table(title=f"three nodes under {report.rate:g} pings/s")
    for heading in ("fault", "s", "longest without a 200", "other answers", "p99", "pools idle", "in sync after"):
        made.add_column(heading, justify="left" if heading == "fault" else "right")
    for each in report.outcomes:
        silence, p99, idle, in_sync = (f"{number} s" for number in (each.silence, each.p99, each.idle, each.in_sync))
        made.add_row(each.fault, f"{each.lasted}", silence, f"{each.refused}", p99, idle, in_sync)
    yield made
    yield (
        f"acknowledged {report.acknowledged}, lost {len(report.lost)}, worked twice {report.worked_twice}, taken twice "
        f"{report.taken_twice}, most in the journals {report.journaled_most}, settled {report.settled}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="make torture ENGINE=postgres", description=__doc__)
    parser.add_argument("--rate", type=float, default=200.0, help="pings a second, to both intakes together")
    parser.add_argument("--fault", action="append", choices=FAULTS, help="only this one; may be given again")
    parser.add_argument("--dir", type=Path, help="directory for all files, which are kept (var/nodes/TIME)")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    console = Console()
    directory = arguments.dir or ROOT / "var" / "nodes" / time.strftime("%Y%m%d-%H%M%S")
    directory.mkdir(parents=True)
    console.print(f"everything is kept in {directory}")
    with ExitStack() as stack:
        disks = stack.enter_context(small_disks(DISK))
        faults = arguments.fault or [name for name, act in FAULTS.items() if disks is not None or act is not disk_full]
        site = stack.enter_context(Site(directory.resolve(), disk=disks and disks / "queue"))
        report = run(site, arguments.rate, faults, console)
    (directory / "report.json").write_text(json.dumps(asdict(report), indent=2) + "\n")
    for part in table(report):
        console.print(part)
    return 0 if report.ok else 1


if __name__ == "__main__":
    sys.exit(main())
