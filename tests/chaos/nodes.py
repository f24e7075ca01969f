"""The torture of many machines: two intakes and two pools on three PostgreSQL nodes, which fail in turn under load.

`make torture ENGINE=postgres` runs it. Each fault has its own line: the longest time without an answer, answers other
than 200, and how long the pools had nothing to work. Exits 0 only if no acknowledged ping was lost, and all settled.
"""

from __future__ import annotations

import argparse
import itertools
import json
import secrets
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console
from rich.table import Table

from glassq.errors import GlassqError
from glassq.queues import open_inspector
from glassq.settings import load
from tests.chaos.disk import Filler, small_disks
from tests.chaos.harness import HANDLER, INTERVAL, PATIENT, ROOT, Service, journaled_in, listens
from tests.chaos.load import Load
from tests.chaos.report import Counted, count, quantile, read_handled
from tests.ports import free_port
from tests.postgres_cluster import PostgresCluster

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.chaos.processes import Handle
    from tests.chaos.report import Handled
    from tests.postgres_cluster import Node

HOSTS, CHILDREN, CLIENTS = 2, 2, 8
# How long a fault lasts where nothing else is said, and the pause after its recovery, in seconds.
LASTS, PAUSE = 5.0, 3.0
# How long an operator takes to see that the primary is gone and to promote another, in seconds.
PROMOTED_AFTER = 3.0
# How long everything may take to settle, in seconds.
SETTLE_TIMEOUT = 120.0
# The size of the disk that the three nodes share, as mount has it.
DISK = "600m"

SETTINGS = """\
[queue]
url = "{queue}"
ttr = "20s"
[intake]
bind = "127.0.0.1:{web}"
workers = 2
journal = "{directory}/journal"
journal_min_free = "1MiB"
"""


@dataclass
class Host:
    """A machine with an intake and a pool. It has no queue of its own."""

    directory: Path
    queue: str
    token: str
    services: list[Service] = field(default_factory=list)
    port: int = 0

    def prepare(self) -> None:
        self.directory.mkdir(parents=True)
        self.port = free_port()
        (self.directory / "tokens").write_text(f"{self.token}\n")
        shutil.copy(HANDLER, self.directory / "torture_handler.py")
        text = (SETTINGS + PATIENT).format(queue=self.queue, web=self.port, directory=self.directory, children=CHILDREN)
        (self.directory / "glassq.toml").write_text(text)
        self.services = [self._service("web", lambda: listens(self.port)), self._service("worker", self._is_whole)]

    @property
    def pool(self) -> Service:
        return self.services[1]

    def journaled(self) -> int:
        """How many pings lie in its journal."""
        return journaled_in(self.directory / "journal")

    def _is_whole(self) -> bool:
        return len(self.pool.children()) >= CHILDREN

    def _service(self, name: str, answers: Callable[[], bool]) -> Service:
        program = [sys.executable, str(ROOT / f"bin/glassq-{name}"), "--config", str(self.directory / "glassq.toml")]
        return Service(name, program, self.directory / f"{name}.log", answers)


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


