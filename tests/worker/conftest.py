"""A consumer on a real queue, with one scripted handler that does what a delivery's body says."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from glassq import delivery as envelope
from glassq.errors import Bury, DeadlineExceeded, Drop, Interrupted, LeaseLost, Retry
from glassq.policy import Deadlines, Policy
from glassq.queues.beanstalk.protocol import JobStats
from glassq.queues.beanstalk.receiver import BeanstalkReceiver
from glassq.routes import Context, Destination, Routes
from glassq.settings import Route, Settings
from glassq.values import HandlerName
from glassq.worker import consumer
from glassq.worker.consumer import SHORT_POLL, Consumer
from glassq.worker.executor import Executor
from glassq.worker.gates.doorman import Doorman
from glassq.worker.gates.limiter import GatedLimiter
from glassq.worker.gates.rules import GateRules
from glassq.worker.lease import Lease
from glassq.worker.scoreboard import Scoreboard
from glassq.worker.settlement import Settlement
from glassq.worker.shares import QueueLimiter, Share
from glassq.worker.throttle import Throttle, TubeLimiter
from tests.conftest import wait_for
from tests.syncers import prover_beside

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    from glassq.bodies import BodyStore
    from glassq.delivery import Delivery
    from glassq.ledger import Entry
    from glassq.routes import Handler, Result
    from glassq.worker.bucket import Limit
    from tests.conftest import Beanstalkd
    from tests.queues.raw import Queue

DEADLINE, GRACE = 60.0, 10.0


class Crash(BaseException):
    """Nothing expects this one."""


class MemoryLedger:
    """A ledger that forgets when it goes."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []

    def record(self, entry: Entry) -> None:
        self.entries.append(entry)

    def done_since(self, fingerprint: str, after: datetime, *, but: str) -> str:
        return self._first(lambda e: e.fingerprint == fingerprint and bool(e.started and e.started > after), but)

    def event_done(self, event: str, since: datetime, *, but: str) -> str:
        return self._first(lambda e: e.event == event and e.updated >= since, but)

    def _first(self, wanted: Callable[[Entry], bool], but: str) -> str:
        found = (e.delivery for e in self.entries if e.state == "done" and e.delivery != but and wanted(e))
        return next(found, "")

    def settle(self, patience: float) -> None:
        pass

    def close(self) -> None:
        pass


def _raise(error: BaseException) -> Result:
    raise error


class _Mute:
    def __str__(self) -> str:
        raise RuntimeError("no words")


class _Exits(Exception):
    def __str__(self) -> str:
        sys.exit(3)


class _NoFields(Retry):
    """Its author forgot super().__init__()."""

    def __init__(self) -> None:
        pass

    @property
    def counts(self) -> bool:  # type: ignore[override]
        raise KeyboardInterrupt


async def _later() -> str:
    return "stored"


ACTS: dict[str, Callable[[], Any]] = {
    "done": lambda: "stored",
    "nothing": lambda: None,
    "dict": lambda: {"urls": ["a", "b"]},
    "odd dict": lambda: {("a", 1): "left out", "b": "caf\udce9"},
    "mute dict": lambda: {"a": _Mute()},
    "odd text": lambda: "caf\udce9",
    "long result": lambda: "x" * 10_000,
    "object": lambda: {"at": Ellipsis},
    "coroutine": _later,
    "coroutines": lambda: {"all": [_later(), _later()]},
    "generator": lambda: (each for each in "ab"),
    "drop": lambda: _raise(Drop("spoofed")),
    "retry": lambda: _raise(Retry("busy")),
    "retry later": lambda: _raise(Retry("busy", delay=77.2)),
    "retry never": lambda: _raise(Retry("busy", delay=1e300)),
    "wait": lambda: _raise(Retry("not ready", delay=9, counts=False)),
    "bury": lambda: _raise(Bury("consent revoked")),
    "fail": lambda: _raise(ValueError("no")),
    "odd error": lambda: _raise(OSError("caf\udce9" + "y" * 100_000)),
    "error that exits": lambda: _raise(_Exits()),
    "exiting reason": lambda: _raise(Retry(_Exits())),  # type: ignore[arg-type]
    "fieldless verdict": lambda: _raise(_NoFields()),
    "exit": lambda: sys.exit(3),
    "crash": lambda: _raise(Crash("boom")),
    "overrun": lambda: _raise(DeadlineExceeded()),
    "interrupted": lambda: _raise(Interrupted()),
    "lease lost": lambda: _raise(LeaseLost()),
}


