"""Tells a busy child from a frozen one.

The heartbeat alone is not enough: a handler that holds the interpreter lock (GIL), as a sort, a regular expression or
JSON does, keeps the thread that beats from running. The kernel knows whether a process is stopped, and how much CPU
time it uses.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from glassq.log import fields, logger
from glassq.worker import processes
from glassq.worker.layout import State
from glassq.worker.lease import IDLE_BEAT

if TYPE_CHECKING:
    from glassq.worker.layout import WorkerStatus
    from glassq.worker.processes import Process

log = logger("glassq.worker")

# A child is examined if its last heartbeat is older than this, in seconds: in an attempt, with its four heartbeats a
# second, and outside of it (lease.IDLE_BEAT).
RECENT, IDLE_RECENT = 4.0, IDLE_BEAT + 0.5
# A starting child has no heartbeat yet. It may take this long to load the modules of its handlers, in seconds.
STARTUP_TIMEOUT = 60.0
# A process that uses at least this share of one CPU is busy. A thread that waits for the interpreter lock polls it, and
# uses about 0.005.
BUSY_SHARE = 0.05
# The share is measured over this time, in seconds.
CPU_WINDOW = 1.0

OVERRUN = "it overran its hard deadline"
SILENT = "it is silent"
STOPPED = "it is silent: a signal has stopped it"


@dataclass(slots=True)
class Health:
    """The health of one child, as its parent sees it. Times are time.monotonic(); 0.0 is never."""

    pid: int
    #: outside of an attempt the child is examined if its last heartbeat is older than this
    idle_recent: float = IDLE_RECENT
    #: since when the process has been stopped by a signal
    _stopped: float = 0.0
    #: when the CPU time was last sampled, and what it was then
    _sampled: float = 0.0
    _cpu: float = 0.0
    #: whether its CPU time was measured since its last heartbeat, as far as that can be
    _measured: bool = False
    #: when the process was last busy, and the CPU time it has used since its last heartbeat
    _busy: float = 0.0
    _used: float = 0.0
    #: the start of the attempt that has been logged as silent
    _logged: float = 0.0

    def verdict(self, status: WorkerStatus, now: float, silence: float, max_silence: float) -> str:
        """Why the child must be killed; "" if it may live.

        In an attempt, a child may be silent until its hard deadline, unless a signal has stopped it for `silence`
        seconds. Outside of an attempt it may be silent for `silence` seconds, or for `max_silence` while it is busy.
        """
        if status.deadline and now > status.deadline:
            return OVERRUN
        silent_for = now - status.beat
        if silent_for <= (RECENT if status.deadline else self.idle_recent):
            self._stopped = self._sampled = self._used = 0.0
            self._measured = False
            return ""
        self._sample(processes.stat(self.pid), status, now)
        if self._stopped and now - self._stopped > silence:
            return STOPPED
        if status.deadline:
            if silent_for > silence and self._logged != status.started:
                self._logged = status.started
                self._log_silence(status, now)
            return ""
        if not self._measured:
            return ""
        limit = max(STARTUP_TIMEOUT, silence) if status.state is State.STARTING else silence
        alive = max(status.beat, self._busy)
        return SILENT if now - alive > limit or silent_for > max(max_silence, limit) else ""

    def _sample(self, process: Process | None, status: WorkerStatus, now: float) -> None:
        if process is None:
            self._measured = True
            return
        first = not self._sampled
        if not process.stopped:
            self._stopped = 0.0
        elif not self._stopped:
            # Found stopped at the first sample, it has probably been stopped since its last heartbeat.
            self._stopped = status.beat if first else now
        if first:
            self._sampled, self._cpu = now, process.cpu
        elif now - self._sampled >= CPU_WINDOW:
            used = process.cpu - self._cpu
            if used >= BUSY_SHARE * (now - self._sampled):
                self._busy = now
            self._sampled, self._cpu, self._used = now, process.cpu, self._used + used
            self._measured = True

    def _log_silence(self, status: WorkerStatus, now: float) -> None:
        attempt = {"delivery": status.delivery, "attempt": status.attempt, "job": status.job, "pid": self.pid}
        times = {"silent": now - status.beat, "cpu": self._used, "deadline_in": status.deadline - now}
        event = "handler holds the interpreter lock: no heartbeat comes, and it may go on until the hard deadline %s"
        log.warning(event, fields(**attempt, **times))
