"""The keeper thread: renews the lease and interrupts the handler.

The keeper is a thread that touches the job, beats the heartbeat, and ends the attempt when its soft deadline passes,
its lease is gone, or the pool stops cold. It ends it by a signal to the main thread, whose handler raises there: so
what waits in a system call is woken too. The exception can only be raised between `start` and `forbid_interrupts`. No
queue command runs in the main thread then: an exception in the middle of one would leave the connection out of step.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from contextvars import copy_context
from typing import TYPE_CHECKING

from glassq.errors import DeadlineExceeded, Interrupt, Interrupted, JobNotFound, LeaseLost, QueueError
from glassq.log import fields, logger
from glassq.worker import leftovers
from glassq.worker.processes import seconds_since_boot

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from glassq.delivery import Delivery
    from glassq.queues import Receiver
    from glassq.queues.base import Reservation
    from glassq.worker.scoreboard import Slot

log = logger("glassq.worker")

# The modules through which a handler is called, beside the worker's own.
_CALLERS = frozenset({"glassq.routes", "glassq.handler"})
# How often the keeper looks at everything, in seconds. It bounds how late a deadline or a stop is noticed.
BEAT = 0.25


class Lease:
    """The hold on one job at a time, for one consumer.

    Works without its keeper thread too (`start_keeper` not called): then nothing is touched and nothing interrupts.
    """

    def __init__(self, receiver: Receiver, ttr: float, slot: Slot) -> None:
        """A lease is extended every third of `ttr` seconds: two of these may fail before one of that length ends."""
        self._receiver = receiver
        self._ttr = ttr
        self._touch_every = ttr / 3
        self._slot = slot
        self._lock = threading.Lock()
        self._reservation: Reservation | None = None
        self._begun = 0.0
        self._touched = 0.0
        self._deadline = float("inf")
        self._armed = False
        self._interrupt: type[Interrupt] | None = None
        #: whether the attempt was interrupted
        self.interrupted = False
        self._context = copy_context()
        self._main = threading.main_thread().ident
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def start_keeper(self, cold: Callable[[], bool], orphaned: Callable[[], None]) -> None:
        """Starts the keeper. `cold()` tells whether to stop at once; `orphaned` is called when the parent is gone."""
        signal.signal(signal.SIGALRM, self._raise)
        self._thread = threading.Thread(target=self._keep, args=(cold, orphaned), name="keeper", daemon=True)
        self._thread.start()

    def stop_keeper(self) -> None:
        """Ends the keeper."""
        self._over.set()
        if self._thread is not None:
            self._thread.join(5.0)

    def start(self, reservation: Reservation, delivery: Delivery, *, deadline: float, hard: float) -> None:
        """From now on the lease is extended, and the attempt may be interrupted.

        At `deadline` the attempt is interrupted, at `hard` the parent ends its process; both are monotonic. The job's
        own lease may be shorter than that of new jobs.
        """
        self._begun = seconds_since_boot()
        self._slot.begin(reservation.ref, delivery.id, delivery.attempt, hard, self._begun)
        with self._lock:
            self._touch_every = min(self._ttr, reservation.lease) / 3
            self.interrupted = False
            self._touched, self._deadline, self._interrupt = time.monotonic(), deadline, None
            self._reservation = reservation
            # The keeper's lines are about the same delivery as the main thread's.
            self._context = copy_context()
        if self._thread is not None:
            # An earlier handler may have taken the signal for itself, or blocked it.
            signal.signal(signal.SIGALRM, self._raise)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
        self._armed = True

    def forbid_interrupts(self) -> None:
        """The handler is over: nothing interrupts it any more."""
        self._armed = False

    def end(self) -> None:
        """The lease is extended no more; waits for an extension that is under way."""
        self._armed = False
        with self._lock:
            self._reservation = None

    def end_leftovers(self) -> None:
        """Ends the processes that an interrupted handler has started."""
        if self.interrupted:
            leftovers.end_own(self._slot.parent, self._slot.index, self._begun)

    def _keep(self, cold: Callable[[], bool], orphaned: Callable[[], None]) -> None:
        while not self._over.wait(BEAT):
            self._slot.beat()
            # not who our parent was when the keeper started: it may have died while the handlers were loaded
            if os.getppid() != self._slot.parent:
                orphaned()
            with self._lock:
                interrupt = self._look(self._reservation, cold()) if self._reservation else None
                if interrupt is not None and self._interrupt is None:
                    self._interrupt = interrupt
            if self._interrupt is not None and self._armed and self._main is not None:
                signal.pthread_kill(self._main, signal.SIGALRM)

    def _look(self, reservation: Reservation, cold: bool) -> type[Interrupt] | None:
        now = time.monotonic()
        if cold:
            return Interrupted
        if now >= self._deadline:
            return DeadlineExceeded
        if now - self._touched < self._touch_every:
            return None
        self._touched = now
        try:
            self._receiver.extend(reservation)
        except JobNotFound:
            self._context.run(log.warning, "lease lost %s", fields(job=reservation.ref))
            return LeaseLost
        except QueueError as error:
            self._context.run(
                log.warning, "lease lost with the connection %s", fields(job=reservation.ref, error=error)
            )
            return LeaseLost
        return None

    def _raise(self, _signal: int, frame: FrameType | None) -> None:
        # Outside of the handler nothing is raised: a handler that has returned has done its work. Should it still run,
        # the keeper sends the signal again.
        if self._armed and self._interrupt is not None and not _is_ours(frame):
            self._armed, self.interrupted = False, True
            raise self._interrupt


def _is_ours(frame: FrameType | None) -> bool:
    """Whether the frame belongs to the code that calls handlers."""
    name = frame.f_globals.get("__name__", "") if frame is not None else ""
    return name in _CALLERS or name.startswith("glassq.worker.")
