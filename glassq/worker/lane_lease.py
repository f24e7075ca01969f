"""The lease of one lane: as lease.py's, but no signal can interrupt the lane's thread, and the leases of all lanes of a
child have one keeper (lanes.py).

Who waits in a lane says how it is stopped (`stoppable`), or asks from time to time whether it must end (`pending`).
"""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager, nullcontext
from contextvars import copy_context
from typing import TYPE_CHECKING

from glassq import descriptors
from glassq.errors import DeadlineExceeded, Interrupted, JobNotFound, LeaseLost, QueueError
from glassq.log import fields, logger
from glassq.worker.processes import seconds_since_boot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from glassq.delivery import Delivery
    from glassq.errors import Interrupt
    from glassq.queues import Receiver
    from glassq.queues.base import Reservation
    from glassq.worker.slots import Slot

log = logger("glassq.worker")


class LaneLease:
    """The lease on one job at a time, for the consumer of one lane."""

    def __init__(self, receiver: Receiver, ttr: float, slot: Slot, changed: Callable[[int], None]) -> None:
        """A lease of `ttr` seconds is extended every third of that. `changed(1)`: the lane is busy; -1: no longer."""
        self._receiver = receiver
        self._ttr = self._extend_every = ttr
        self._slot = slot
        self._changed = changed
        # held while the keeper uses the connection
        self._extending = threading.Lock()
        # guards what the fields below say of an attempt
        self._stopping = threading.Lock()
        self._reservation: Reservation | None = None
        self._extended = 0.0
        self._deadline = float("inf")
        self._interrupt: type[Interrupt] | None = None
        self._stop: Callable[[], None] | None = None
        self._context = copy_context()
        #: since when the lane has had no attempt
        self.idle_since = time.monotonic()

    # -- for the lane's own thread ------------------------------------------------------------------------------------

    def start(self, reservation: Reservation, delivery: Delivery, *, deadline: float, hard: float) -> None:
        """See `Lease.start`."""
        self._slot.begin(reservation.ref, delivery.id, delivery.attempt, hard, seconds_since_boot(), reservation.handle)
        with self._stopping:
            self._extend_every = min(self._ttr, reservation.lease) / 3
            self._extended, self._deadline, self._interrupt = time.monotonic(), deadline, None
            self._context = copy_context()
            self._reservation = reservation
        self._changed(1)

    def forbid_interrupts(self) -> None:
        """See `Lease.forbid_interrupts`."""
        self._stop = None

    def check_descriptors(self) -> None:
        """See `Lease.check_descriptors`. Not those of other lanes: the child itself looks at all, often."""
        descriptors.check(threading.get_ident())

    def end_leftovers(self, _error: BaseException) -> None:
        """Does nothing: nobody knows which of the lanes has started a process."""

    def end(self) -> None:
        """Ends the lease: it is not extended any more. Waits for an extension that is under way."""
        with self._extending, self._stopping:
            had, self._reservation = self._reservation, None
        self.idle_since = time.monotonic()
        if had is not None:
            self._changed(-1)

    def pending(self) -> type[Interrupt] | None:
        """Why the attempt must end now; None: it need not."""
        return self._interrupt

    def shielded(self) -> AbstractContextManager[None]:
        """Nothing interrupts a lane in any case."""
        return nullcontext()

    @contextmanager
    def stoppable(self, stop: Callable[[], None]) -> Iterator[None]:
        """See `Context.stoppable`."""
        with self._stopping:
            before, self._stop = self._stop, stop
            due = self._interrupt
        try:
            if due is not None:
                stop()
            yield
        finally:
            with self._stopping:
                self._stop, due = before, self._interrupt
            if due is not None:
                # in place of whatever the block raises
                raise due from None

    # -- for the child's other threads --------------------------------------------------------------------------------

    def check(self, now: float, *, cold: bool) -> None:
        """Stops the attempt if its deadline has passed, or if the pool stops cold. Never blocks."""
        if self._reservation is not None and (cold or now >= self._deadline):
            self._stop_for(Interrupted if cold else DeadlineExceeded)

    def extend(self, now: float) -> None:
        """Extends the lease if it is time; stops the attempt if it is lost. Blocks as long as the queue does."""
        due = now - self._extended >= self._extend_every
        if self._reservation is not None and (due or self._receiver.unproven):
            with self._extending:
                self._extend(now, due=due)

    def _extend(self, now: float, *, due: bool) -> None:
        reservation = self._reservation
        if reservation is None:
            return
        try:
            self._receiver.tend()
            if not due:
                return
            self._extended = now
            self._extend_every = min(self._ttr, self._receiver.extend(reservation)) / 3
        except JobNotFound:
            self._lose(reservation, "lease lost %s")
        except QueueError as error:
            self._lose(reservation, "lease lost with the connection %s", error=error)

    def _lose(self, reservation: Reservation, event: str, **known: object) -> None:
        self._context.run(log.warning, event, fields(job=reservation.ref, **known))
        self._stop_for(LeaseLost)

    def _stop_for(self, interrupt: type[Interrupt]) -> None:
        with self._stopping:
            if self._reservation is None or self._interrupt is not None:
                return
            self._interrupt, stop = interrupt, self._stop
            if stop is not None:
                # under the lock, so that it never reaches what the lane does next
                stop()