class Site:
    """The cluster and the hosts. A supervisor restarts each service when it ends, as systemd would."""

    def __init__(self, directory: Path, *, disk: Path | None = None) -> None:
        self.directory = directory
        self.disk = disk
        self.journaled_most = 0
        self.seen: set[Handle] = set()
        self._stopped = threading.Event()
        self._cleanup = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as cleanup:
            place = self.disk or self.directory / "nodes"
            place.mkdir(parents=True, exist_ok=True)
            self.cluster = cleanup.enter_context(PostgresCluster(place))
            self.queue = self.cluster.url(self.cluster.database()).whole
            token = secrets.token_urlsafe(12)
            self.hosts = [Host(self.directory / f"host{number}", self.queue, token) for number in range(1, HOSTS + 1)]
            self.token = token
            for host in self.hosts:
                host.prepare()
            self._create_tables()
            supervisor = threading.Thread(target=self._supervise, name="supervisor", daemon=True)
            supervisor.start()
            cleanup.callback(self._stop, supervisor)
            self.wait(lambda: all(each.up for each in self.services), "the services to be up", 60)
            self._cleanup = cleanup.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._cleanup.close()

    @property
    def services(self) -> list[Service]:
        return [service for host in self.hosts for service in host.services]

    @property
    def primary(self) -> Node:
        return self.cluster.primary

    def waiting(self) -> int:
        """How many deliveries are not done: in the queue, and in the journals. Raises GlassqError."""
        inspector = open_inspector(load(str(self.hosts[0].directory / "glassq.toml"), {}))
        try:
            queued = sum(counts.jobs for counts in inspector.counts())
        finally:
            inspector.close()
        return queued + sum(host.journaled() for host in self.hosts)

    def settle(self) -> bool:
        """Waits until nothing is left to do; whether that came in time."""
        over = time.monotonic() + SETTLE_TIMEOUT
        while time.monotonic() < over:
            with suppress(GlassqError):
                if not self.waiting():
                    return True
            time.sleep(0.2)
        return False

    def wait(self, condition: Callable[[], object], what: str, seconds: float = SETTLE_TIMEOUT) -> None:
        over = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > over:
                raise TimeoutError(f"waited in vain for {what}; {self.directory}")
            time.sleep(INTERVAL)

    def _create_tables(self) -> None:
        config = str(self.hosts[0].directory / "glassq.toml")
        command = [sys.executable, str(ROOT / "bin/glassq"), "--config", config, "queue", "init"]
        subprocess.run(command, check=True, capture_output=True, timeout=60)

    def _supervise(self) -> None:
        while not self._stopped.wait(INTERVAL):
            for service in self.services:
                service.tend(time.monotonic())
                self.seen.update(each for each in [*service.children(), service.main()] if each is not None)

    def _stop(self, supervisor: threading.Thread) -> None:
        self._stopped.set()
        supervisor.join()
        for service in self.services:
            service.stop()
        for process in self.seen:
            process.send(signal.SIGKILL)


# -- faults ------------------------------------------------------------------------------------------------------------


def standby_killed(site: Site) -> None:
    """One of two standbys dies, and comes again: the other confirms."""
    node = site.cluster.standbys[0]
    node.kill()
    time.sleep(LASTS)
    node.start()


def standby_frozen(site: Site) -> None:
    node = site.cluster.standbys[0]
    node.freeze()
    time.sleep(LASTS)
    node.thaw()


def standbys_away(site: Site) -> None:
    """No commit can be confirmed: pings go to the journals."""
    for node in site.cluster.standbys:
        node.kill()
    time.sleep(LASTS)
    for node in site.cluster.standbys:
        node.start()


def standbys_cut_off(site: Site) -> None:
    for node in site.cluster.standbys:
        site.primary.proxy.reset()
        node.running.configure(primary_conninfo="host=127.0.0.1 port=1")
    time.sleep(LASTS)
    for node in site.cluster.standbys:
        site.cluster.follow(node)


def primary_frozen(site: Site) -> None:
    site.primary.freeze()
    time.sleep(LASTS)
    site.primary.thaw()


def primary_cut_off(site: Site) -> None:
    """Its packets go nowhere: nobody is told that the connection is gone."""
    site.primary.cut()
    time.sleep(LASTS)
    site.primary.heal()


def primary_restarted(site: Site) -> None:
    """It dies and comes again by itself, as systemd would have it."""
    site.primary.kill()
    time.sleep(1.0)
    site.primary.start()


def primary_replaced(site: Site) -> None:
    """It dies for good: an operator promotes the standby that has most, and the dead one comes back as a standby."""
    dead = site.primary
    dead.kill()
    time.sleep(PROMOTED_AFTER)
    site.cluster.promote(site.cluster.longest())
    time.sleep(PAUSE)
    site.cluster.rejoin(dead)


def disk_full(site: Site) -> None:
    """The primary's disk is full: its log cannot be written, so it stops; with room it starts again."""
    assert site.disk is not None, "no disk can be mounted here"
    filler = Filler(site.disk)
    filler.fill()
    time.sleep(LASTS)
    filler.free()
    for node in site.cluster.nodes:
        if not node.running.running():
            node.start()


FAULTS: dict[str, Callable[[Site], None]] = {
    "a standby killed, started again": standby_killed,
    "a standby frozen": standby_frozen,
    "both standbys dead, started again": standbys_away,
    "both standbys cut off from the primary": standbys_cut_off,
    "the primary frozen": primary_frozen,
    "the primary cut off from everybody": primary_cut_off,
    "the primary killed, started again": primary_restarted,
    "the primary dead, a standby promoted by hand": primary_replaced,
    "the databases' disk full": disk_full,
}


# -- one run -----------------------------------------------------------------------------------------------------------


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
    return Load(
        host.port, site.token, host.directory / "client.log", name=host.directory.name, clients=CLIENTS, rate=rate
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
