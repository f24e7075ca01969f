"""The keeper thread: renews the lease and interrupts the handler.

The keeper is a thread that touches the job, beats the heartbeat, and ends the attempt when its soft deadline passes,
its lease is gone, or the pool stops cold. It ends it by a signal to the main thread, whose handler raises there: so
what waits in a system call is woken too. The exception can only be raised between `take` and `disarm`, and no queue
command runs in the main thread then: an exception in the middle of one would leave the connection out of step.
"""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from contextvars import copy_context
from typing import TYPE_CHECKING

from glassq.errors import DeadlineExceeded, Interrupt, Interrupted, JobNotFound, LeaseLost, QueueError
from glassq.log import fields, logger

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from glassq.queues import Queue
    from glassq.worker.scoreboard import Slot

log = logger("glassq.worker")

# The modules through which a handler is called, beside the worker's own.
_CALLERS = frozenset({"glassq.routes", "glassq.handler"})
# How often the keeper looks at everything, in seconds. It bounds how late a deadline or a stop is noticed.
BEAT = 0.25


class Lease:
    """The hold on one job at a time, for one consumer.

    Works without its keeper thread too (`start` not called): then nothing is touched and nothing interrupts.
    """

    def __init__(self, queue: Queue, ttr: float, slot: Slot) -> None:
        """A job is touched every third of `ttr` seconds: two touches may fail before a lease of that length ends."""
        self._queue = queue
        self._ttr = ttr
        self._touch_every = ttr / 3
        self._slot = slot
        self._lock = threading.Lock()
        self._job = 0
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

    def start(self, cold: Callable[[], bool], orphaned: Callable[[], None]) -> None:
        """Starts the keeper. `cold()` tells whether to stop at once; `orphaned` is called when the parent is gone."""
        signal.signal(signal.SIGALRM, self._raise)
        self._thread = threading.Thread(target=self._keep, args=(cold, orphaned), name="keeper", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends the keeper."""
        self._over.set()
        if self._thread is not None:
            self._thread.join(5.0)

    def take(self, job_id: int, deadline: float, ttr: float = math.inf) -> None:
        """From now on the job is kept ours and the attempt may be interrupted.

        `deadline` is monotonic. `ttr` is the job's own lease in seconds: it may be shorter than that of new jobs.
        """
        with self._lock:
            self._touch_every = min(self._ttr, ttr) / 3
            self.interrupted = False
            self._job, self._touched, self._deadline, self._interrupt = job_id, time.monotonic(), deadline, None
            # the keeper's lines are about the same delivery as the main thread's
            self._context = copy_context()
        if self._thread is not None:
            # the handler before may have taken the signal for itself, or blocked it
            signal.signal(signal.SIGALRM, self._raise)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
        self._armed = True

    def disarm(self) -> None:
        """The handler is over: nothing interrupts any more."""
        self._armed = False

    def give_up(self) -> None:
        """The job is no longer kept ours; waits for a touch that is under way."""
        self._armed = False
        with self._lock:
            self._job = 0

    def _keep(self, cold: Callable[[], bool], orphaned: Callable[[], None]) -> None:
        while not self._over.wait(BEAT):
            self._slot.beat()
            # not who our parent was when the keeper started: it may have died while the handlers were loaded
            if os.getppid() != self._slot.parent:
                orphaned()
            with self._lock:
                interrupt = self._look(cold()) if self._job else None
                if interrupt is not None and self._interrupt is None:
                    self._interrupt = interrupt
            if self._interrupt is not None and self._armed and self._main is not None:
                signal.pthread_kill(self._main, signal.SIGALRM)

    def _look(self, cold: bool) -> type[Interrupt] | None:
        now = time.monotonic()
        if cold:
            return Interrupted
        if now >= self._deadline:
            return DeadlineExceeded
        if now - self._touched < self._touch_every:
            return None
        self._touched = now
        try:
            self._queue.touch(self._job)
        except JobNotFound:
            self._context.run(log.warning, "lease lost %s", fields(job=self._job))
            return LeaseLost
        except QueueError as error:
            self._context.run(log.warning, "lease lost with the connection %s", fields(job=self._job, error=error))
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
