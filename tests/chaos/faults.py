"""Faults: a plan of faults, made from a seed, and the saboteur that carries it out on a machine."""

from __future__ import annotations

import errno
import heapq
import itertools
import random
import signal
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.chaos.disk import PLACES, Filler
from tests.powercut.recording import Call

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.chaos.harness import Machine, Service
    from tests.chaos.processes import Handle

    Undo = Callable[[], None]

KILL, TERM, STOP, CONT, HUP = signal.SIGKILL, signal.SIGTERM, signal.SIGSTOP, signal.SIGCONT, signal.SIGHUP

# How long a fault waits for its victim, in seconds: a service may just be starting.
VICTIM_TIMEOUT = 15.0


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of fault. `lasts` is the range of its duration in seconds, `often` its share of the plan."""

    name: str
    lasts: tuple[float, float] = (0.0, 0.0)
    often: int = 1


KILL_WEB_WORKER = Kind("kill web worker", often=2)
FREEZE_WEB_WORKER = Kind("freeze web worker", (1.0, 4.0))
KILL_WEB_PARENT = Kind("kill web parent")
RESTART_WEB = Kind("restart web (TERM)")
RELOAD_WEB = Kind("reload web (HUP)")
KILL_CHILD = Kind("kill pool child", often=2)
FREEZE_CHILD = Kind("freeze pool child")
KILL_POOL = Kind("kill pool parent")
RESTART_POOL = Kind("restart pool (TERM)")
RELOAD_POOL = Kind("reload pool (HUP)")
KILL_QUEUE = Kind("kill beanstalkd", (0.0, 2.5))
RESTART_QUEUE = Kind("restart beanstalkd (TERM)", (0.0, 2.5))
FREEZE_QUEUE = Kind("freeze beanstalkd", (0.3, 5.0))
CUT = Kind("cut all connections", often=2)
FILL_DISK = Kind("fill beanstalkd's disk", (1.0, 4.0))
FILL_BOTH = Kind("fill both disks", (1.0, 4.0))
KILL_SYNCER = Kind("kill syncer", (0.0, 1.0))
FREEZE_SYNCER = Kind("freeze syncer", (0.3, 5.0))
RESTART_SYNCER = Kind("restart syncer (TERM)", (0.0, 1.0))
# Of these beanstalkd is killed and started again: until then nothing is proven.
QUEUE_WRITE = Kind("beanstalkd's write fails", (0.0, 2.0))
QUEUE_SYNC = Kind("beanstalkd's sync fails", (0.0, 2.0))
SYNCER_SYNC = Kind("syncer's sync fails", (0.0, 2.0))
INTAKE_WRITE = Kind("intake's writes fail, queue away", (0.5, 2.0))
INTAKE_SYNC = Kind("intake's syncs fail, queue away", (0.5, 2.0))
CLOCK_BACK = Kind("clock an hour back", (0.5, 4.0))
CLOCK_ON = Kind("clock an hour on", (0.5, 4.0))

KINDS = (
    KILL_WEB_WORKER, FREEZE_WEB_WORKER, KILL_WEB_PARENT, RESTART_WEB, RELOAD_WEB,
    KILL_CHILD, FREEZE_CHILD, KILL_POOL, RESTART_POOL, RELOAD_POOL,
    KILL_QUEUE, RESTART_QUEUE, FREEZE_QUEUE, CUT, FILL_DISK, FILL_BOTH,
    KILL_SYNCER, FREEZE_SYNCER, RESTART_SYNCER,
    QUEUE_WRITE, QUEUE_SYNC, SYNCER_SYNC, INTAKE_WRITE, INTAKE_SYNC, CLOCK_BACK, CLOCK_ON,
)  # fmt: skip
# What needs a disk that can be filled, and a recorder that makes calls fail.
NEED_DISK = (FILL_DISK, FILL_BOTH)
#: service, call, part of the path, whether all calls fail for as long as it lasts (else the next one)
BROKEN: dict[Kind, tuple[str, Call, str, bool]] = {
    QUEUE_WRITE: ("beanstalkd", Call.WRITE, "queue/", False),
    QUEUE_SYNC: ("beanstalkd", Call.SYNC, "queue/", False),
    SYNCER_SYNC: ("syncer", Call.SYNC, "queue/", False),
    INTAKE_WRITE: ("web", Call.WRITE, "intake/", True),
    INTAKE_SYNC: ("web", Call.SYNC, "intake/", True),
}
STEPS = {CLOCK_BACK: -3600.0, CLOCK_ON: 3600.0}
NEED_RECORDER = (*BROKEN, *STEPS)


@dataclass(slots=True)
class Fault:
    """One fault. `due` is its planned time, in seconds from the start; `pick` (0 to 1) chooses among the victims.

    The other fields are set as it happens, on time.monotonic(): `began`; `ended`, when its cause is over (for a service
    that was down: when it answers again); `gone`, when a frozen victim was removed. 0: has not happened.
    """

    due: float
    kind: Kind
    pick: float
    lasts: float
    began: float = 0.0
    ended: float = 0.0
    gone: float = 0.0


def plan(seed: int, seconds: float, gap: float, kinds: Sequence[Kind] = KINDS) -> list[Fault]:
    """Faults for `seconds`, `gap` seconds apart on average: rounds of all kinds, each round in a random order."""
    chance = random.Random(seed)
    faults: list[Fault] = []
    due = 0.0
    while True:
        round_ = [kind for kind in kinds for _ in range(kind.often)]
        chance.shuffle(round_)
        for kind in round_:
            due += chance.uniform(0.3 * gap, 1.7 * gap)
            if due > seconds:
                return faults
            faults.append(Fault(due, kind, chance.random(), chance.uniform(*kind.lasts)))


class Saboteur:
    """Carries out a plan on a running machine."""

    def __init__(self, machine: Machine, planned: Sequence[Fault]) -> None:
        self.faults = list(planned)
        self._machine = machine
        self._fillers = [Filler(machine.disk / name) for name in PLACES]
        self._undo: list[tuple[float, int, Undo]] = []
        self._order = itertools.count()
        self._frozen: list[tuple[Fault, Handle]] = []
        machine.watch(self._note_removed)

    def run(self) -> None:
        """Returns when all faults are done and undone. Skips a fault that finds no victim in time (`began` stays 0)."""
        started = time.monotonic()
        for fault in self.faults:
            self._wait(started + fault.due)
            self._begin(fault)
        while self._undo:
            self._wait(self._undo[0][0])

    @property
    def frozen(self) -> int:
        """The number of frozen pool children that still live."""
        return sum(1 for _, victim in list(self._frozen) if victim.lives())

    def _wait(self, until: float) -> None:
        """Waits until then. Meanwhile undoes the faults that are due to be undone."""
        while True:
            now = time.monotonic()
            if self._undo and self._undo[0][0] <= now:
                heapq.heappop(self._undo)[2]()
                continue
            if now >= until:
                return
            time.sleep(min(until, self._undo[0][0] if self._undo else until) - now)

    def _begin(self, fault: Fault) -> None:
        kind, machine = fault.kind, self._machine
        if kind in (KILL_WEB_WORKER, FREEZE_WEB_WORKER):
            self._on_one(fault, machine.web)
        elif kind in (KILL_CHILD, FREEZE_CHILD):
            self._on_one(fault, machine.pool)
        elif kind in (KILL_WEB_PARENT, RESTART_WEB, RELOAD_WEB):
            self._on_main(fault, machine.web)
        elif kind in (KILL_POOL, RESTART_POOL, RELOAD_POOL):
            self._on_main(fault, machine.pool)
        elif kind in (KILL_QUEUE, RESTART_QUEUE, FREEZE_QUEUE):
            self._on_main(fault, machine.beanstalkd)
        elif kind is CUT:
            fault.began = fault.ended = time.monotonic()
            machine.proxy.reset()
        elif kind in (KILL_SYNCER, FREEZE_SYNCER, RESTART_SYNCER):
            self._on_main(fault, machine.syncer)
        elif kind in NEED_DISK:
            self._fill(fault, self._fillers[: 1 if kind is FILL_DISK else None])
        elif kind in BROKEN:
            self._break(fault)
        elif kind in STEPS:
            fault.began = time.monotonic()
            machine.step(STEPS[kind])
            self._later(fault, lambda: machine.step(0.0))

    def _fill(self, fault: Fault, fillers: Sequence[Filler]) -> None:
        """Fills disks for as long as the fault lasts."""

        def free() -> None:
            for filler in fillers:
                filler.free()

        fault.began = time.monotonic()
        for filler in fillers:
            filler.fill()
        self._later(fault, free)

    def _break(self, fault: Fault) -> None:
        """Makes calls of a service fail. Intake's are needed only while the queue is away: it is frozen meanwhile."""
        service, call, match, all_calls = BROKEN[fault.kind]
        control, queue = self._machine.control(service), self._machine.beanstalkd
        found = self._victims(lambda: [main for main in [queue.main()] if main is not None and queue.up])
        if not found:
            return
        fault.began = time.monotonic()
        control.order(call, last=1 << 60 if all_calls else 0, error=errno.EIO, match=match)
        if all_calls:
            found[0].send(STOP)

        def mend() -> None:
            control.clear()
            found[0].send(CONT if all_calls else KILL)

        self._later(fault, mend)

    def _on_one(self, fault: Fault, service: Service) -> None:
        """Kills or freezes one child of the service."""
        victims = self._victims(lambda: self._unfrozen(service))
        if not victims:
            return
        victim = victims[int(fault.pick * len(victims))]
        fault.began = fault.ended = time.monotonic()
        if fault.kind in (KILL_WEB_WORKER, KILL_CHILD):
            victim.send(KILL)
            return
        victim.send(STOP)
        if fault.kind is FREEZE_CHILD:
            self._frozen.append((fault, victim))
        else:
            self._later(fault, lambda: victim.send(CONT))

    def _on_main(self, fault: Fault, service: Service) -> None:
        """Kills, stops, reloads or freezes the main process of the service."""
        found = self._victims(lambda: [main for main in [service.main()] if main is not None and service.up])
        if not found:
            return
        victim, kind = found[0], fault.kind
        fault.began = fault.ended = time.monotonic()
        if kind in (FREEZE_QUEUE, FREEZE_SYNCER):
            victim.send(STOP)
            self._later(fault, lambda: victim.send(CONT))
            return
        if kind in (RELOAD_WEB, RELOAD_POOL):
            victim.send(HUP)
            return
        service.down_until = fault.began + fault.lasts
        orphans = service.children()
        victim.send(KILL if kind in (KILL_WEB_PARENT, KILL_POOL, KILL_QUEUE, KILL_SYNCER) else TERM)
        if kind is KILL_POOL:
            # systemd sends CONT with a unit's TERM: a frozen process could not end otherwise
            for orphan in orphans:
                orphan.send(CONT)
            self._frozen.clear()

    def _unfrozen(self, service: Service) -> list[Handle]:
        frozen = {victim for _, victim in self._frozen}
        return [child for child in service.children() if child not in frozen]

    def _victims(self, find: Callable[[], list[Handle]]) -> list[Handle]:
        deadline = time.monotonic() + VICTIM_TIMEOUT
        while not (found := find()) and time.monotonic() < deadline:
            self._wait(time.monotonic() + 0.02)
        return found

    def _later(self, fault: Fault, undo: Callable[[], object]) -> None:
        def act() -> None:
            undo()
            fault.ended = time.monotonic()

        heapq.heappush(self._undo, (fault.began + fault.lasts, next(self._order), act))

    def _note_removed(self, now: float) -> None:
        for fault, victim in list(self._frozen):
            if not fault.gone and not victim.lives():
                fault.gone = now
