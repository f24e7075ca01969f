"""Tells a child that is busy from one that is frozen.

A heartbeat alone does not tell: a handler that holds the interpreter lock (a sort, a regular expression, JSON, an
image) keeps the thread that beats from running. The kernel knows more: whether a process is stopped, and the CPU time
it uses.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from glassq.log import fields, logger
from glassq.worker import processes
from glassq.worker.scoreboard import State

if TYPE_CHECKING:
    from glassq.worker.processes import Process
    from glassq.worker.scoreboard import WorkerStatus

log = logger("glassq.worker")

# A child whose last heartbeat is older than this is looked at more closely, in seconds. There are four a second.
QUIET = 1.0
# A child that starts has no heartbeat yet; the modules of its handlers may take so long to load, in seconds.
STARTUP = 60.0
# From this share of one CPU on a process is at work. Threads that wait for the interpreter lock look for it often, and
# take about 0.005 each.
WORKING = 0.05
# Over how long that share is taken, in seconds.
WINDOW = 1.0

OVERRUN = "it overran its hard deadline"
SILENT = "it is silent"
STOPPED = "it is silent: a signal has stopped it"


@dataclass(slots=True)
class Health:
    """One child's, as its parent sees it. Times are time.monotonic(), and 0.0 for never."""

    pid: int
    #: since when it is seen stopped
    _stopped: float = 0.0
    #: when its CPU time was last looked at, and what it was then
    _looked: float = 0.0
    _cpu: float = 0.0
    #: when it was last seen to use the CPU, and how much it has used since its last heartbeat
    _active: float = 0.0
    _used: float = 0.0
    #: the start of the attempt that the log has been told of
    _told: float = 0.0

    def verdict(self, card: WorkerStatus, now: float, silence: float, longest: float) -> str:
        """Why the child must be killed; "" where it may live.

        In an attempt it may be silent until its hard deadline, unless it has been stopped for `silence` seconds.
        Otherwise it may be silent for that long, or for `longest` seconds while it uses the CPU.
        """
        if card.deadline and now > card.deadline:
            return OVERRUN
        quiet = now - card.beat
        if quiet <= QUIET:
            self._stopped = self._looked = self._used = 0.0
            return ""
        self._look(processes.look(self.pid), card, now)
        if self._stopped and now - self._stopped > silence:
            return STOPPED
        if card.deadline:
            if quiet > silence and self._told != card.started:
                self._told = card.started
                self._tell(card, now)
            return ""
        patience = max(STARTUP, silence) if card.state is State.STARTING else silence
        alive = max(card.beat, self._active)
        return SILENT if now - alive > patience or quiet > max(longest, patience) else ""

    def _look(self, process: Process | None, card: WorkerStatus, now: float) -> None:
        if process is None:
            return
        first = not self._looked
        if not process.stopped:
            self._stopped = 0.0
        elif not self._stopped:
            # one that is found stopped has been so since its last heartbeat, as far as anybody can tell
            self._stopped = card.beat if first else now
        if first:
            self._looked, self._cpu = now, process.cpu
        elif now - self._looked >= WINDOW:
            used = process.cpu - self._cpu
            if used >= WORKING * (now - self._looked):
                self._active = now
            self._looked, self._cpu, self._used = now, process.cpu, self._used + used

    def _tell(self, card: WorkerStatus, now: float) -> None:
        about = {"delivery": card.delivery, "attempt": card.attempt, "job": card.job, "pid": self.pid}
        figures = {"silent": now - card.beat, "cpu": self._used, "deadline_in": card.deadline - now}
        words = "handler holds the interpreter lock: no heartbeat comes, and it may go on until the hard deadline %s"
        log.warning(words, fields(**about, **figures))
