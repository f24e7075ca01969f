"""A move between engines under load: `make torture-move`.

Many deliveries wait in beanstalkd and a pool works them; they go to PostgreSQL while pings come and the programs change
over, and then all of it goes back. Exits 0 only if no acknowledged ping was lost, and all settled.
"""

from __future__ import annotations

import argparse
import json
import re
import signal
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from glassq.queues import open_inspector
from glassq.settings import load
from tests.chaos.harness import ROOT, Machine, Plan
from tests.chaos.load import Load
from tests.chaos.report import Counted, count, quantile, read_handled
from tests.postgres import PostgresServer

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.chaos.harness import Service

# Two children work less than a move moves: most of what waits is moved.
CHILDREN = 2
CLIENTS = 16
# Pings a second while deliveries move.
RATE = 50.0
# How long a step of the run may take, in seconds.
PATIENCE = 300.0
# Bodies stay where they are; the move does not depend on how large they are.
SETTINGS = """\
[bodies]
url = "file://{directory}/bodies"
"""


@dataclass
class MoveReport(Counted):
    """The results of one run: `there` and `back` were moved, in so many seconds each."""

    there: int = 0
    there_seconds: float = 0.0
    back: int = 0
    back_seconds: float = 0.0
    refused: int = 0
    p99: float = 0.0
    settled: bool = False

    @property
    def ok(self) -> bool:
        """No acknowledged ping lost, none worked that was not sent, and nothing left over."""
        return self.settled and not self.lost and not self.unexpected

    def __str__(self) -> str:
        return (
            f"moved {self.there} to PostgreSQL in {self.there_seconds:.0f} s and {self.back} back in "
            f"{self.back_seconds:.0f} s; acknowledged {self.acknowledged}, lost {len(self.lost)}, worked twice "
            f"{self.worked_twice}, taken twice {self.taken_twice}; other answers while programs were restarted "
            f"{self.refused}, p99 {self.p99 * 1000:.0f} ms; settled {self.settled}"
        )


class Installation:
    """A machine with beanstalkd, beside it a PostgreSQL server; its programs use the one or the other."""

    def __init__(self, machine: Machine, url: str) -> None:
        self.machine = machine
        self._url = url
        self._before = machine.config.read_text()
        self.other = machine.directory / "postgres.toml"
        self.other.write_text(re.sub('(?m)^url = "beanstalk:.*$', f'url = "{url}"', self._before, count=1))
        self._command("queue", "init", "--url", url).communicate(timeout=PATIENCE)

    def use_postgres(self) -> None:
        self._restart(self.other.read_text())

    def use_beanstalkd(self) -> None:
        self._restart(self._before)

    def move(self, option: str, origin: Path, during: Callable[[], None]) -> int:
        """Moves all between this queue and PostgreSQL, and what comes, while `during` runs; how many were moved."""
        following = self._command("move", "--follow", "--yes", "--json", option, self._url)
        try:
            during()
            self.wait(lambda: not self.left(origin), f"{origin.name} to be empty")
        finally:
            following.send_signal(signal.SIGINT)
            said, _ = following.communicate(timeout=PATIENCE)
        return int(json.loads(said)["sums"].get("moved", 0))

    def left(self, config: Path) -> int:
        """How many jobs the queue of these settings holds."""
        with closing(open_inspector(load(str(config), {}))) as inspector:
            return sum(counts.jobs for counts in inspector.counts())

    def wait(self, condition: Callable[[], object], what: str) -> None:
        over = time.monotonic() + PATIENCE
        while not condition():
            if time.monotonic() > over:
                raise TimeoutError(f"waited in vain for {what}; {self.machine.directory}")
            time.sleep(0.2)

    def stop(self, service: Service) -> None:
        """Stops it until `go_on`."""
        service.down_until = float("inf")
        if (main := service.main()) is not None:
            main.send(signal.SIGTERM)
        self.wait(lambda: service.main() is None, f"{service.name} to end")

    def go_on(self, service: Service) -> None:
        before = len(service.ups)
        service.down_until = 0.0
        self.wait(lambda: len(service.ups) > before, f"{service.name} to be up")

    def _restart(self, text: str) -> None:
        self.machine.config.write_text(text)
        for service in (self.machine.web, self.machine.pool):
            self.stop(service)
            self.go_on(service)

    def _command(self, *words: str) -> subprocess.Popen[bytes]:
        # a file of its own: that of the programs changes meanwhile
        config = self.machine.directory / "command.toml"
        config.write_text(self._before)
        command = [sys.executable, str(ROOT / "bin/glassq"), "--config", str(config), *words]
        with (self.machine.directory / "commands.log").open("ab") as log:
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log)


def run(machine: Machine, url: str, deliveries: int, say: Callable[[str], object]) -> MoveReport:
    """Fills the queue, moves it there and back under load, and counts."""
    report = MoveReport()
    site = Installation(machine, url)
    beanstalkd = machine.directory / "command.toml"
    site.stop(machine.pool)
    with _load(machine, "fill", deliveries) as filled:
        site.wait(lambda: len(filled.acknowledged) >= deliveries, "the queue to be filled")
    say(f"{site.left(beanstalkd)} deliveries wait in beanstalkd")
    site.go_on(machine.pool)
    with _load(machine, "ping", RATE) as pings:
        began = time.monotonic()
        report.there = site.move("--to-engine", beanstalkd, site.use_postgres)
        report.there_seconds = time.monotonic() - began
        say(f"moved {report.there} to PostgreSQL; {site.left(site.other)} wait there")
        began = time.monotonic()
        site.use_beanstalkd()
        report.back = site.move("--from-engine", site.other, lambda: None)
        report.back_seconds = time.monotonic() - began
        say(f"moved {report.back} back; {site.left(beanstalkd)} wait in beanstalkd")
    report.refused = len(pings.tries) - len(pings.acknowledged)
    report.p99 = quantile(pings.acknowledged, 0.99)
    report.settled = machine.settle(PATIENCE) and not site.left(site.other)
    count(report, [filled, pings], read_handled(machine.directory / "handled.log"))
    return report


def _load(machine: Machine, name: str, rate: float) -> Load:
    return Load(
        machine.web_port, machine.token, machine.directory / "client.log", name=name, clients=CLIENTS, rate=rate
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="make torture-move", description=__doc__)
    parser.add_argument("--deliveries", type=int, default=20_000, help="so many wait at the start")
    parser.add_argument("--dir", type=Path, help="directory for all files, which are kept (var/move/TIME)")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    # a job in the background ignores it, and so would the move that it is to end
    signal.signal(signal.SIGINT, signal.default_int_handler)
    directory = arguments.dir or ROOT / "var" / "move" / time.strftime("%Y%m%d-%H%M%S")
    directory.mkdir(parents=True)
    print(f"everything is kept in {directory}")
    server = PostgresServer(directory)
    try:
        plan = Plan(children=CHILDREN, settings=SETTINGS.format(directory=directory.resolve()))
        with Machine(directory, plan=plan) as machine:
            url = server.url(server.database()).whole
            report = run(machine, url, arguments.deliveries, lambda text: print(text, flush=True))
    finally:
        server.remove()
    (directory / "report.json").write_text(json.dumps(asdict(report), indent=2) + "\n")
    print(report)
    return 0 if report.ok else 1


if __name__ == "__main__":
    sys.exit(main())
