"""Looks at queue and ledger for everybody who watches: one thread, so that ten open pages ask as little as none."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from glassq.errors import LedgerError, SettingsError
from glassq.log import logger
from glassq.operations import parked, push_queues, status, watcher, worker_queues
from glassq.operations.curves import MINUTES, Curve, sample
from glassq.operations.find import is_ours
from glassq.operations.rates import NONE, Minute, Percentiles, waited, worked
from glassq.operations.stopping import Stoppable
from glassq.operations.watcher import QueueWatcher

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from glassq.operations import Operations
    from glassq.operations.push_queues import PushQueueList
    from glassq.operations.status import SystemStatus
    from glassq.operations.worker_queues import WorkerQueueRow
    from glassq.queues.base import Inspector, TubeCounts

log = logger("glassq.operations")

# How often more than what a curve needs is asked while somebody watches, and while nobody does; in seconds.
STATUS, QUEUES, LEDGER = (5.0, 60.0), (15.0, 120.0), (15.0, 60.0)
# What of the status is a look through the ledger's last day.
RECORDED = (60.0, 120.0)
# Each takes at most this share of the time.
SHARE = 0.02
# The ledger is asked again for minutes that are younger than this: writers are late.
LATE = timedelta(minutes=3)
# Percentiles are those of this time, and of so many deliveries at most.
TIMED, MAX_TIMED = timedelta(minutes=15), 20_000
# So many tubes have a curve of their own, those with the most jobs.
MAX_CURVES = 24
_DONE, _FAILED = ("done", "dropped"), ("retrying",)


@dataclass(frozen=True, slots=True)
class QueuesView:
    """The queues of `glassq queues`. `pushed` is None where there are none; `mistakes` are those of queue.yaml."""

    own: tuple[WorkerQueueRow, ...] = ()
    pushed: PushQueueList | None = None
    mistakes: str = ""


@dataclass(frozen=True, slots=True)
class Samples:
    """What is known of the system.

    `at` is when the queue was looked at last, `since` when the first look was (None: never yet); `trouble` says why
    nobody can look now. `tubes` are ours, those of keys summed. `status`, of `status_at`, and `queues` may be some
    seconds older (None: nobody has looked yet). `minutes` are the ledger's, oldest first; `waited` and `worked` are of
    the last TIMED. `note` says why the ledger tells nothing.
    """

    at: datetime | None = None
    since: datetime | None = None
    trouble: str = ""
    tubes: tuple[TubeCounts, ...] = ()
    all: Curve = field(default_factory=Curve)
    curves: Mapping[str, Curve] = field(default_factory=dict)
    status: SystemStatus | None = None
    status_at: datetime | None = None
    queues: QueuesView | None = None
    minutes: tuple[Minute, ...] = ()
    waited: Percentiles = NONE
    worked: Percentiles = NONE
    note: str = ""


class Sampler(QueueWatcher):
    """`start` begins its thread, `close` ends it; `view` never waits."""

    def __init__(self, operations: Operations, turned: Callable[[], None] = lambda: None) -> None:
        """`turned` is called when the queue cannot be looked at any more, and when it can again."""
        super().__init__(operations, "sampler")
        self._turned = turned
        self._all = Curve()
        self._curves: dict[str, Curve] = {}
        self._minutes: dict[int, Minute] = {}
        self._view = Samples(all=self._all)
        self._due = dict.fromkeys(("status", "recorded", "queues", "ledger"), 0.0)
        # until when the ledger has been read
        self._read = datetime.max.replace(tzinfo=UTC)

    def view(self) -> Samples:
        """What is known now. Whoever asks, watches: if nobody did, it is looked anew at once.

        Where looks are metered, what is known may be old by then: that look is waited for, for a moment.
        """
        if self._attention.pay():
            self._wanted.set()
            if self._metered:
                self.look()
        return self._view

    def _cannot(self, why: str) -> None:
        self._turn(why)

    def _log_bug(self) -> str:
        log.exception("the sampler failed")
        return "the sampler failed: the log of the console says why"

    def step(self, queue: Inspector) -> None:
        """Looks once. Raises QueueError, SettingsError and Stopped."""
        now = self._operations.clock()
        ours = [counts for counts in queue.counts() if is_ours(self._operations.tube, counts.name)]
        tubes = parked.summed(self._operations.tube, ours)
        self._all.add(sample(now.timestamp(), tubes))
        self._add_curves(now.timestamp(), tubes)
        since = self._view.since or now
        self._change(at=now, since=since, tubes=tubes, curves=dict(self._curves))
        self._turn("")
        self._when_due("ledger", LEDGER, self._look_at_ledger)
        self._when_due("status", STATUS, lambda: self._look_at_status(queue))
        self._when_due("queues", QUEUES, lambda: self._look_at_queues(queue))

    def _add_curves(self, at: float, tubes: tuple[TubeCounts, ...]) -> None:
        largest = sorted(tubes, key=lambda tube: -tube.jobs)
        for tube in largest[:MAX_CURVES]:
            if tube.name not in self._curves and len(self._curves) >= MAX_CURVES:
                # the one that was seen longest ago makes room
                gone = min(self._curves, key=lambda name: self._curves[name].recent[-1].at)
                if self._curves[gone].recent[-1].at == at:
                    break
                del self._curves[gone]
            self._curves.setdefault(tube.name, Curve()).add(sample(at, [tube]))

    def _when_due(self, name: str, rhythm: tuple[float, float], look: Callable[[], None]) -> None:
        began = time.monotonic()
        if began < self._due[name]:
            return
        look()
        self._due[name] = self._next(began, rhythm)

    def _next(self, began: float, rhythm: tuple[float, float]) -> float:
        """When it is due again what has begun then and is over now."""
        # a large ledger takes its time
        rest = (time.monotonic() - began) / SHARE
        return began + max(rest, rhythm[0 if self._attention.is_paid else 1] - watcher.EVERY / 2)

    def _look_at_status(self, queue: Inspector) -> None:
        began, at = time.monotonic(), self._operations.clock()
        before = self._view.status if began < self._due["recorded"] else None
        self._change(status=status.snapshot(self._operations, queue, Stoppable(self._stopping), before), status_at=at)
        if before is None:
            self._due["recorded"] = self._next(began, RECORDED)

    def _look_at_queues(self, queue: Inspector) -> None:
        own = worker_queues.snapshot(self._operations, queue)
        pushed, mistakes = None, ""
        if self._operations.settings.push is not None:
            plan = push_queues.planned(self._operations)
            mistakes = plan.mistakes
            pushed = push_queues.snapshot(self._operations, queue, plan)
        self._change(queues=QueuesView(own, pushed, mistakes))

    def _look_at_ledger(self) -> None:
        now = self._operations.clock()
        begin = min(now, self._read) - LATE if self._minutes else now - timedelta(minutes=MINUTES)
        begin = begin.replace(second=0, microsecond=0)
        try:
            with self._operations.ledger() as ledger:
                rows = ledger.minutes(begin)
                timings = ledger.timings(now - TIMED, MAX_TIMED)
                note = ledger.absent
        except (LedgerError, SettingsError) as error:
            self._change(note=str(error))
            return
        self._read = now
        self._minutes |= by_minute(rows)
        # an empty ledger has been read as well
        self._minutes.setdefault(int(now.timestamp()) // 60 * 60, Minute(int(now.timestamp()) // 60 * 60))
        oldest = (now - timedelta(minutes=MINUTES)).timestamp()
        self._minutes = {at: minute for at, minute in sorted(self._minutes.items()) if at >= oldest}
        minutes = tuple(self._minutes.values())
        self._change(minutes=minutes, waited=waited(timings), worked=worked(timings), note=note)

    def _turn(self, trouble: str) -> None:
        turned = bool(trouble) != bool(self._view.trouble)
        self._change(trouble=trouble)
        if turned:
            self._turned()

    def _change(self, **changes: object) -> None:
        view = self._view
        fields = {name: getattr(view, name) for name in view.__slots__}
        self._view = Samples(**{**fields, **changes})


def by_minute(rows: list[tuple[datetime, str, int]]) -> dict[int, Minute]:
    """The counts of states by their minutes."""
    sums: dict[int, Counter[str]] = {}
    for at, state, count in rows:
        kind = "done" if state in _DONE else "failed" if state in _FAILED else state
        sums.setdefault(int(at.astimezone(UTC).timestamp()), Counter())[kind] += count
    return {at: Minute(at, found["done"], found["failed"], found["buried"]) for at, found in sums.items()}
