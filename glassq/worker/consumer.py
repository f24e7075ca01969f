"""The loop of one child: reserve a job, run its handler, act on what came of it.

At least once, always: where a crash can fall between two steps here, the order is such that the delivery is worked
twice rather than not at all.
"""

from __future__ import annotations

import json
import logging
import math
import random
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from glassq import delivery as envelope
from glassq.errors import DamagedDelivery, Drop, JobNotFound, JobTooBig, QueueError, QueueRefused
from glassq.ledger import Entry
from glassq.log import kv
from glassq.worker import outcome as outcomes
from glassq.worker.outcome import Kind, Outcome, Policy
from glassq.worker.scoreboard import State

if TYPE_CHECKING:
    from collections.abc import Callable

    from glassq.delivery import Delivery, Evidence
    from glassq.ledger import Ledger
    from glassq.queues import Job, Queue
    from glassq.routes import Context, Handler, Routes
    from glassq.worker.lease import Lease
    from glassq.worker.scoreboard import Slot

log = logging.getLogger("glassq.worker")

# How long one reserve waits, in whole seconds: a stop is noticed only between two.
POLL = 1
# A delivery being buried is put with this delay, in seconds, until it is really buried: should we die in between,
# it comes back ready, still marked, and is buried then.
BURY_DELAY = 60
# Reconnecting: full jitter from the first to the second, in seconds.
RECONNECT, RECONNECT_CAP = 0.1, 5.0
# The ledger keeps results, not files.
MAX_RESULT = 2_000


@dataclass(frozen=True, slots=True)
class _Attempt:
    """What is known once an attempt is over. `lost` counts attempts that ended with their process."""

    delivery: Delivery
    outcome: Outcome
    duration: float
    lost: int
    evidence: Evidence | None = None


