"""Acts on the outcome of an attempt: the one place that turns it into calls of the queue and records."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import TYPE_CHECKING, assert_never

import msgspec

from glassq import delivery as envelope
from glassq import lifecycle
from glassq.errors import BodyError, JobNotFound, JobTooBig, NoProof, QueueError, QueueRefused
from glassq.hooks import NO_HOOKS, AttemptReport
from glassq.log import fields, logger
from glassq.worker.executor import Attempt
from glassq.worker.metrics import DAMAGED
from glassq.worker.outcome import Kind, Outcome, too_big
from glassq.worker.record import AttemptRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from glassq.bodies import BodyStore
    from glassq.delivery import Delivery
    from glassq.errors import DamagedDelivery
    from glassq.hooks import Hooks
    from glassq.ledger import Ledger
    from glassq.metrics import ProcessCounters
    from glassq.queues import Receiver
    from glassq.queues.base import Reservation

log = logger("glassq.worker")


class Settlement:
    """Settles reservations. `refusals` is how many puts in a row the queue has refused."""

    def __init__(
        self,
        receiver: Receiver,
        ledger: Ledger,
        counters: ProcessCounters,
        bodies: BodyStore | None = None,
        hooks: Hooks = NO_HOOKS,
        *,
        largest: int = envelope.MAX_JOB,
    ) -> None:
        """`hooks` see what becomes of each attempt. A job is made to fit into `largest` bytes where that can be."""
        self._largest = largest
        self._hooks = hooks
        self._bodies = bodies
        self._receiver = receiver
        self._ledger = ledger
        self._counters = counters
        self.refusals = 0

    def settle(
        self, reservation: Reservation, attempt: Attempt, then: Sequence[str] = (), *, several: bool = False
    ) -> None:
        """Acts on the outcome and records it. Raises QueueError.

        `then` are the tubes from which to reserve the next job meanwhile, or the next ones if it may be `several`.
        """
        try:
            self._recorded(
                reservation,
                attempt,
                lambda record: self._act(reservation, attempt, then, record, several=several),
            )
        except JobTooBig as error:
            self._bury_too_big(reservation, attempt, error)

    def put_anew(self, reservation: Reservation, delivery: Delivery, tube: str, delay: float = 0.0) -> None:
        """Puts the delivery in its new form, ready after `delay` seconds, without an attempt. Raises QueueError."""
        try:
            self._put(delivery, tube, lambda body: self._receiver.retry(reservation, body, delay=delay, tube=tube))
        except JobTooBig as error:
            self._bury_too_big(reservation, _none_of(delivery), error)

    def park(
        self,
        reservation: Reservation,
        delivery: Delivery,
        tube: str,
        put: Callable[[str], None],
        then: Sequence[str] = (),
    ) -> None:
        """Puts the delivery into a parking tube, without an attempt; calls `put(tube)` once it is there.

        `then` is as in `settle`. Raises QueueError.
        """

        def move(body: bytes, failed: Callable[[QueueError], None] | None) -> str:
            self._receiver.move(reservation, body, tube=tube, put=put, then=then, failed=failed)
            return ""

        def failed(error: QueueError) -> None:
            if isinstance(error, QueueRefused | NoProof):
                self._note_refusal(error)
            elif isinstance(error, JobTooBig):
                without_story = msgspec.structs.replace(lifecycle.without_story(delivery), tube=tube)
                self._park_alone(reservation, delivery, lambda: move(envelope.encode(without_story), None))

        later = None if self.refusals else failed
        try:
            self._put(delivery, tube, lambda body: move(body, later))
        except JobTooBig as error:
            self._bury_too_big(reservation, _none_of(delivery), error)

    def finish_burial(self, reservation: Reservation) -> None:
        """Buries a delivery whose last consumer died while it buried it."""
        self._receiver.bury(reservation)

    def bury_damaged(self, reservation: Reservation, error: DamagedDelivery) -> None:
        """Buries a body that is not a delivery. The body stays as it is: it is the only evidence."""
        where = fields(job=reservation.ref, tube=reservation.tube, bytes=len(reservation.body), error=error)
        log.error("damaged job buried %s", where)
        self._receiver.bury(reservation)
        self._counters.count(DAMAGED)

    def refused(self, reservation: Reservation, error: QueueRefused | NoProof) -> None:
        """Releases the job: the delivery's next form was refused or not proven, but the queue still has this one."""
        self._note_refusal(error)
        try:
            self._receiver.release(reservation)
        except JobNotFound:
            self._receiver.close()

    def _act(
        self, reservation: Reservation, attempt: Attempt, then: Sequence[str], record: AttemptRecord, *, several: bool
    ) -> str:
        """Carries out the outcome. Returns the job that holds the delivery from now on; "" if none does."""

        def failed(error: QueueError) -> None:
            record.unacknowledged(error)
            if isinstance(error, QueueRefused | NoProof):
                self._note_refusal(error)

        match attempt.outcome.kind:
            case Kind.DONE | Kind.DROPPED:
                # the body goes only after the job
                stored = attempt.delivery.stored_keys
                later = failed if several and not stored else None
                self._receiver.complete(reservation, then=then, meanwhile=record.log_outcome, failed=later)
                self._retire(attempt.delivery.id, stored)
            case Kind.RETRY:
                delay, tube, retry = attempt.outcome.delay, reservation.tube, self._receiver.retry
                # while the queue is in trouble each answer is awaited: it says when that is over
                later = None if self.refusals else failed
                return self._put(
                    attempt.following,
                    tube,
                    lambda body: retry(reservation, body, delay=delay, tube=tube, then=then, failed=later),
                )
            case Kind.BURY:
                bury = self._receiver.bury
                return self._put(attempt.following, reservation.tube, lambda body: bury(reservation, body, then=then))
            case Kind.INTERRUPTED:
                self._receiver.release(reservation)
            case Kind.LEASE_LOST:
                # another consumer has the job
                pass
            case unknown:
                assert_never(unknown)
        return ""

    def _park_alone(self, reservation: Reservation, delivery: Delivery, move: Callable[[], object]) -> None:
        """Parks a delivery that was too big beside others. Whoever parks the others knows nothing of this one."""
        try:
            try:
                move()
            except JobTooBig as error:
                self._bury_too_big(reservation, _none_of(delivery), error)
        except (QueueRefused, NoProof) as error:
            self.refused(reservation, error)
        except JobNotFound:
            log.warning("job is no longer ours %s", fields(job=reservation.ref))

    def _bury_too_big(self, reservation: Reservation, attempt: Attempt, error: JobTooBig) -> None:
        """Buries the delivery as it is, because it does not fit into a job in its next form."""
        buried = msgspec.structs.replace(attempt, outcome=too_big(attempt.outcome, str(error)))
        self._recorded(reservation, buried, lambda _record: self._receiver.bury(reservation))

    def _recorded(self, reservation: Reservation, attempt: Attempt, act: Callable[[AttemptRecord], str]) -> None:
        """Calls `act`, which returns the job that holds the delivery from now on, and records what came of it.

        After JobTooBig nothing is recorded.
        """
        record = AttemptRecord(self._ledger, self._counters, reservation, attempt)
        try:
            holder = act(record)
        except JobTooBig:
            raise
        except QueueError as error:
            record.unacknowledged(error)
            raise
        record.settled(holder)
        if self._hooks.watch:
            outcome = attempt.outcome
            report = AttemptReport(
                attempt.delivery, outcome.kind.value, outcome.reason, attempt.duration, attempt.error
            )
            self._hooks.after(report)

    def _note_refusal(self, error: QueueError) -> None:
        # One error line, not one for each job.
        level = logging.DEBUG if self.refusals else logging.ERROR
        log.log(level, "queue takes no puts: jobs are given back, and reserving pauses %s", fields(error=error))
        self.refusals += 1

    def _put(self, following: Delivery, tube: str, put: Callable[[bytes], str]) -> str:
        following = msgspec.structs.replace(following, tube=tube)
        if self._bodies is not None:
            for key in following.stored_keys:
                # what cannot be touched, no sweep can delete either
                with suppress(BodyError):
                    self._bodies.touch(key)
        try:
            holder = put(envelope.encode(following, self._largest))
        except JobTooBig:
            holder = put(envelope.encode(lifecycle.without_story(following)))
        if self.refusals:
            log.warning("queue takes puts again %s", fields(refused=self.refusals))
            self.refusals = 0
        return holder

    def _retire(self, delivery: str, stored: Sequence[str]) -> None:
        """The job is gone: what it has in the body store, under these keys, is needed for a replay at most."""
        if self._bodies is None:
            return
        for key in stored:
            try:
                self._bodies.retire(key)
            except BodyError as error:
                # the sweep finds it: no job names it any more
                log.error("a body stays where it is until it is swept %s", fields(delivery=delivery, why=error))


def _none_of(delivery: Delivery) -> Attempt:
    """No attempt was made at the delivery; what becomes of it is recorded as of one."""
    return Attempt(delivery, Outcome(Kind.BURY))
