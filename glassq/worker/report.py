"""Reports the pool's state to systemd and the log."""

from __future__ import annotations

from typing import TYPE_CHECKING

from glassq.log import fields, logger
from glassq.mask import masked_line
from glassq.worker.scoreboard import State

if TYPE_CHECKING:
    from collections.abc import Sequence

    from glassq.systemd import Notifier
    from glassq.worker.scoreboard import WorkerStatus

log = logger("glassq.worker")

# A start waits so long for the queue once all children are up, in seconds. Then it is over, and the children wait on.
CONNECT = 10.0
# An unreachable queue is logged at most this often, in seconds.
REPEAT = 60.0
# How much more time systemd is asked for at a time, in seconds: while the pool starts, and while it stops.
STARTING, STOPPING = 30, 10


class Report:
    """Called at each tick with what the children say. `now` is time.monotonic()."""

    def __init__(self, notify: Notifier, queue: str, *, watchdog: float | None) -> None:
        """`queue` is its address, for people. `watchdog` is systemd's WatchdogSec, in seconds."""
        self._notify = notify
        self.queue = queue
        self._ping_every = watchdog / 2 if watchdog else None
        self._pinged = 0.0
        self._said = ""
        #: since when all children have been up; 0.0: not yet
        self._up = 0.0
        self.ready = False
        #: since when the queue is in trouble (0.0: it is not), and when the log was last told of any trouble
        self._trouble = 0.0
        self._told: float | None = None

    def tick(self, cards: Sequence[WorkerStatus], now: float, *, target: int, well: bool) -> None:
        """`target` is how many children there shall be; `well` is false while one is to be killed."""
        self._watch_queue(cards, now)
        if not self.ready:
            self._start(cards, now, target)
        if not self.ready:
            return
        self._say(self._state(cards, now))
        if self._ping_every and now - self._pinged > self._ping_every and cards and well:
            self._pinged = now
            self._notify(WATCHDOG=1)

    def draining(self, cards: Sequence[WorkerStatus]) -> None:
        """The pool stops, and its children finish what they are at."""
        status = f"draining: {_count(cards, State.WORKING)} of {len(cards)} still work"
        self._notify(EXTEND_TIMEOUT_USEC=STOPPING * 1_000_000, STATUS=status)

    def stopping(self) -> None:
        """The pool begins to stop."""
        self._notify(STOPPING=1, STATUS="stopping")

    def failed(self, why: str) -> None:
        """The start fails; what `systemctl status` shows from then on."""
        self._notify(STATUS=masked_line(why))

    def _start(self, cards: Sequence[WorkerStatus], now: float, target: int) -> None:
        reserving = _count(cards, State.WAITING, State.WORKING)
        status = f"starting: {reserving} of {target} reserve"
        self._notify(EXTEND_TIMEOUT_USEC=STARTING * 1_000_000, STATUS=status + self._waits(now))
        if reserving + _count(cards, State.CONNECTING) < target:
            self._up = 0.0
            return
        self._up = self._up or now
        if reserving >= target or now - self._up > CONNECT:
            self.ready = True
            log.info("pool is ready %s", fields(children=reserving))
            self._said = self._state(cards, now)
            self._notify(READY=1, STATUS=self._said)

    def _state(self, cards: Sequence[WorkerStatus], now: float) -> str:
        return f"{len(cards)} children, {_count(cards, State.WORKING)} at work" + self._waits(now)

    def _waits(self, now: float) -> str:
        if not self._trouble:
            return ""
        return f"; for {now - self._trouble:.0f} s the queue {self.queue} cannot be reached"

    def _say(self, status: str) -> None:
        if status != self._said:
            self._said = status
            self._notify(STATUS=status)

    def _watch_queue(self, cards: Sequence[WorkerStatus], now: float) -> None:
        """One line while the queue cannot be reached, now and then; and one when it is back."""
        troubled = [card for card in cards if card.state is State.CONNECTING and card.problem]
        if not troubled:
            if self._trouble and self._told is not None and self._told >= self._trouble:
                log.info("queue is back %s", fields(queue=self.queue, seconds=now - self._trouble))
            self._trouble = 0.0
            return
        self._trouble = self._trouble or now
        if self._told is None or now - self._told >= REPEAT:
            self._told = now
            children = f"{len(troubled)} of {len(cards)}"
            said = {"queue": self.queue, "error": troubled[0].problem, "children": children}
            log.warning("queue trouble, trying again %s", fields(**said, seconds=now - self._trouble))


def _count(cards: Sequence[WorkerStatus], *states: State) -> int:
    return sum(card.state in states for card in cards)
