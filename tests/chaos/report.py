"""Counts the pings that were acknowledged, handled, lost or worked twice, and measures the recovery from faults."""

from __future__ import annotations

import itertools
import json
from collections import defaultdict
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from rich.table import Table

from glassq.journal.mover import PACKET
from tests.chaos import faults as kinds
from tests.chaos.harness import POOL_CHILDREN

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from tests.chaos.faults import Fault, Kind
    from tests.chaos.load import Load, Try

WEB = (kinds.KILL_WEB_WORKER, kinds.FREEZE_WEB_WORKER, kinds.KILL_WEB_PARENT, kinds.RESTART_WEB, kinds.RELOAD_WEB)
NEW_CHILD = (kinds.KILL_CHILD, kinds.KILL_POOL, kinds.RESTART_POOL)
QUEUE_DOWN = (kinds.KILL_QUEUE, kinds.RESTART_QUEUE)
QUEUE = (*QUEUE_DOWN, kinds.FREEZE_QUEUE, kinds.CUT, *kinds.NEED_DISK, *kinds.BROKEN)
SYNCER = (kinds.KILL_SYNCER, kinds.FREEZE_SYNCER, kinds.RESTART_SYNCER)
# Faults that stop nobody else: they disturb no other measurement.
QUIET = (kinds.FREEZE_CHILD, kinds.RELOAD_WEB, kinds.RELOAD_POOL)


@dataclass(frozen=True, slots=True)
class Handled:
    """One line of the handler's record; `at` is on time.monotonic()."""

    delivery: str
    ping: str
    pid: int
    at: float


@dataclass
class Recoveries:
    """How often one kind of fault happened, and its longest recovery in seconds: of all, and of those alone.

    A fault is alone if no other one disturbed its recovery.
    """

    times: int = 0
    longest: float = 0.0
    alone: int = 0
    longest_alone: float = 0.0


@dataclass(kw_only=True)
class Counted:
    """What became of the pings of a run: each acknowledged one is handled, or `lost`; `unexpected` ones nobody sent."""

    attempted: int = 0
    acknowledged: int = 0
    handled: int = 0
    lost: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    worked_twice: int = 0
    taken_twice: int = 0


@dataclass
class Report(Counted):
    """The results of one run. Times are in seconds."""

    seed: int
    planned: int
    faults: dict[str, Recoveries] = field(default_factory=dict)
    bound: int = 0
    buried: int = 0
    stragglers: int = 0
    settled: bool = True
    silence: float = 0.0
    p50: float = 0.0
    p99: float = 0.0
    outage: dict[str, float] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """No ping lost, none handled that was not sent, and no process left over."""
        return not self.lost and not self.unexpected and self.settled and not self.stragglers

    def write(self, file: Path) -> None:
        """Writes the report as JSON."""
        document: dict[str, Any] = {**asdict(self), "ok": self.ok, "duplicated": self.worked_twice + self.taken_twice}
        file.write_text(json.dumps(document, indent=2) + "\n")


def read_handled(file: Path) -> list[Handled]:
    """The handler's record, in its order."""
    lines = file.read_text().splitlines() if file.exists() else []
    rows = [line.split() for line in lines]
    return [Handled(delivery, ping, int(pid), float(at)) for delivery, ping, pid, at in rows]


def count(report: Counted, loads: Iterable[Load], handled: Sequence[Handled]) -> None:
    """Counts the pings. Each acknowledged one must be handled, and each handled one must have been sent."""
    attempted = {ping for load in loads for ping in load.attempted}
    acknowledged = {made.ping for load in loads for made in load.acknowledged}
    pings = {entry.ping for entry in handled}
    report.attempted, report.acknowledged, report.handled = len(attempted), len(acknowledged), len(pings)
    report.lost = sorted(acknowledged - pings)
    report.unexpected = sorted(pings - attempted)
    deliveries = {entry.delivery for entry in handled}
    # a delivery that was worked again, and a ping that became two deliveries
    report.worked_twice = len(handled) - len(deliveries)
    report.taken_twice = len(deliveries) - len(pings)


def acknowledgements(report: Report, load: Load) -> None:
    """Records the times of the acknowledgements, and the longest time without one during the load."""
    answered = sorted(made.sent + made.seconds for made in load.acknowledged)
    edges = [load.began, *(at for at in answered if at < load.ended), load.ended]
    report.silence = max(after - before for before, after in itertools.pairwise(edges))
    report.p50, report.p99 = (quantile(load.acknowledged, share) for share in (0.5, 0.99))


def quantile(tries: Sequence[Try], share: float) -> float:
    """The time within which this share of the tries was answered, in seconds."""
    ordered = sorted(made.seconds for made in tries)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


def duplicates_of(kind: Kind, *, clients: int, rate: float, seconds: float) -> int:
    """The maximum number of pings that are worked twice because of one fault: those that are between two steps then.

    A child of the pool has one job between handler and delete. Intake has one request of each client between put and
    200; a queue that does not answer may have taken it twice (the put, and another one on a new connection) before it
    goes to the journal. While that is moved on, one packet is between put and note: it has no more than came while the
    fault lasted, for `seconds`. A clock that jumps ends the leases of all children.
    """
    packet = min(PACKET, clients + int(rate * seconds))
    if kind in (kinds.KILL_CHILD, kinds.FREEZE_CHILD):
        return 1
    if kind is kinds.KILL_POOL:
        return POOL_CHILDREN
    if kind in (kinds.RESTART_POOL, kinds.RELOAD_POOL):
        return 0
    if kind in kinds.STEPS:
        return POOL_CHILDREN
    if kind in WEB:
        return clients + packet
    return POOL_CHILDREN + 2 * clients + packet


