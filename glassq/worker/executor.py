"""One attempt: runs a delivery's handler under a lease and deadlines, and decides what the attempt came to.

Nothing here talks to the queue but the lease's keeper, and nothing here acts on the outcome: settlement.py does.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from glassq.errors import Drop
from glassq.log import fields, logger
from glassq.worker import duplicates
from glassq.worker import outcome as outcomes

if TYPE_CHECKING:
    from glassq.delivery import Delivery, Evidence
    from glassq.ledger import Ledger
    from glassq.queues.base import Reservation
    from glassq.routes import Context, Destination, Result, Routes
    from glassq.worker.lease import Lease
    from glassq.worker.outcome import Outcome, Policy

log = logger("glassq.worker")

# An attempt waits this long for the ledger to hold what was retried or buried before it, in seconds.
SETTLE = 0.5


@dataclass(frozen=True, slots=True)
class Deadlines:
    """When an attempt ends, in seconds from its start: softly, by an exception, and hard, with its process."""

    soft: float
    hard: float


@dataclass(frozen=True, slots=True)
class Attempt:
    """What is known once an attempt is over.

    `duration` is in seconds; `started` is before the handler was called (None: it was not). `error` is what the handler
    raised. `fingerprint` and `event` are for finding duplicates (see duplicates.py).
    """

    delivery: Delivery
    outcome: Outcome
    duration: float = 0.0
    evidence: Evidence | None = None
    started: datetime | None = None
    error: BaseException | None = None
    fingerprint: str = ""
    event: str = ""


class Executor:
    """Runs attempts, one at a time, in the process that made it: a handler's fork does not go on after its handler."""

    def __init__(
        self,
        routes: Routes,
        context: Context,
        ledger: Ledger,
        lease: Lease,
        policy: Policy,
        deadlines: Deadlines,
        *,
        skew: float = 0.0,
        passing: tuple[type[BaseException], ...] = (),
    ) -> None:
        """`skew` is how far the clocks of hosts may differ, in seconds. Exceptions of `passing` are not the handler's.

        They are raised again, as KeyboardInterrupt is in a handler's test.
        """
        self.routes = routes
        self.policy = policy
        self._context = context
        self._ledger = ledger
        self._lease = lease
        self._deadlines = deadlines
        self._skew = skew
        self._passing = passing
        self._pid = os.getpid()

    def run(self, reservation: Reservation, delivery: Delivery, destination: Destination | None) -> Attempt:
        """Runs the handler; whatever it raises becomes an outcome."""
        # The handler may take this process along, and with it what the ledger does not hold yet of other deliveries.
        self._ledger.settle(SETTLE)
        started, at = time.monotonic(), datetime.now(UTC)
        self._context.deadline = started + self._deadlines.soft
        keys = _keys(delivery, destination)
        try:
            self._lease.start(
                reservation, delivery, deadline=self._context.deadline, hard=started + self._deadlines.hard
            )
            try:
                result = self._handle(delivery, destination)
            finally:
                self._end_if_forked()
                self._lease.forbid_interrupts()
            return Attempt(delivery, outcomes.done(result), time.monotonic() - started, None, at, None, *keys)
        except self._passing:
            raise
        except BaseException as error:
            self._lease.end_leftovers()
            duration = time.monotonic() - started
            age = duration if delivery.tried is None else (datetime.now(UTC) - delivery.tried).total_seconds()
            outcome = self._decide(error, delivery, destination, age)
            evidence = outcomes.evidence_of(error, delivery, outcome, duration)
            return Attempt(delivery, outcome, duration, evidence, at, error, *keys)
        finally:
            self._lease.end()

    def _handle(self, delivery: Delivery, destination: Destination | None) -> Result:
        """Runs under the lease, as the ledger may be slow as well."""
        if destination is None:
            raise Drop("no route")
        if why := duplicates.replaced_by(delivery, destination.route, self._ledger, self._skew):
            raise Drop(why)
        return destination.work(delivery, self._context)

    def _decide(self, error: BaseException, delivery: Delivery, destination: Destination | None, age: float) -> Outcome:
        try:
            rule = (destination and destination.rule(delivery, self._context)) or self.policy
            return outcomes.decide(error, delivery, rule, age)
        except self._passing:
            raise
        except BaseException as failure:
            where = fields(why=outcomes.describe(failure), traceback=outcomes.short_traceback(failure))
            log.error("the handler's retry rule has failed: the pool's counts %s", where)
            return outcomes.decide(error, delivery, self.policy, age)

    def _end_if_forked(self) -> None:
        """Ends a process that the handler forked: it must neither act on the job nor reserve one."""
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


def _keys(delivery: Delivery, destination: Destination | None) -> tuple[str, str]:
    if destination is None:
        return "", ""
    return duplicates.fingerprint(delivery, destination.route), duplicates.event(delivery, destination.route)
