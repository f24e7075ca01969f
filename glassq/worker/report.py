"""Reports the pool's state to systemd and the log."""

from __future__ import annotations

from typing import TYPE_CHECKING

from glassq.log import fields, logger
from glassq.mask import masked_line
from glassq.worker.layout import State

if TYPE_CHECKING:
    from collections.abc import Sequence

    from glassq.systemd import Notifier
    from glassq.worker.layout import WorkerStatus

log = logger("glassq.worker")

# Once all children are up, a start waits this long for the queue, in seconds. After that the pool counts as started.
CONNECT_TIMEOUT = 10.0
# An unreachable queue is logged at most once in this time, in seconds.
LOG_INTERVAL = 60.0
# How much more time systemd is asked for at each tick, in seconds: while the pool starts, and while it stops.
START_EXTENSION, STOP_EXTENSION = 30, 10


class StatusReporter:
    """Called at each tick with the statuses of all children. `now` is time.monotonic()."""

    def __init__(self, notify: Notifier, queue: str, *, watchdog: float | None) -> None:
        """`queue` is its address, for people. `watchdog` is systemd's WatchdogSec, in seconds."""
        self._notify = notify
        self.queue = queue
        self._ping_every = watchdog / 2 if watchdog else None
        self._pinged = 0.0
        #: the last status text that systemd got
        self._shown = ""
        #: since when all children have been up; 0.0: not yet
        self._up_since = 0.0
        self.ready = False
        #: since when the queue has been unreachable (0.0: it is not), and when the log last said so
        self._trouble_since = 0.0
        self._logged: float | None = None

    def tick(self, statuses: Sequence[WorkerStatus], now: float, *, target: int, well: bool) -> None:
        """`target` is the wanted number of children; `well` is false while one is to be killed, or none is to come."""
        self._watch_queue(statuses, now)
        if not self.ready:
            self._start(statuses, now, target)
        if not self.ready:
            return
        self._show(self._summary(statuses, now))
        if self._ping_every and now - self._pinged > self._ping_every and well:
            self._pinged = now
            self._notify(WATCHDOG=1)

    def draining(self, statuses: Sequence[WorkerStatus]) -> None:
        """The pool stops, and its children finish their attempts."""
        status = f"draining: {_count(statuses, State.WORKING)} of {len(statuses)} still work"
        self._notify(EXTEND_TIMEOUT_USEC=STOP_EXTENSION * 1_000_000, STATUS=status)

    def stopping(self) -> None:
        """The pool begins to stop."""
        self._notify(STOPPING=1, STATUS="stopping")

    def failed(self, why: str) -> None:
        """The start failed; `systemctl status` shows why from now on."""
        self._notify(STATUS=masked_line(why))

    def _start(self, statuses: Sequence[WorkerStatus], now: float, target: int) -> None:
        reserving = _count(statuses, State.WAITING, State.WORKING)
        status = f"starting: {reserving} of {target} reserve"
        self._notify(EXTEND_TIMEOUT_USEC=START_EXTENSION * 1_000_000, STATUS=status + self._trouble(now))
        if reserving + _count(statuses, State.CONNECTING) < target:
            self._up_since = 0.0
            return
        self._up_since = self._up_since or now
        if reserving >= target or now - self._up_since > CONNECT_TIMEOUT:
            self.ready = True
            log.info("pool is ready %s", fields(children=reserving))
            self._shown = self._summary(statuses, now)
            self._notify(READY=1, STATUS=self._shown)

    def _summary(self, statuses: Sequence[WorkerStatus], now: float) -> str:
        running = sum(status.running for status in statuses)
        return f"{len(statuses)} children, {running} at work" + self._trouble(now)

    def _trouble(self, now: float) -> str:
        if not self._trouble_since:
            return ""
        return f"; for {now - self._trouble_since:.0f} s the queue {self.queue} cannot be reached"

    def _show(self, status: str) -> None:
        if status != self._shown:
            self._shown = status
            self._notify(STATUS=status)

    def _watch_queue(self, statuses: Sequence[WorkerStatus], now: float) -> None:
        """Logs now and then that the queue cannot be reached, and once that it is back."""
        troubled = [status for status in statuses if status.state is State.CONNECTING and status.problem]
        if not troubled:
            if self._trouble_since and self._logged is not None and self._logged >= self._trouble_since:
                log.info("queue is back %s", fields(queue=self.queue, seconds=now - self._trouble_since))
            self._trouble_since = 0.0
            return
        self._trouble_since = self._trouble_since or now
        if self._logged is None or now - self._logged >= LOG_INTERVAL:
            self._logged = now
            children = f"{len(troubled)} of {len(statuses)}"
            known = {"queue": self.queue, "error": troubled[0].problem, "children": children}
            log.warning("queue trouble, trying again %s", fields(**known, seconds=now - self._trouble_since))


def _count(statuses: Sequence[WorkerStatus], *states: State) -> int:
    return sum(status.state in states for status in statuses)