def recoveries(report: Report, done: Sequence[Fault], load: Load, handled: Sequence[Handled]) -> None:
    """Records how often each kind of fault happened, and how long the recoveries took."""
    found: dict[str, Recoveries] = defaultdict(Recoveries)
    recovered = [_recovered(fault, load, handled) for fault in done]
    spans = [(fault, fault.began, max(fault.ended, at or 0.0)) for fault, at in zip(done, recovered, strict=True)]
    for fault, at in zip(done, recovered, strict=True):
        row = found[fault.kind.name]
        row.times += 1
        event = {"kind": fault.kind.name, "began": fault.began - load.began, "ended": fault.ended - load.began}
        report.events.append(event)
        if at is None:
            continue
        seconds = at - (fault.ended if fault.kind in QUEUE else fault.began)
        row.longest = max(row.longest, seconds)
        alone = not _disturbed(fault, at, spans)
        if alone:
            row.alone += 1
            row.longest_alone = max(row.longest_alone, seconds)
        event |= {"recovery": seconds, "alone": alone}
    report.faults = dict(found)


def _disturbed(fault: Fault, recovered: float, spans: Sequence[tuple[Fault, float, float]]) -> bool:
    if fault.kind is kinds.FREEZE_CHILD:
        # only the parent deals with it; if the parent was replaced meanwhile, there is no recovery to measure
        return False
    return any(
        began < recovered and ended > fault.began
        for other, began, ended in spans
        if other is not fault and other.kind not in QUIET
    )


def _recovered(fault: Fault, load: Load, handled: Sequence[Handled]) -> float | None:
    """When (on time.monotonic()) the work went on that the fault had stopped; None if that is not known."""
    if fault.kind is kinds.FREEZE_CHILD:
        return fault.gone or None
    if fault.kind in (*WEB, *SYNCER):
        answered = [made.sent + made.seconds for made in load.acknowledged if made.sent > fault.began]
        return min(answered, default=None)
    if fault.kind in NEW_CHILD:
        old = {entry.pid for entry in handled if entry.at <= fault.began}
        return next((entry.at for entry in handled if entry.at > fault.began and entry.pid not in old), None)
    if fault.kind in QUEUE:
        # each child may have reserved one job before the fault
        after = [entry.at for entry in handled if entry.at > fault.ended][: POOL_CHILDREN + 1]
        return after[-1] if len(after) > POOL_CHILDREN else None
    return None


def table(report: Report) -> Table:
    """The report as a table, for people."""
    made = Table(title=f"torture, seed {report.seed}", title_justify="left")
    for name in ("", "times", "recovery, longest alone", "longest of all"):
        made.add_column(name, justify="left" if not name else "right")
    for kind in kinds.KINDS:
        row = report.faults.get(kind.name, Recoveries())
        alone = f"{row.longest_alone:.2f} s of {row.alone}" if row.alone else "-"
        made.add_row(kind.name, str(row.times), alone, f"{row.longest:.2f} s" if row.longest else "-")
    made.add_section()
    for name, value, note in _totals(report):
        made.add_row(name, value, note, "")
    return made


def _totals(report: Report) -> list[tuple[str, str, str]]:
    twice = report.worked_twice + report.taken_twice
    rows = [
        ("faults", str(sum(row.times for row in report.faults.values())), f"of {report.planned} planned"),
        ("attempted", str(report.attempted), ""),
        ("acknowledged", str(report.acknowledged), ""),
        ("handled", str(report.handled), ""),
        ("lost", str(len(report.lost)), " ".join(report.lost[:3])),
        ("unexpected", str(len(report.unexpected)), " ".join(report.unexpected[:3])),
        ("duplicated", str(twice), f"{report.worked_twice} worked, {report.taken_twice} taken twice"),
        ("  explained", f"<= {report.bound}", "in flight at the faults"),
        ("buried", str(report.buried), ""),
        ("processes left over", str(report.stragglers), ""),
        ("settled", "yes" if report.settled else "no", ""),
        ("longest without a 200", f"{report.silence:.2f} s", ""),
        ("acknowledged p50", f"{report.p50 * 1e3:.1f} ms", ""),
        ("acknowledged p99", f"{report.p99 * 1e3:.1f} ms", ""),
    ]
    if report.outage:
        outage = report.outage
        rows += [
            ("queue away for", f"{outage['seconds']:g} s", f"{outage['rate']:g} pings/s"),
            ("  sent, not 200", f"{outage['sent']:.0f}, {outage['refused']:.0f}", "all through the journal"),
            ("  acknowledged p50", f"{outage['p50'] * 1e3:.1f} ms", ""),
            ("  acknowledged p99", f"{outage['p99'] * 1e3:.1f} ms", ""),
            ("  all of it handled in", f"{outage['drained']:.1f} s", "from the queue's return"),
        ]
    return rows
