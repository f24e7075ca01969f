"""The loop of one child: reserve a job, run its handler (executor.py), settle the outcome (settlement.py).

At least once, always: after a crash between two steps, the delivery is worked twice rather than not at all.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from msgspec.structs import replace

from glassq import backoff, descriptors, lifecycle
from glassq import delivery as envelope
from glassq.errors import DamagedDelivery, JobNotFound, NoProof, QueueError, QueueRefused
from glassq.log import bind_context, fields, logger
from glassq.worker import outcome as outcomes
from glassq.worker.executor import Attempt
from glassq.worker.layout import State
from glassq.worker.losses import LossWatch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from glassq.delivery import Delivery, Evidence
    from glassq.queues import Receiver
    from glassq.queues.base import Reservation
    from glassq.worker.executor import Executor
    from glassq.worker.gates.limiter import GatedLimiter
    from glassq.worker.settlement import Settlement
    from glassq.worker.slots import Slot

log = logger("glassq.worker")

# How long one reserve waits, in whole seconds; a stop interrupts it, and so does a connection that breaks. What it ends
# for, a queue that is frozen, any child of the pool may notice. So beyond CHILDREN_AT_POLL children each of them waits
# longer, up to LONGEST_POLL, and not all equally long, so that they do not wake together.
POLL, LONGEST_POLL, CHILDREN_AT_POLL = 10, 50, 40
# The same right after a job, because its handler may have replaced our signal handlers; and while tubes have limits,
# because the token for another tube may come meanwhile.
SHORT_POLL = 1
# How often an idle consumer looks for jobs of queues and routes that the settings no longer have, in seconds.
LOOK = 60.0
# Reconnecting: full jitter from the first to the second, in seconds.
RECONNECT, RECONNECT_CAP = 0.1, 5.0
# Reserving pauses while the queue takes no puts (disk full, draining): a failed delivery could not be put again, and
# would run over and over. The pause grows from the first to the second, in seconds, with at most half of it as jitter.
REFUSED, REFUSED_CAP = 1.0, 30.0
# A delivery that must be worked alone comes again after so long, in seconds, while its route has as many attempts under
# way as it may. The next place is left for it meanwhile (bucket.LEAVE).
ALONE_DELAY = (2.0, 6.0)
# A job becomes ready when its consumer dies, so we may get it before the pool's parent has recorded that death. We wait
# this long for the record, in seconds.
CRASH_REPORT_WAIT = 1.0
# How often we look for that record, and how often a pause checks for a stop, in seconds.
CRASH_POLL, STOP_POLL = 0.02, 0.1


class Consumer:
    """Works deliveries one at a time on one queue connection."""

    def __init__(
        self,
        receiver: Receiver,
        limiter: GatedLimiter,
        executor: Executor,
        settlement: Settlement,
        slot: Slot,
        others: tuple[str, ...] = (),
        losses: LossWatch | None = None,
        *,
        children: int = 1,
    ) -> None:
        """Create it in the child, after the fork. `others` is how tubes begin that outlive their queue or route.

        `children` is how many wait for the same jobs.
        """
        self._receiver = receiver
        self._limiter = limiter
        self._executor = executor
        self._settlement = settlement
        self._slot = slot
        self._others = others
        self._losses = losses or LossWatch(slot)
        self._longest_poll = longest_poll(children)
        # the tubes that the last reserve was allowed
        self._tubes: Sequence[str] = ()
        # outside of `run` no job is reserved ahead
        self._stopping: Callable[[], bool] = lambda: True
        self.worked = 0

    def run(self, stopping: Callable[[], bool]) -> None:
        """Works until `stopping()`. Reconnects while the queue cannot be reached."""
        failures, self._stopping = 0, stopping
        if handle := self._slot.left_behind():
            self._receiver.free(handle)
        # The first reserve does not wait: its answer shows that we are connected.
        poll, busy, look_at = 0, False, 0.0
        while not stopping():
            if failures:
                self._slot.state(State.CONNECTING)
                _pause(backoff.ceiling(failures, RECONNECT, RECONNECT_CAP), stopping)
            try:
                if self._others and not busy and time.monotonic() >= look_at:
                    self._limiter.notice(self._receiver.filled(self._others))
                    look_at = time.monotonic() + LOOK
                busy = self.work_one(poll)
                if failures:
                    self._slot.problem("")
                failures, poll = 0, SHORT_POLL if busy or not self._limiter.patient else self._poll()
            except (QueueRefused, NoProof):
                self._slot.state(State.WAITING)
                ceiling = backoff.ceiling(self._settlement.refusals, REFUSED, REFUSED_CAP)
                _pause(ceiling, stopping, at_least=ceiling / 2)
                failures, poll = 0, 0
            except QueueError as error:
                descriptors.check()
                failures, poll = failures + 1, 0
                # The parent logs it once for all children.
                self._slot.problem(str(error))
                log.debug("queue not reached, trying again %s", fields(failures=failures, error=error))

    def close(self) -> None:
        """Closes the connection, which gives back a job that was reserved ahead; then releases all claims."""
        self._receiver.close()
        self._limiter.finish()

    def work_one(self, poll: int = SHORT_POLL) -> bool:
        """Waits up to `poll` seconds for a job and works it; False if there was none. Raises QueueError."""
        slow_down = False
        try:
            reservation = self._reserve(poll)
            if reservation is None:
                return False
            slow_down = self._work_job(reservation)
            return True
        finally:
            self._limiter.finish(slow_down=slow_down, has_next=self._receiver.has_next)

    def _poll(self) -> int:
        return round(backoff.between(POLL, self._longest_poll))

    def _reserve(self, poll: int) -> Reservation | None:
        admission = self._limiter.admit(self._receiver.has_next)
        reservation = None
        self._tubes = admission.tubes
        if admission.tubes:
            reservation = self._receiver.reserve(admission.tubes, poll if admission.wait is None else 0)
            self._slot.unproven(self._receiver.unproven)
        else:
            self._receiver.begin()
            self._receiver.tend()
        self._slot.state(State.WAITING)
        if reservation is None:
            self._limiter.nothing_came()
        if reservation is None and admission.wait is not None:
            # The next token is due then. Meanwhile other children may have our claims.
            self._limiter.release_tokens()
            time.sleep(admission.wait)
        return reservation

    def _work_job(self, reservation: Reservation) -> bool:
        """Works a reserved job; returns whether its tube shall be worked more slowly."""
        self.worked += 1
        try:
            return self._work(reservation)
        except (QueueRefused, NoProof) as error:
            self._settlement.refused(reservation, error)
            raise
        except JobNotFound:
            # Our lease ran out before we settled the job, or an operator took the job that we were burying. The next
            # consumer works it again. Closing the connection releases jobs that we may still have reserved.
            log.warning("job is no longer ours %s", fields(job=reservation.ref))
            self._receiver.close()
        except BaseException:
            # An open connection would keep the job reserved, and nobody would work it.
            self._receiver.close()
            raise
        finally:
            bind_context()
            self._slot.end()
        return False

    def _work(self, reservation: Reservation) -> bool:
        try:
            delivery = envelope.decode(reservation.body)
        except DamagedDelivery as error:
            self._settlement.bury_damaged(reservation, error)
            return False
        reservation = self._examined(reservation, delivery)
        if (origin := self._limiter.came_from(reservation.tube)) != reservation.tube:
            # it was parked, and goes back to where it came from
            reservation = replace(reservation, tube=origin)
        if delivery.buried and reservation.kicked:
            delivery = lifecycle.after_kick(delivery)
        bind_context(delivery=delivery.id, attempt=delivery.attempt)
        if delivery.buried:
            # No operator kicked it: a consumer died while it buried this delivery.
            self._settlement.finish_burial(reservation)
            return False
        if reservation.losses:
            # what began it is named until its death is recorded
            recorded = _comes_true(lambda: not self._slot.claimed_elsewhere(reservation.ref))
            crashes = self._crashes(reservation, delivery)
            if recorded and not crashes and self._excused():
                # a child held it when it died, but had not begun it, or had ended it
                reservation = replace(reservation, losses=0)
            else:
                delivery = lifecycle.after_loss(delivery, crashes)
        return self._attempt(reservation, delivery)

    def _attempt(self, reservation: Reservation, delivery: Delivery) -> bool:
        destination = self._executor.routes.match(delivery)
        given_up = outcomes.too_often_lost(delivery, self._executor.policy)
        if destination and destination.alone and (reservation.tube == destination.tube or not reservation.losses):
            # it was beside others, or has been tried alone less often than it was lost
            given_up = None
        tube = (destination and destination.tube_of(delivery)) or reservation.tube
        if tube != reservation.tube or (reservation.losses and not given_up):
            # The delivery belongs into its handler's tube, which has the limits; or there is a loss to record before
            # the next attempt. When a whole pool is killed, each child may get the job and die before it starts: the
            # first child that survives records all of that as one loss.
            self._settlement.put_anew(reservation, delivery, tube)
            if reservation.losses:
                log.warning("an attempt was lost %s", fields(job=reservation.ref, lost=delivery.lost))
            return False
        if not given_up and (parking := self._limiter.holds_back(destination, delivery, tube)):
            self._settlement.park(reservation, delivery, parking, self._limiter.parked, self._then())
            return False
        self._receiver.begin()
        limited = reservation.tube
        if destination and destination.alone and destination.alone == tube and not given_up:
            # counted in its route's tube, beside what runs in lanes
            limited = destination.tube
            if not self._limiter.take_alone(limited):
                self._settlement.put_anew(reservation, delivery, tube, backoff.between(*ALONE_DELAY))
                return False
        self._limiter.start(limited)
        attempt = Attempt(delivery, given_up) if given_up else self._executor.run(reservation, delivery, destination)
        attempt = self._limiter.judge(destination, attempt)
        self._settlement.settle(reservation, attempt, self._then(), several=self._limiter.several)
        return attempt.outcome.slow_down

    def _examined(self, reservation: Reservation, delivery: Delivery) -> Reservation:
        """The reservation with its tube, and with all facts where they can matter: a look costs a round trip."""
        if not reservation.tube and delivery.tube in self._tubes:
            reservation = replace(reservation, tube=delivery.tube)
        if delivery.buried or not reservation.tube or self._losses.suspects(reservation):
            reservation = self._receiver.examine(reservation)
            self._losses.saw(reservation)
        return reservation

    def _then(self) -> Sequence[str]:
        """The tubes for the next job, which is reserved in the packet that ends this one; none if it shall not be."""
        return () if self._stopping() else self._limiter.ahead()

    def _excused(self) -> bool:
        """Whether a child of this pool may have held a job that nobody names; its death may not be recorded yet."""
        return _comes_true(self._slot.excuse)

    def _crashes(self, reservation: Reservation, delivery: Delivery) -> list[Evidence]:
        """Evidence of attempts at this job that died with their process, as far as this pool has recorded them."""
        return [
            outcomes.evidence_of_crash(delivery, crash.how, crash.why, crash.at, crash.duration)
            for crash in self._slot.crashes.of(reservation.ref, delivery.id)
        ]


def longest_poll(children: int) -> int:
    """How long a reserve of one of so many idle children waits at most, in whole seconds."""
    return min(LONGEST_POLL, max(POLL, POLL * children // CHILDREN_AT_POLL))


def _comes_true(condition: Callable[[], bool]) -> bool:
    """Whether it does before the pool's parent must have recorded a death."""
    deadline = time.monotonic() + CRASH_REPORT_WAIT
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(CRASH_POLL)
    return True


def _pause(ceiling: float, stopping: Callable[[], bool], at_least: float = 0.0) -> None:
    """Sleeps for a random time from `at_least` to `ceiling` seconds, or until a stop."""
    deadline = time.monotonic() + backoff.between(at_least, ceiling)
    while not stopping() and (left := deadline - time.monotonic()) > 0:
        time.sleep(min(left, STOP_POLL))