class FinishingConsumer(Consumer):
    """Awaits the proof of what each job was put again as; tests/queues/test_hand_over.py has jobs worked meanwhile."""

    def work_one(self, poll: int = SHORT_POLL) -> bool:
        busy = super().work_one(poll)
        self._receiver.finish()
        return busy


def gated(throttle: Throttle, main: TubeLimiter | QueueLimiter, receiver: BeanstalkReceiver, tube: str) -> GatedLimiter:
    """What a consumer is limited by where no route has a gate."""
    rules = GateRules(tube, frozenset({tube}), {}, {})
    return GatedLimiter(main, throttle.gates, Doorman(throttle.gates, 0, rules), rules, receiver)


@dataclass
class Bench:
    """One consumer with all that it works on. `seen` are the deliveries that its handler got."""

    queue: Queue
    policy: Policy = field(default_factory=lambda: Policy(max_attempts=3, max_lost=3, backoff=30, backoff_cap=3600))
    handler: Handler | None = None
    #: tubes beside the queue's own, and the one that the route wants its deliveries in
    limits: tuple[Limit, ...] = ()
    leads_to: str = ""
    bodies: BodyStore | None = None
    #: queues beside the main one, with the clock of the consumer's turns
    shares: tuple[Share, ...] = ()
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        self.seen: list[Delivery] = []
        self.remaining: list[float] = []
        self.board = Scoreboard(1)
        self.slot = self.board.slots[0]
        self.slot.reset()
        self.ledger = MemoryLedger()
        route = Route(source="mirror", handler=HandlerName("scripted:handler"))
        receiver = BeanstalkReceiver(self.queue, prover_beside(self.queue.url))
        executor = Executor(
            Routes([Destination(route, self.handler or self._scripted, self.leads_to)]),
            Context(Settings()),
            self.ledger,
            Lease(receiver, 120, self.slot),
            self.policy,
            Deadlines(soft=DEADLINE - GRACE, hard=DEADLINE),
            bodies=self.bodies,
        )
        self.settlement = Settlement(receiver, self.ledger, self.slot.counters, self.bodies)
        self.throttle = Throttle(slots=2)
        limiter = gated(self.throttle, self._limiter(), receiver, self.queue.tube)
        self.consumer = FinishingConsumer(receiver, limiter, executor, self.settlement, self.slot)

    def _limiter(self) -> TubeLimiter | QueueLimiter:
        self.throttle.set(self.limits)
        limiter = self.throttle.limiter(0, free=[self.queue.tube], limited=[limit.tube for limit in self.limits])
        if not self.shares:
            return limiter
        return QueueLimiter(limiter, self.shares, self.throttle.place(0, []), self.clock)

    def work_ahead(self, most: int) -> list[str]:
        """Works so many jobs as a child does, each reserved with the end of the one before; the tubes they were in."""
        done = len(self.ledger.entries)
        self.consumer.run(lambda: len(self.ledger.entries) >= done + most)
        return [entry.tube for entry in self.ledger.entries[done:]]

    def _scripted(self, delivery: Delivery, context: Context) -> Result:
        self.seen.append(delivery)
        self.remaining.append(context.remaining())
        result: Result = ACTS[json.loads(delivery.body)["do"]]()
        return result


def made(do: str, source: str = "mirror") -> Delivery:
    return envelope.new(source, json.dumps({"do": do}).encode(), {"collection": "timeline"})


def jobs(queue: Queue) -> list[JobStats]:
    """All jobs of the tube, newest first."""
    states = frozenset({"ready", "reserved", "delayed", "buried"})
    while True:
        found = [stats for stats in queue.scan(states) if isinstance(stats, JobStats)]
        now = queue.stats_tube()
        # a delivery that was put again meanwhile is in a job that the scan did not come by
        if len(found) >= now.ready + now.reserved + now.delayed + now.buried:
            return found


def only(queue: Queue) -> tuple[JobStats, Delivery]:
    """The tube's only job, and the delivery in it."""
    # a delivery that is put again is in two jobs for a moment
    wait_for(lambda: len(jobs(queue)) <= 1, "one job to be left")
    (stats,) = jobs(queue)
    return stats, envelope.decode(queue.peek(stats.id).body)


@pytest.fixture
def nobody_reports_deaths(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pool's parent is there: what it would have recorded by now is not waited for."""
    monkeypatch.setattr(consumer, "CRASH_REPORT_WAIT", 0.05)


@pytest.fixture
def look(beanstalkd: Beanstalkd) -> Iterator[Queue]:
    """A connection of the test's own, to put deliveries and to look at what became of them."""
    opened = beanstalkd.queue()
    yield opened
    opened.close()


@pytest.fixture
def bench(queue: Queue) -> Bench:
    return Bench(queue)
