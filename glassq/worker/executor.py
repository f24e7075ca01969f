"""Runs one attempt: the delivery's handler, under a lease and two deadlines. Returns its outcome.

settlement.py acts on the outcome. In this file only the lease's keeper talks to the queue.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from glassq import lifecycle
from glassq.bodies import with_body
from glassq.errors import BodyDamaged, BodyLost, Bury, Drop
from glassq.hooks import NO_HOOKS
from glassq.log import fields, logger
from glassq.worker import duplicates
from glassq.worker import outcome as outcomes
from glassq.worker.outcome import Kind

if TYPE_CHECKING:
    from collections.abc import Callable

    from glassq.bodies import BodyStore
    from glassq.delivery import Delivery, Evidence
    from glassq.errors import Verdict
    from glassq.hooks import Hooks
    from glassq.ledger import Ledger
    from glassq.policy import Deadlines, Policy
    from glassq.queues.base import Reservation
    from glassq.routes import Context, Destination, Result, Routes
    from glassq.worker.lane_lease import LaneLease
    from glassq.worker.lease import Lease
    from glassq.worker.outcome import Outcome

log = logger("glassq.worker")

# How long an attempt that may end its process, as an earlier one did, waits until the ledger has written what it knows
# of other deliveries' retries and burials, in seconds.
LEDGER_WAIT = 0.5


class Attempt(msgspec.Struct, frozen=True):
    """A finished attempt.

    `duration` is in seconds. `started` is the time just before the handler was called (None: it was not called).
    `error` is the exception that the handler raised. `fingerprint` and `event` are the keys for finding duplicates
    (duplicates.py).
    """

    delivery: Delivery
    outcome: Outcome
    duration: float = 0.0
    evidence: Evidence | None = None
    started: datetime | None = None
    error: BaseException | None = None
    fingerprint: str = ""
    event: str = ""

    @property
    def following(self) -> Delivery:
        """The delivery in its next form, after a retry or a bury; after another outcome as it is."""
        outcome = self.outcome
        if outcome.kind is Kind.RETRY:
            assert self.evidence is not None
            return lifecycle.after_retry(self.delivery, self.evidence, counts=outcome.counts, started=self.started)
        if outcome.kind is Kind.BURY:
            return lifecycle.after_bury(self.delivery, outcome.reason, self.evidence)
        return self.delivery


class Executor:
    """Runs attempts, one at a time. A process that a handler forks ends with the handler: it never leaves `run`."""

    def __init__(
        self,
        routes: Routes,
        context: Context,
        ledger: Ledger,
        lease: Lease | LaneLease,
        policy: Policy,
        deadlines: Deadlines,
        *,
        bodies: BodyStore | None = None,
        skew: float = 0.0,
        unrouted: Callable[[Delivery], Verdict] = lambda _: Drop("no route"),
        hooks: Hooks = NO_HOOKS,
        passing: tuple[type[BaseException], ...] = (),
    ) -> None:
        """`policy` and `deadlines` are for routes that have none of their own.

        `bodies` has the stored bodies. `skew` is the maximum difference between the clocks of hosts, in seconds.
        `unrouted` decides about a delivery that no route takes. `hooks` see each handler called.

        Exceptions of the types `passing` are raised again, not turned into outcomes: in a handler's test,
        KeyboardInterrupt.
        """
        self.routes = routes
        self.policy = policy
        self._context = context
        self._ledger = ledger
        self._lease = lease
        self._deadlines = deadlines
        self._bodies = bodies
        self._skew = skew
        self._unrouted = unrouted
        self._hooks = hooks
        self._passing = passing
        context.pending, context.shielded, context.bodies = lease.pending, lease.shielded, bodies
        self._pid = os.getpid()

    def run(self, reservation: Reservation, delivery: Delivery, destination: Destination | None) -> Attempt:
        """Runs the handler; whatever it raises becomes an outcome."""
        if delivery.lost:
            self._ledger.settle(LEDGER_WAIT)
        deadlines = (destination and destination.deadlines) or self._deadlines
        started, at = time.monotonic(), datetime.now(UTC)
        context = self._context
        context.deadline, context.hard = started + deadlines.soft, started + deadlines.hard
        context.options = destination.options if destination else {}
        context.step, context.done, context.results = "", delivery.done, {}
        keys = _keys(delivery, destination)
        try:
            self._lease.start(reservation, delivery, deadline=context.deadline, hard=context.hard)
            try:
                result = self._handle(delivery, destination)
            finally:
                self._end_if_forked()
                self._lease.forbid_interrupts()
                self._lease.check_descriptors()
            done = _carrying(delivery, context)
            return Attempt(done, outcomes.done(result), time.monotonic() - started, None, at, None, *keys)
        except self._passing:
            raise
        except BaseException as error:
            self._lease.end_leftovers(error)
            duration = time.monotonic() - started
            age = duration if delivery.tried is None else (datetime.now(UTC) - delivery.tried).total_seconds()
            outcome = outcomes.of_step(self._decide(error, delivery, destination, age), context.step)
            evidence = outcomes.evidence_of(error, delivery, outcome, duration, context.step)
            return Attempt(_carrying(delivery, context), outcome, duration, evidence, at, error, *keys)
        finally:
            self._lease.end()

    def _handle(self, delivery: Delivery, destination: Destination | None) -> Result:
        """Calls the handler, unless the delivery is a duplicate. Under the lease, because the ledger may be slow."""
        if destination is None:
            raise self._unrouted(delivery)
        if why := duplicates.replaced_by(delivery, destination.route, self._ledger, self._skew):
            raise Drop(why)
        whole = self._whole(delivery)
        self._hooks.before(whole)
        return destination.work(whole, self._context)

    def _whole(self, delivery: Delivery) -> Delivery:
        """The delivery with its body. Raises Bury if that is lost or damaged, BodyError if it is not there now."""
        if delivery.stored is None or self._bodies is None:
            return delivery
        try:
            return with_body(delivery, self._bodies)
        except (BodyLost, BodyDamaged) as error:
            raise Bury(f"its body cannot be used: {error}") from None

    def _decide(self, error: BaseException, delivery: Delivery, destination: Destination | None, age: float) -> Outcome:
        fallback = (destination and destination.policy) or self.policy
        try:
            policy = (destination and destination.retry_policy(delivery, self._context)) or fallback
            return outcomes.decide(error, delivery, policy, age)
        except self._passing:
            raise
        except BaseException as failure:
            where = fields(why=outcomes.describe(failure), traceback=outcomes.short_traceback(failure))
            log.error("the handler's retry policy failed: its route's is used %s", where)
            return outcomes.decide(error, delivery, fallback, age)

    def _end_if_forked(self) -> None:
        """Ends this process if the handler forked it: it must neither settle the job nor reserve another one."""
        if os.getpid() == self._pid:
            return
        error = sys.exception()
        code = 0 if error is None else 1
        if isinstance(error, SystemExit):
            code = error.code if isinstance(error.code, int) else int(error.code is not None)
        elif error is not None:
            log.error("a process that a handler forked has failed %s", fields(error=outcomes.describe(error)))
        for stream in (sys.stdout, sys.stderr):
            with suppress(Exception):
                stream.flush()
        os._exit(code & 0xFF)


def _carrying(delivery: Delivery, context: Context) -> Delivery:
    """The delivery with the results of its steps."""
    if context.done is delivery.done:
        return delivery
    return msgspec.structs.replace(delivery, done=context.done)


def _keys(delivery: Delivery, destination: Destination | None) -> tuple[str, str]:
    if destination is None:
        return "", ""
    return duplicates.fingerprint(delivery, destination.route), duplicates.event(delivery, destination.route)