class Consumer:
    """Works deliveries one at a time on one queue connection."""

    def __init__(
        self,
        queue: Queue,
        routes: Routes,
        context: Context,
        ledger: Ledger,
        lease: Lease,
        slot: Slot,
        policy: Policy,
        *,
        deadline: float,
        grace: float,
    ) -> None:
        """`deadline` is the hard one of an attempt, `grace` how much earlier the soft one falls; in seconds."""
        self._queue = queue
        self._routes = routes
        self._context = context
        self._ledger = ledger
        self._lease = lease
        self._slot = slot
        self._policy = policy
        self._deadline = deadline
        self._grace = grace
        self.worked = 0

    def run(self, stopping: Callable[[], bool]) -> None:
        """Works until `stopping()`; reconnects for as long as the queue is not there."""
        failures = 0
        # the first reserve does not wait: its answer shows that we are connected
        poll = 0
        while not stopping():
            if failures:
                self._slot.state(State.CONNECTING)
                _pause(min(RECONNECT_CAP, RECONNECT * 2.0 ** min(failures, 10)), stopping)
            try:
                self.work_one(poll)
                failures, poll = 0, POLL
            except QueueError as error:
                failures, poll = failures + 1, 0
                log.warning("queue trouble, trying again %s", kv(failures=failures, error=error))

    def work_one(self, poll: int = POLL) -> bool:
        """Waits up to `poll` seconds for a job and works it; False if there was none. Raises QueueError."""
        job = self._queue.reserve(poll)
        self._slot.state(State.WAITING)
        if job is None:
            return False
        try:
            self._work(job)
        except QueueRefused as error:
            # The queue cannot keep the delivery's next form (disk full, draining), but it still has this one.
            log.error("job given back, as the queue takes no put %s", kv(job=job.id, error=error))
            self._queue.release(job.id)
            raise
        except JobTooBig as error:
            # No form of the delivery that tells its story fits. The one we hold does.
            log.error("job buried as it is %s", kv(job=job.id, error=error))
            self._queue.bury(job.id)
        except JobNotFound:
            # Our lease ran out before we could act, or an operator took what we were burying. Whoever has the job now
            # works it again; what we may still hold goes back.
            log.warning("job is no longer ours %s", kv(job=job.id))
            self._queue.close()
        except BaseException:
            # An open connection would keep a job reserved that nobody works.
            self._queue.close()
            raise
        finally:
            self.worked += 1
            self._slot.end()
        return True

    def _work(self, job: Job) -> None:
        stats = self._queue.stats_job(job.id)
        try:
            delivery = envelope.decode(job.body)
        except DamagedDelivery as error:
            # Untouched: the bytes are the only evidence there is.
            log.error("damaged job buried %s", kv(job=job.id, tube=stats.tube, bytes=len(job.body), error=error))
            self._queue.bury(job.id)
            return
        if delivery.buried and not stats.kicks:
            # Somebody died while burying it (BURY_DELAY); nobody asked for another try.
            self._queue.bury(job.id)
            return
        if delivery.buried:
            delivery = outcomes.after_kick(delivery)
        lost = delivery.lost + stats.lost
        given_up = outcomes.too_often_lost(lost, self._policy)
        if given_up is not None:
            self._act(job, _Attempt(delivery, given_up, 0.0, lost))
            return
        self._act(job, self._attempt(job, delivery, lost))

    def _attempt(self, job: Job, delivery: Delivery, lost: int) -> _Attempt:
        """Runs the handler, and nothing that talks to the queue."""
        started = time.monotonic()
        hard = started + self._deadline
        self._context.deadline = hard - self._grace
        self._slot.begin(job.id, delivery.id, hard)
        try:
            handler = self._handler(delivery)
            self._lease.take(job.id, self._context.deadline)
            try:
                result = handler(delivery, self._context)
            finally:
                self._lease.disarm()
            return _Attempt(delivery, outcomes.done(result), time.monotonic() - started, lost)
        except BaseException as error:
            duration = time.monotonic() - started
            outcome = outcomes.decide(error, delivery, self._policy)
            evidence = outcomes.witness(error, delivery, outcome, duration)
            return _Attempt(delivery, outcome, duration, lost, evidence)
        finally:
            self._lease.give_up()

    def _handler(self, delivery: Delivery) -> Handler:
        handler = self._routes.find(delivery)
        if handler is None:
            raise Drop("no route")
        return handler

    def _act(self, job: Job, attempt: _Attempt) -> None:
        """The one place where an outcome becomes queue commands."""
        kind, holder = attempt.outcome.kind, 0
        if kind in (Kind.DONE, Kind.DROPPED):
            self._queue.delete(job.id)
        elif kind is Kind.RETRY:
            holder = self._put_again(job, attempt)
        elif kind is Kind.BURY:
            holder = self._put_buried(job, attempt)
        elif kind is Kind.INTERRUPTED:
            self._queue.release(job.id)
        self._tell(job, attempt, holder)

    def _put_again(self, job: Job, attempt: _Attempt) -> int:
        """First the new job, then the end of the old one: dying between the two makes a duplicate, never a loss."""
        assert attempt.evidence is not None
        following = outcomes.after_retry(attempt.delivery, attempt.outcome, attempt.evidence, attempt.lost)
        holder = self._queue.put(envelope.encode(following), delay=math.ceil(attempt.outcome.delay))
        self._queue.delete(job.id)
        return holder

    def _put_buried(self, job: Job, attempt: _Attempt) -> int:
        """The same order; the new job is delayed until it is buried, so that nobody works it meanwhile."""
        following = outcomes.after_bury(attempt.delivery, attempt.outcome, attempt.evidence, attempt.lost)
        holder = self._queue.put(envelope.encode(following), delay=BURY_DELAY)
        self._queue.reserve_job(holder)
        self._queue.bury(holder)
        self._queue.delete(job.id)
        return holder

    def _tell(self, job: Job, attempt: _Attempt, holder: int) -> None:
        """Log and ledger; both for people, neither in the way."""
        delivery, outcome = attempt.delivery, attempt.outcome
        result = _as_text(outcome.result)
        level, event, state = _EVENTS[outcome.kind]
        fields = {"delivery": delivery.id, "attempt": delivery.attempt, "job": job.id, "seconds": attempt.duration}
        if outcome.kind is Kind.RETRY:
            fields["delay"] = outcome.delay
        if outcome.reason:
            fields["reason"] = outcome.reason
        if result:
            fields["result"] = result
        log.log(level, "%s %s", event, kv(**fields))
        if outcome.kind is Kind.RETRY and attempt.evidence is not None and attempt.evidence.traceback:
            log.debug("traceback %s\n%s", kv(delivery=delivery.id), attempt.evidence.traceback)
        if state:
            entry = Entry(
                delivery=delivery.id,
                source=delivery.source,
                received=delivery.received,
                state=state,
                attempts=delivery.attempt,
                updated=datetime.now(UTC),
                duration=attempt.duration,
                job=holder,
                result=result,
                reason=outcome.reason,
            )
            self._ledger.record(entry)


_EVENTS: dict[Kind, tuple[int, str, str]] = {
    Kind.DONE: (logging.INFO, "done", "done"),
    Kind.DROPPED: (logging.INFO, "dropped", "dropped"),
    Kind.RETRY: (logging.WARNING, "retrying", "retrying"),
    Kind.BURY: (logging.ERROR, "buried", "buried"),
    Kind.INTERRUPTED: (logging.INFO, "given back", ""),
    Kind.LEASE_LOST: (logging.WARNING, "lease lost", ""),
}


def _as_text(result: str | dict[str, Any] | None) -> str:
    """For people. The work is done by then: a result that has no text must not undo it."""
    if result is None:
        return ""
    try:
        text = result if isinstance(result, str) else json.dumps(result, default=str, skipkeys=True)
    except Exception as error:
        text = f"({type(result).__name__} without a text: {type(error).__name__})"
    return envelope.sayable(text[:MAX_RESULT])


def _pause(ceiling: float, stopping: Callable[[], bool]) -> None:
    """Sleeps a random part of `ceiling` seconds, or less when a stop is asked for."""
    over = time.monotonic() + random.uniform(0.0, ceiling)  # noqa: S311 - jitter, no secret
    while not stopping() and (left := over - time.monotonic()) > 0:
        time.sleep(min(left, 0.1))
