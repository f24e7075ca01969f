"""The lease on a job, and the keeper thread, which extends the lease and interrupts the handler.

The keeper extends the lease and beats the heartbeat. It interrupts the attempt when the soft deadline passes, the lease
is lost, or the pool stops cold: it sends a signal to the main thread, and the signal's handler raises there. This also
wakes a system call that waits. The exception can only be raised between `start` and `forbid_interrupts`. No queue
command runs in the main thread then, because an exception in the middle of one would desynchronise the connection.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # typeshed has only `signal`
import os
import signal
import threading
import time
from contextlib import contextmanager
from contextvars import copy_context
from functools import wraps
from typing import TYPE_CHECKING, ParamSpec

from glassq import descriptors
from glassq.errors import DeadlineExceeded, Interrupt, Interrupted, JobNotFound, LeaseLost, QueueError
from glassq.log import fields, logger
from glassq.worker import leftovers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    from glassq.delivery import Delivery
    from glassq.event_loop import EventLoop
    from glassq.queues import Receiver
    from glassq.queues.base import Reservation
    from glassq.worker.slots import Slot

log = logger("glassq.worker")

P = ParamSpec("P")

# The modules that call handlers, beside the worker's own.
_CALLERS = frozenset({"glassq.event_loop", "glassq.handler", "glassq.routes"})
# The keeper's interval, in seconds. A deadline or a stop is noticed at most this late.
BEAT = 0.25
# Its interval while nothing runs, and after how many beats without an attempt: hundreds of children wait for jobs. The
# start of an attempt, a stop and the parent's death do not wait for it.
IDLE_BEAT, IDLE_AFTER = 8.0, 8
# How long an end of the keeper may take, in seconds.
KEEPER_TIMEOUT = 5.0
# Not the functions of `signal` around these, which make enums of their results: that takes longer than all else that an
# attempt's start does.
_set_handler, _set_mask = _signal.signal, _signal.pthread_sigmask
_ALARM = (signal.SIGALRM,)
# How a process ends whose keeper has failed.
_EX_NO_KEEPER = 1


def ends_its_process(keeper: Callable[P, None]) -> Callable[P, None]:
    """Ends the process with whatever this keeper raises: without one no lease is extended, and no deadline holds.

    The parent records the attempts as lost, and starts another child.
    """

    @wraps(keeper)
    def keep(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            keeper(*args, **kwargs)
        except BaseException:
            log.exception("keeper failed, its process ends")
            os._exit(_EX_NO_KEEPER)

    return keep


class Lease:
    """The lease on one job at a time, for one consumer.

    Works without its keeper thread too (`start_keeper` not called): then it extends and interrupts nothing.
    """

    def __init__(self, receiver: Receiver, ttr: float, slot: Slot, loop: EventLoop | None = None) -> None:
        """A lease of `ttr` seconds is extended every third of that: two extensions may fail before it ends.

        `loop` is where handlers run that are coroutines (None: nobody watches it).
        """
        self._loop = loop
        self._receiver = receiver
        self._ttr = ttr
        self._extend_every = ttr / 3
        self._slot = slot
        self._lock = threading.Lock()
        self._reservation: Reservation | None = None
        self._begun = 0.0
        self._extended = 0.0
        self._deadline = float("inf")
        self._armed = False
        self._interrupt: type[Interrupt] | None = None
        #: whether the attempt was interrupted
        self.interrupted = False
        self._context = copy_context()
        self._main = threading.main_thread().ident
        self._stopped = self._blocked = False
        # ends the keeper's pause; whether that is a long one; and whether an attempt has begun since its last beat
        self._wake = threading.Event()
        self._dozes = self._begun_since = False
        self._thread: threading.Thread | None = None

    def start_keeper(self, cold: Callable[[], bool], orphaned: Callable[[], None]) -> None:
        """Starts the keeper. `cold()` says whether to stop at once; `orphaned` is called when the parent is gone."""
        signal.signal(signal.SIGALRM, self._raise)
        self._thread = threading.Thread(target=self._run_keeper, args=(cold, orphaned), name="keeper", daemon=True)
        self._thread.start()

    def stop_keeper(self) -> None:
        """Ends the keeper."""
        self._stopped = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(KEEPER_TIMEOUT)

    def start(self, reservation: Reservation, delivery: Delivery, *, deadline: float, hard: float) -> None:
        """From now on the keeper extends the lease and may interrupt the attempt.

        At `deadline` it interrupts the attempt, at `hard` the parent kills the process; both are time.monotonic().
        """
        self._begun = leftovers.beginning()
        self._slot.begin(reservation.ref, delivery.id, delivery.attempt, hard, self._begun, reservation.handle)
        with self._lock:
            # an older job may have a shorter lease than new ones; the first extension tells
            self._extend_every = min(self._ttr, reservation.lease) / 3
            self.interrupted = False
            self._extended, self._deadline, self._interrupt = time.monotonic(), deadline, None
            self._reservation = reservation
            # The keeper's log lines name the same delivery as the main thread's.
            self._context = copy_context()
        if self._thread is not None:
            # An earlier handler may have replaced the signal's handler, or blocked the signal.
            _set_handler(signal.SIGALRM, self._raise)
            _set_mask(signal.SIG_UNBLOCK, _ALARM)
        self._armed = self._begun_since = True
        if self._dozes:
            self._wake.set()

    def forbid_interrupts(self) -> None:
        """The handler has ended: no interrupt from now on."""
        self._armed = False

    def check_descriptors(self) -> None:
        """Ends the process if the handler has closed descriptors that are ours."""
        descriptors.check()

    def end(self) -> None:
        """Ends the lease: it is not extended any more. Waits for an extension that is under way."""
        self._armed = False
        with self._lock:
            self._reservation = None

    def pending(self) -> type[Interrupt] | None:
        """Why the attempt has to end now, if it has to; for a handler that is `shielded`."""
        return self._interrupt

    @contextmanager
    def shielded(self) -> Iterator[None]:
        """Meanwhile no signal interrupts the attempt: the handler asks `pending` itself, and raises what that says."""
        armed, self._armed = self._armed, False
        yield
        # not after an exception: it has ended the attempt
        self._armed = armed

    def end_leftovers(self, error: BaseException) -> None:
        """Ends the processes that the handler started, if it was interrupted. `error` is what ended it."""
        if self.interrupted or issubclass(type(error), Interrupt):
            leftovers.end_own(self._slot.parent, self._slot.index, self._begun)

    @ends_its_process
    def _run_keeper(self, cold: Callable[[], bool], orphaned: Callable[[], None]) -> None:
        idle = 0
        while not self._stopped:
            idle = self._pause(idle)
            self._slot.beat()
            descriptors.check()
            self._watch_loop()
            # not the parent at the keeper's start: it may have died while the handlers were loaded
            if os.getppid() != self._slot.parent:
                orphaned()
            with self._lock:
                interrupt = self._check(self._reservation, cold()) if self._reservation else None
                if interrupt is not None and self._interrupt is None:
                    self._interrupt = interrupt
            if self._interrupt is not None and self._armed and self._main is not None:
                signal.pthread_kill(self._main, signal.SIGALRM)

    def _watch_loop(self) -> None:
        """Publishes what blocks the event loop, for the evidence of a kill at the hard deadline."""
        found = self._loop and self._loop.blocked(time.monotonic())
        if found is not None or self._blocked:
            self._blocked = found is not None
            self._slot.problem(str(found or ""))

    def _pause(self, idle: int) -> int:
        """Waits for the next beat, after `idle` of them without an attempt; returns their number now."""
        # It is set before the look for an attempt: one that starts in between finds it set.
        self._dozes = idle >= IDLE_AFTER
        # the attempt may be over already: most are shorter than a beat
        if self._reservation is not None or self._begun_since:
            idle, self._dozes, self._begun_since = 0, False, False
        if self._wake.wait(IDLE_BEAT if self._dozes else BEAT):
            self._wake.clear()
        self._dozes = False
        return idle + 1

    def _check(self, reservation: Reservation, cold: bool) -> type[Interrupt] | None:
        """Tends the receiver, and extends the lease if it is time. Returns the reason to interrupt the attempt."""
        now = time.monotonic()
        interrupt: type[Interrupt] | None = None
        if cold:
            interrupt = Interrupted
        elif now >= self._deadline:
            interrupt = DeadlineExceeded
        try:
            self._receiver.tend()
            if interrupt is None and now - self._extended >= self._extend_every:
                self._extended = now
                self._extend_every = min(self._ttr, self._receiver.extend(reservation)) / 3
        except JobNotFound:
            return interrupt or self._lost("lease lost %s", reservation)
        except QueueError as error:
            return interrupt or self._lost("lease lost with the connection %s", reservation, error=error)
        return interrupt

    def _lost(self, event: str, reservation: Reservation, **known: object) -> type[Interrupt]:
        if self._interrupt is None:
            self._context.run(log.warning, event, fields(job=reservation.ref, **known))
        return LeaseLost

    def _raise(self, _signal: int, frame: FrameType | None) -> None:
        # Raise in the handler only: one that has returned has done its work. If it still runs, the keeper sends the
        # signal again.
        if self._armed and self._interrupt is not None and not _is_ours(frame):
            self._armed, self.interrupted = False, True
            raise self._interrupt


def _is_ours(frame: FrameType | None) -> bool:
    """Whether the frame is of the code that calls handlers, not of a handler."""
    name = frame.f_globals.get("__name__", "") if frame is not None else ""
    return name in _CALLERS or name.startswith("glassq.worker.")
