"""The torture: sends pings while services are killed, frozen, restarted and cut off, and the disk is full; then counts.

`make torture SECONDS=420 SEED=7` runs it; the same seed makes the same plan. Exits 0 only if no ping was lost, none was
handled that was not sent, and the machine settled.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from tests.chaos import faults as kinds
from tests.chaos import report as reports
from tests.chaos.disk import small_disks
from tests.chaos.faults import KINDS, Saboteur, plan
from tests.chaos.harness import ROOT, Machine
from tests.chaos.load import Load
from tests.chaos.report import Report
from tests.powercut.recording import Recorder, build, compiler

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.chaos.faults import Fault, Kind

# The load: some 60 % of what the pool can work on two cores.
CLIENTS, RATE = 8, 50.0
OUTAGE_CLIENTS, OUTAGE_RATE = 16, 100.0
# How long the load goes on after the last fault, in seconds, so that its recovery can be seen.
TAIL = 5.0
# How long the machine may take to settle, in seconds: a frozen child is killed late, and its job is worked after that.
SETTLE_TIMEOUT = 180.0


@dataclass(frozen=True, slots=True)
class Torture:
    """The parameters of one run. Times are in seconds.

    `gap` is the average time between two faults, `tail` that from the last fault to the end of the load, and `outage`
    that without beanstalkd afterwards. `rest` is how long the machine may take to settle.
    """

    seconds: float
    seed: int
    gap: float = 1.7
    outage: float = 20.0
    rate: float = RATE
    kinds: Sequence[Kind] = KINDS
    rest: float = SETTLE_TIMEOUT
    tail: float = TAIL

    def run(self, machine: Machine) -> Report:
        """Runs everything on a machine that is up."""
        saboteur = Saboteur(machine, plan(self.seed, self.seconds, self.gap, self.kinds))
        report = Report(self.seed, len(saboteur.faults))
        with self._load(machine, "ping", CLIENTS, self.rate) as load:
            saboteur.run()
            time.sleep(self.tail)
        machine.wait_until_up()
        report.settled = machine.settle(self.rest)
        loads = [load]
        if self.outage and report.settled:
            loads.append(self._without_queue(machine, report))
        # frozen children that the pool has not killed yet
        deadline = time.monotonic() + self.rest
        while report.settled and (saboteur.frozen or machine.stragglers()) and time.monotonic() < deadline:
            time.sleep(0.1)
        self._count(machine, report, loads, [fault for fault in saboteur.faults if fault.began])
        return report

    def _load(self, machine: Machine, name: str, clients: int, rate: float) -> Load:
        log = machine.directory / "client.log"
        return Load(machine.web_port, machine.token, log, name=name, clients=clients, rate=rate)

    def _without_queue(self, machine: Machine, report: Report) -> Load:
        """Sends pings while beanstalkd is down. The journal must take all of them, and each must be acknowledged."""
        machine.beanstalkd.down_until = float("inf")
        main = machine.beanstalkd.main()
        if main is not None:
            main.send(kinds.TERM)
        while machine.beanstalkd.main() is not None:
            time.sleep(0.05)
        with self._load(machine, "outage", OUTAGE_CLIENTS, OUTAGE_RATE) as load:
            time.sleep(self.outage)
        machine.beanstalkd.down_until = 0.0
        returned = time.monotonic()
        report.settled &= machine.settle(self.rest)
        drained = time.monotonic() - returned
        report.outage = {
            "seconds": self.outage,
            "rate": OUTAGE_RATE,
            "sent": len(load.tries),
            "refused": len(load.tries) - len(load.acknowledged),
            "p50": reports.quantile(load.acknowledged, 0.5),
            "p99": reports.quantile(load.acknowledged, 0.99),
            "drained": drained,
        }
        return load

    def _count(self, machine: Machine, report: Report, loads: list[Load], done: list[Fault]) -> None:
        for fault in done:
            if fault.kind in reports.QUEUE_DOWN:
                fault.ended = next((up for up in machine.beanstalkd.ups if up > fault.began), fault.ended)
        handled = reports.read_handled(machine.directory / "handled.log")
        reports.count(report, loads, handled)
        reports.acknowledgements(report, loads[0])
        reports.recoveries(report, done, loads[0], handled)
        report.bound = sum(reports.duplicates_of(fault.kind, clients=CLIENTS, rate=self.rate) for fault in done)
        report.buried = machine.tube().buried
        report.stragglers = len(machine.stragglers())
        report.write(machine.directory / "report.json")


def main() -> int:
    parser = argparse.ArgumentParser(prog="make torture", description=__doc__)
    parser.add_argument("--seconds", type=float, default=420.0, help="how long faults go on")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1_000_000), help="replays a plan")
    parser.add_argument("--gap", type=float, default=1.7, help="seconds between two faults, on average")
    parser.add_argument("--rate", type=float, default=RATE, help="pings a second")
    parser.add_argument("--outage", type=float, default=20.0, help="seconds without beanstalkd afterwards; 0: none")
    parser.add_argument("--dir", type=Path, help="directory for all files, which are kept (var/torture/TIME)")
    arguments = parser.parse_args()
    # after SIGTERM no process and no mount is left over
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    console = Console()
    directory = arguments.dir or ROOT / "var" / "torture" / time.strftime("%Y%m%d-%H%M%S")
    directory.mkdir(parents=True)
    console.print(f"seed {arguments.seed}, {arguments.seconds:g} s of faults; everything is kept in {directory}")
    with small_disks() as disk:
        chosen = [kind for kind in KINDS if kind not in _impossible(console, disk)]
        torture = Torture(
            arguments.seconds, arguments.seed, arguments.gap, arguments.outage, arguments.rate, tuple(chosen)
        )
        disk = disk or directory / "disk"
        with Machine(directory, disk=disk, recorder=_recorder(directory, disk)) as machine:
            report = torture.run(machine)
    console.print(reports.table(report))
    return 0 if report.ok else 1


def _impossible(console: Console, disk: Path | None) -> list[Kind]:
    """The faults that cannot be made here; says why."""
    missing: list[Kind] = []
    if disk is None:
        console.print("no disk is filled: only root can mount a tmpfs for that")
        missing += kinds.NEED_DISK
    if compiler() is None:
        console.print("no write fails and no clock steps: that needs a C compiler (cc)")
        missing += kinds.NEED_RECORDER
    return missing


def _recorder(directory: Path, disk: Path) -> Recorder | None:
    if compiler() is None:
        return None
    place = directory / "faults"
    place.mkdir()
    return Recorder(build(place), root=disk, place=place, records=False)


if __name__ == "__main__":
    sys.exit(main())
