"""The pool's parent: forks children, replaces those that end, kills those that hang, and stops them in order.

It does nothing that could fail or block: only children run handlers. glassq/worker/__init__.py lists the signals it
obeys and what it kills.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from setproctitle import setproctitle

from glassq import backoff
from glassq.errors import EX_CONFIG
from glassq.in_effect import InEffect
from glassq.log import fields, logger
from glassq.worker import leftovers
from glassq.worker.fork import fork
from glassq.worker.health import Health
from glassq.worker.metrics import LOST, WANTED
from glassq.worker.postmortem import OutOfMemory, how_it_ended
from glassq.worker.report import Report
from glassq.worker.scoreboard import MAX_SLOTS, Scoreboard, Slot, State
from glassq.worker.sidecar import Sidecar
from glassq.worker.signals import Signals
from glassq.worker.throttle import Throttle

if TYPE_CHECKING:
    from glassq.in_effect import Record
    from glassq.systemd import Notifier
    from glassq.worker.bucket import Limit
    from glassq.worker.processes import Process
    from glassq.worker.scoreboard import WorkerStatus

log = logger("glassq.worker")

# How often the parent looks at the scoreboard when nothing else wakes it, in seconds.
TICK = 0.5
# A child outside of an attempt whose keeper has not beaten for so long, in seconds, is frozen. See health.py.
SILENCE = 20.0
# After a pause of the parent itself children have so long to show that they live, in seconds.
MOMENT = 5.0
# A child that lived less than this, in seconds, and worked nothing, is replaced with backoff, from the second to the
# third. One that has worked is replaced at once: what killed it is in the delivery or came from outside.
SHORT_LIFE, RESPAWN, RESPAWN_CAP = 5.0, 0.1, 30.0
# How many tubes there is room for at the least; memory that nobody uses costs nothing.
MIN_TUBES = 256
# From a cold stop to SIGKILL, in seconds.
COLD = 5.0

# What a child runs, given its slot and the limits of the whole pool; returns the exit code.
ChildMain = Callable[[Slot, Throttle], int]
# What the process beside the children runs, given what they write on; the same.
SidecarMain = Callable[[Scoreboard], int]


@dataclass(frozen=True, slots=True)
class Plan:
    """What the settings say of the pool: what a child runs, how many there are, and which tubes have limits.

    `drain` is how long a stop waits for handlers, `silence` how long a child's heartbeat may stand still; in seconds.
    `beside` tells the metrics, if anybody does. `queue` is the queue's address, for people. `made_of` is what was read
    for it.
    """

    main: ChildMain
    processes: int
    drain: float
    silence: float = SILENCE
    limits: tuple[Limit, ...] = ()
    beside: SidecarMain | None = None
    queue: str = ""
    made_of: Record | None = None


@dataclass(slots=True)
class _Child:
    """`why` the parent killed it, if it did; `tree` are the processes below it that were there just before."""

    pid: int
    slot: Slot
    born: float
    generation: int
    health: Health
    stopping: bool = False
    why: str = ""
    tree: list[Process] = field(default_factory=list)


class Pool:
    """One parent and its children. `run` returns the exit code of the process."""

    def __init__(
        self,
        load: Callable[[], Plan],
        notify: Notifier,
        *,
        watchdog: float | None = None,
        in_effect: InEffect | None = None,
    ) -> None:
        """`load()` is called at the start and on SIGHUP (where it may raise: then nothing changes).

        `watchdog` is systemd's WatchdogSec, in seconds. `in_effect` is where the outcome of each reload is written.
        """
        self._load = load
        self._board = Scoreboard()
        self._children: dict[int, _Child] = {}
        self._sidecar = Sidecar()
        self._plan = load()
        self._report = Report(notify, self._plan.queue, watchdog=watchdog)
        # twice as many, for those that reloads bring
        self._throttle = Throttle(tubes=max(MIN_TUBES, 2 * len(self._plan.limits)))
        self._throttle.set(self._plan.limits)
        self._target = min(self._plan.processes, MAX_SLOTS)
        self._out_of_memory = OutOfMemory()
        # which plan children were made by: the one in force, and how many there have been
        self._generation = self._plans = 0
        # the last plan that had a child up, with its generation, while the one in force has none yet
        self._proven: tuple[Plan, int] | None = None
        self._in_effect = in_effect or InEffect()
        self._unconfirmed = False
        self._short_lives = 0
        self._spawn_at = 0.0
        self._stop_by: float | None = None
        self._cold = False
        self._exit_code = 0
        #: why a child cannot work, where that ends the start
        self._failed = ""
        self._ticked = self._patient_until = 0.0

    def run(self) -> int:
        """Runs until stopped. 0 after an orderly stop, 78 when the configuration is wrong."""
        setproctitle("glassq-worker: pool")
        self._orphans = leftovers.Orphans()
        with Signals() as signals:
            log.info("pool starts %s", fields(processes=self._target))
            if self._plan.made_of:
                self._in_effect.start(self._plan.made_of)
            while self._stop_by is None or self._children:
                self._tick()
                for number in signals.wait(TICK):
                    self._on_signal(number)
            self._sidecar.stop()
        if self._failed:
            self._report.failed(self._failed)
        log.info("pool stopped %s", fields(exit=self._exit_code))
        return self._exit_code

    def _tick(self) -> None:
        now = time.monotonic()
        # After a pause of our own (a suspended machine, a frozen group) every child looks silent: give them a moment.
        if self._ticked and now - self._ticked > self._plan.silence / 2:
            self._patient_until = now + min(MOMENT, self._plan.silence / 2)
        self._ticked = now
        self._reap()
        if self._stop_by is None:
            self._roll()
            self._spawn(now)
            self._tend_sidecar(now)
        elif now > self._stop_by:
            self._stop_harder(now)
        self._orphans.reap(self._pids())
        self._remind()
        if now >= self._patient_until:
            self._kill_hung(now)
        self._tell(now)

    def _on_signal(self, number: int) -> None:
        if number in (signal.SIGTERM, signal.SIGINT):
            self._stop(cold=self._stop_by is not None)
        elif number == signal.SIGQUIT:
            self._stop(cold=True)
        elif number == signal.SIGHUP:
            self._reload()
        elif number == signal.SIGTTIN:
            self._target = min(self._target + 1, MAX_SLOTS)
        elif number == signal.SIGTTOU:
            self._target = max(self._target - 1, 1)
        elif number == signal.SIGUSR2:
            faulthandler.dump_traceback(all_threads=True)
            self._signal_all(signal.SIGUSR2)

    # -- children come and go -----------------------------------------------------------------------------------

    def _spawn(self, now: float) -> None:
        wanted = [child for child in self._children.values() if not child.stopping]
        # while children are replaced there is one more of them
        replacing = any(child.generation != self._generation for child in wanted)
        surplus = len(wanted) - self._target - replacing
        for child in sorted(wanted, key=lambda child: child.born, reverse=True)[: max(0, surplus)]:
            self._end(child)
        if now < self._spawn_at:
            return
        taken = {child.slot.index for child in self._children.values()}
        free = (slot for slot in self._board.slots if slot.index not in taken)
        missing = -surplus if len(self._children) < 2 * self._target else 0
        for slot, _ in zip(free, range(missing), strict=False):
            self._fork(slot)

    def _fork(self, slot: Slot) -> None:
        slot.reset()
        try:
            pid = fork(lambda: self._run_child(slot))
        except OSError as error:
            slot.clear()
            log.error("cannot fork %s", fields(error=error))
            self._back_off(time.monotonic())
            return
        self._children[pid] = _Child(pid, slot, time.monotonic(), self._generation, Health(pid))

    def _run_child(self, slot: Slot) -> int:
        leftovers.mark()
        return self._plan.main(slot, self._throttle)

    def _pids(self) -> set[int]:
        return {*self._children, self._sidecar.pid}

    def _tend_sidecar(self, now: float) -> None:
        self._board.tally.set(WANTED, self._target)
        beside = self._plan.beside
        self._sidecar.tend(beside and (lambda: beside(self._board)), now)

    def _reap(self) -> None:
        for pid in list(self._children):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                child = self._children.pop(pid)
                self._on_end(child, os.waitstatus_to_exitcode(status))
                # not before its death is told: whoever has its job by now waits for that as long as the slot names it
                child.slot.clear()

    def _on_end(self, child: _Child, code: int) -> None:
        card = self._board.card(child.slot.index)
        self._throttle.clear(child.slot.index)
        if code == EX_CONFIG and self._stop_by is None and not self._report.ready:
            self._exit_code = EX_CONFIG
            self._stop(cold=False)
            self._failed = card.problem
            return
        if code == EX_CONFIG and self._proven is not None and child.generation == self._generation:
            self._take_back_reload(*self._proven, card.problem)
            return
        asked = child.stopping or self._stop_by is not None
        at_work = card.state is State.WORKING
        if at_work:
            self._orphans.end(child.pid, child.slot.index, card.begun, child.tree, self._pids())
        # a child asked to stop before it had its own signal handlers dies by the default one
        if not at_work and (code == 0 or (asked and code in (-signal.SIGTERM, -signal.SIGQUIT))):
            self._short_lives = 0
            return
        now, how = time.monotonic(), how_it_ended(code)
        out_of_memory = self._out_of_memory.killed() and code == -signal.SIGKILL
        told: dict[str, object] = {"pid": child.pid, "how": how, "worked": card.worked}
        if why := child.why or ("the machine ran out of memory" if out_of_memory else ""):
            told["why"] = why
        if at_work:
            self._board.tally.count(LOST)
            self._board.crashes.add(card.job, card.delivery, how, why, now - card.started)
            told |= _worked_on(card)
        log.error("child died %s", fields(**told))
        if now - child.born < SHORT_LIFE and not card.worked:
            self._back_off(now)
        else:
            self._short_lives = 0

    def _back_off(self, now: float) -> None:
        self._spawn_at = now + backoff.ceiling(self._short_lives, RESPAWN, RESPAWN_CAP)
        self._short_lives += 1

    def _kill_hung(self, now: float) -> None:
        for child in self._children.values():
            card = self._board.card(child.slot.index)
            why = child.health.verdict(card, now, self._plan.silence, self._plan.drain)
            if why and not child.why:
                log.error("child killed: %s %s", why, fields(pid=child.pid, **_worked_on(card)))
                child.why = why
                self._kill_child(child)

    def _kill_child(self, child: _Child) -> None:
        child.tree = self._orphans.tree(child.pid)
        _kill(child.pid, signal.SIGKILL)

    def _remind(self) -> None:
        """A handler may have had TERM ignored when it was sent. Whoever waits for a job hears it now."""
        for child in self._children.values():
            asked = child.stopping or self._stop_by is not None
            if asked and self._board.card(child.slot.index).state is State.WAITING:
                _kill(child.pid, signal.SIGTERM)

    def _end(self, child: _Child) -> None:
        child.stopping = True
        _kill(child.pid, signal.SIGTERM)

    # -- reload and stop ----------------------------------------------------------------------------------------

    def _take_back_reload(self, plan: Plan, generation: int, why: str) -> None:
        """The first of the new children could not use its settings or handlers, and has said why."""
        self._generation, self._proven = generation, None
        self._use(plan)
        self._throttle.set(plan.limits)
        self._unconfirmed = False
        log.error("not reloaded: the children that run stay as they are")
        self._in_effect.refuse(why or "new children cannot use what they read")

    def _use(self, plan: Plan) -> None:
        self._plan = plan
        self._target = min(plan.processes, MAX_SLOTS)
        self._report.queue = plan.queue
        self._sidecar.restart()

    def _reload(self) -> None:
        try:
            plan = self._load()
            self._throttle.set(plan.limits)
        except Exception as error:
            # queue.yaml may have several mistakes, a line each
            for line in str(error).splitlines():
                log.error("not reloaded: %s", line)
            self._in_effect.refuse(str(error))
            return
        self._proven = self._proven or (self._plan, self._generation)
        self._plans += 1
        self._generation = self._plans
        self._unconfirmed = True
        self._use(plan)
        log.info("reloading %s", fields(generation=self._generation, processes=self._target))

    def _roll(self) -> None:
        """Ends one child of another generation for each new one that is up, those that wait for a job first.

        The new one comes first: where it cannot start, nothing is lost. The old one may take its time to finish; so a
        long handler holds up nobody, and there are never more than twice as many processes.
        """
        states = {child.pid: self._board.card(child.slot.index).state for child in self._children.values()}
        living = [child for child in self._children.values() if not child.stopping]
        self._confirm(child for child in living if states[child.pid] is not State.STARTING)
        up = all(states[child.pid] not in (State.STARTING, State.CONNECTING) for child in living)
        old = [child for child in living if child.generation != self._generation]
        if old and up and len(living) > self._target:
            self._proven = None
            self._end(min(old, key=lambda child: states[child.pid] is State.WORKING))

    def _confirm(self, loaded: Iterable[_Child]) -> None:
        """A reload is in effect once a new child has loaded settings and handlers: to connect may take it long."""
        if self._unconfirmed and any(child.generation == self._generation for child in loaded):
            self._unconfirmed = False
            if self._plan.made_of:
                self._in_effect.accept(self._plan.made_of)

    def _stop(self, *, cold: bool) -> None:
        now = time.monotonic()
        patience = COLD if cold else self._plan.drain
        log.info("pool stops %s", fields(how="cold" if cold else "draining", patience=f"{patience:g}s"))
        self._report.stopping()
        self._stop_by = now + patience
        self._cold = cold
        self._signal_all(signal.SIGQUIT if cold else signal.SIGTERM)

    def _stop_harder(self, now: float) -> None:
        if not self._cold:
            self._stop(cold=True)
            return
        log.error("children do not stop: killed %s", fields(pids=",".join(map(str, self._children))))
        self._stop_by = now + COLD
        for child in self._children.values():
            self._kill_child(child)

    def _signal_all(self, number: int) -> None:
        for pid in self._children:
            _kill(pid, number)

    # -- what systemd is told -----------------------------------------------------------------------------------

    def _tell(self, now: float) -> None:
        children = self._children.values()
        cards = [self._board.card(child.slot.index) for child in children]
        if self._stop_by is not None:
            self._report.draining(cards)
        else:
            self._report.tick(cards, now, target=self._target, well=not any(child.why for child in children))


def _worked_on(card: WorkerStatus) -> dict[str, object]:
    """For the log: nothing where no attempt runs."""
    if card.state is not State.WORKING:
        return {}
    return {"job": card.job, "delivery": card.delivery, "attempt": card.attempt}


def _kill(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
