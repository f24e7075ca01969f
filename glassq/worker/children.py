"""The pool's child processes, for the parent: forks and reaps them, and kills those that hang.

pool.py decides how many there are, and which of them shall stop.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from glassq import backoff
from glassq.log import fields, logger
from glassq.worker import leftovers
from glassq.worker.child import EX_ROBBED
from glassq.worker.fork import fork
from glassq.worker.health import Health
from glassq.worker.layout import State
from glassq.worker.metrics import LOST
from glassq.worker.postmortem import OutOfMemory, how_it_ended
from glassq.worker.template import work_alone

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from glassq.worker.layout import WorkerStatus
    from glassq.worker.periodic import PeriodicProcess
    from glassq.worker.processes import Process
    from glassq.worker.scoreboard import Scoreboard
    from glassq.worker.sidecar import Sidecar
    from glassq.worker.slots import Slot
    from glassq.worker.template import Load
    from glassq.worker.templates import Birth, Templates
    from glassq.worker.throttle import Throttle

log = logger("glassq.worker")

# A child that dies within SHORT_LIFE seconds and has worked no job is replaced with backoff, from RESPAWN to
# RESPAWN_CAP seconds. A child that has worked is replaced at once: a delivery killed it, or something outside.
SHORT_LIFE, RESPAWN, RESPAWN_CAP = 5.0, 0.1, 30.0
# The exit code of a lane child whose handlers need none: only who has loaded them knows which ones are `async`.
EX_NO_LANES = 79


@dataclass(slots=True)
class Child:
    """One child process.

    `stopping`: it has been asked to stop. `kill_reason` is why the parent killed it, if it did; `tree` is the list of
    its descendants just before.
    """

    pid: int
    slot: Slot
    born: float
    generation: int
    health: Health
    stopping: bool = False
    kill_reason: str = ""
    tree: list[Process] = field(default_factory=list)


class Children:
    """All children of the pool that have not been reaped."""

    def __init__(
        self,
        scoreboard: Scoreboard,
        throttle: Throttle,
        templates: Templates,
        beside: Sequence[Sidecar | PeriodicProcess],
    ) -> None:
        """`templates` and `beside` are the other processes of the pool."""
        self._scoreboard = scoreboard
        self._throttle = throttle
        self._templates = templates
        self._beside = beside
        self._by_pid: dict[int, Child] = {}
        self._orphans = leftovers.Orphans()
        self._out_of_memory = OutOfMemory()
        self._short_lives = 0
        self._fork_after = 0.0
        #: what a child gets that is born while all stop; 0: they do not
        self._stop_signal = 0

    def __iter__(self) -> Iterator[Child]:
        return iter(self._by_pid.values())

    def __len__(self) -> int:
        return len(self._by_pid)

    def status(self, child: Child) -> WorkerStatus:
        """The child's own last words on the scoreboard."""
        return self._scoreboard.status(child.slot.index)

    @property
    def adopts(self) -> bool:
        """Whether the parent adopts orphans: only then can a template fork its children."""
        return self._orphans.adopts

    def fork(self, count: int, generation: int, load: Load, now: float, *, lanes: bool = False) -> None:
        """Forks `count` children, as far as there are free slots; none while short lives make it back off.

        With `lanes` they are lane children. Those that come from a template are added once they are born (`add`).
        """
        if now < self._fork_after:
            return
        taken = {child.slot.index for child in self} | self._templates.asked()
        fitting = [slot for slot in self._scoreboard.slots if bool(slot.lanes) is lanes and slot.index not in taken]
        slots = fitting[:count]
        for slot in slots:
            self._throttle.expect(slot.lanes[-1].index if slot.lanes else slot.index)
        if self._templates.serve(generation):
            self._templates.ask(generation, slots, now)
            return
        for slot in slots:
            self._fork(slot, generation, load)

    def add(self, birth: Birth) -> None:
        """Adds a child that a template has forked."""
        self._add(birth.pid, birth.slot, birth.generation)

    def stop(self, child: Child) -> None:
        """Asks the child to finish its attempt and stop."""
        child.stopping = True
        _kill(child.pid, signal.SIGTERM)

    def stop_all(self, *, cold: bool) -> None:
        """Asks all children to stop: after their attempts, or `cold`, at once."""
        self._stop_signal = signal.SIGQUIT if cold else signal.SIGTERM
        for child in self:
            child.stopping = True
        self.signal_all(self._stop_signal)

    def signal_all(self, number: int) -> None:
        """Sends the signal to all children."""
        for child in self:
            _kill(child.pid, number)

    def remind(self) -> None:
        """Sends TERM again to children that shall stop and wait for a job: a handler may have ignored the first one."""
        for child in self:
            if child.stopping and self.status(child).state is State.WAITING:
                _kill(child.pid, signal.SIGTERM)

    def kill(self, child: Child) -> None:
        """SIGKILL. The child's descendants are recorded before, so that they can be found and ended after."""
        child.tree = self._orphans.tree(child.pid)
        _kill(child.pid, signal.SIGKILL)

    def statuses(self) -> dict[int, WorkerStatus]:
        """The last words of all children, by pid."""
        return {child.pid: self.status(child) for child in self}

    def kill_hung(self, statuses: Mapping[int, WorkerStatus], now: float, silence: float, max_silence: float) -> None:
        """Kills the children that overran their hard deadline or do not live; see `Health.verdict`."""
        self._out_of_memory.look(now)
        for child in self:
            status = statuses.get(child.pid)
            if status is None or not child.health.verdict(status, now, silence, max_silence):
                continue
            # It may have begun another attempt since: the parent forks meanwhile.
            status = self.status(child)
            reason = child.health.verdict(status, now, silence, max_silence)
            if reason and not child.kill_reason:
                if status.problem:
                    # what blocks its event loop
                    reason = f"{reason}: {status.problem}"
                log.error("child killed: %s %s", reason, fields(pid=child.pid, **_attempt_fields(status)))
                child.kill_reason = reason
                self.kill(child)

    def reap(self) -> Iterator[tuple[Child, int]]:
        """The children that have ended, with their exit codes (as os.waitstatus_to_exitcode has them)."""
        if not (self._by_pid and os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)):
            return
        for pid in list(self._by_pid):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                child = self._by_pid.pop(pid)
                for slot in (child.slot, *child.slot.lanes):
                    self._throttle.clear(slot.index)
                yield child, os.waitstatus_to_exitcode(status)
                # Not before the caller has recorded the death: as long as the slot names the job, its next consumer
                # waits for that record.
                child.slot.clear()

    def reap_orphans(self) -> None:
        """Reaps the orphans that the parent has adopted."""
        if not self._templates.asked():
            # else one of them may be a child that we do not know yet
            self._orphans.reap(self._pids())

    def record_end(self, child: Child, code: int) -> None:
        """Ends what the handler of a dead child had started; records the death, unless it was an orderly stop."""
        status = self.status(child)
        working = status.state is State.WORKING
        if working:
            self._orphans.end(child.pid, child.slot.index, status.begun, child.tree, self._pids())
        # A child that is asked to stop before it has its own signal handlers dies by the default ones.
        in_order = code == 0 or (child.stopping and code in (-signal.SIGTERM, -signal.SIGQUIT))
        if in_order and not working:
            self._short_lives = 0
            return
        now = time.monotonic()
        self._record_death(child, code, status, now)
        if now - child.born < SHORT_LIFE and not status.worked:
            self._back_off(now)
        else:
            self._short_lives = 0

    def _record_death(self, child: Child, code: int, status: WorkerStatus, now: float) -> None:
        how = how_it_ended(code)
        killed = self._out_of_memory.why() if code == -signal.SIGKILL else ""
        known: dict[str, object] = {"pid": child.pid, "how": how, "worked": status.worked}
        robbed = status.problem if code == EX_ROBBED else ""
        if why := child.kill_reason or robbed or killed:
            known["why"] = why
        attempts = self._scoreboard.attempts(child.slot.index)
        # nobody knows which one of several was its end
        beside = f"{len(attempts) - 1} other attempts ran in its process" if len(attempts) > 1 else ""
        for lost in attempts:
            self._scoreboard.counters.count(LOST)
            words = "; ".join(filter(None, (why, beside)))
            self._scoreboard.crashes.add(lost.job, lost.delivery, how, words, now - lost.started)
        self._scoreboard.died(child.slot.index)
        log.error("child died %s", fields(**known, **_attempt_fields(status)))

    def _fork(self, slot: Slot, generation: int, load: Load) -> None:
        slot.reset()
        try:
            pid = fork(lambda: work_alone(load, slot, self._throttle))
        except OSError as error:
            slot.clear()
            log.error("cannot fork %s", fields(error=error))
            self._back_off(time.monotonic())
            return
        self._add(pid, slot, generation)

    def _add(self, pid: int, slot: Slot, generation: int) -> None:
        child = Child(pid, slot, time.monotonic(), generation, Health(pid))
        self._by_pid[pid] = child
        if self._stop_signal:
            child.stopping = True
            _kill(pid, self._stop_signal)

    def _pids(self) -> set[int]:
        return {*self._by_pid, *(other.pid for other in (*self._templates, *self._beside))}

    def _back_off(self, now: float) -> None:
        # those that die together count once
        if now < self._fork_after:
            return
        self._fork_after = now + backoff.ceiling(self._short_lives, RESPAWN, RESPAWN_CAP)
        self._short_lives += 1


def _attempt_fields(status: WorkerStatus) -> dict[str, object]:
    """The attempt that runs, for the log; empty if none runs."""
    if status.state is not State.WORKING:
        return {}
    if status.running > 1:
        return {"attempts": status.running}
    return {"job": status.job, "delivery": status.delivery, "attempt": status.attempt}


def _kill(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
