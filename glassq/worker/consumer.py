"""The loop of one child: reserve a job, run its handler, act on what came of it.

At least once, always: where a crash can fall between two steps here, the order is such that the delivery is worked
twice rather than not at all.
"""

from __future__ import annotations

import logging
import math
import os
import sys
import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from glassq import backoff
from glassq import delivery as envelope
from glassq.errors import DamagedDelivery, Drop, JobNotFound, JobTooBig, QueueError, QueueRefused
from glassq.log import bind_context, fields, logger
from glassq.worker import duplicates, leftovers
from glassq.worker import outcome as outcomes
from glassq.worker.metrics import ATTEMPTS, DAMAGED
from glassq.worker.outcome import Kind
from glassq.worker.processes import seconds_since_boot
from glassq.worker.record import Attempt, tell, tell_untold
from glassq.worker.scoreboard import State

if TYPE_CHECKING:
    from collections.abc import Callable

    from glassq.delivery import Delivery, Evidence
    from glassq.ledger import Ledger
    from glassq.queues import Job, JobStats, Queue
    from glassq.routes import Context, Destination, Result, Routes
    from glassq.worker.lease import Lease
    from glassq.worker.outcome import Outcome, Policy
    from glassq.worker.scoreboard import Slot
    from glassq.worker.throttle import Gate

log = logger("glassq.worker")

# How long one reserve waits, in whole seconds: a stop is noticed only between two.
POLL = 1
# A delivery being buried is put with this delay, in seconds, until it is really buried: should we die in between,
# it comes back ready, still marked, and is buried then.
BURY_DELAY = 60
# Reconnecting: full jitter from the first to the second, in seconds.
RECONNECT, RECONNECT_CAP = 0.1, 5.0
# Reserving is paused while the queue takes no puts (disk full, draining): whatever fails could not be put again, and
# would only be run over and over. From the first to the second, at least half of it, in seconds.
REFUSED, REFUSED_CAP = 1.0, 30.0
# So long an attempt waits for the ledger to have what was retried or buried before it, in seconds.
SETTLE = 0.5
# A job is free the moment its consumer dies, and may be ours before the pool's parent knows of the death. It is given
# so long to tell of it, in seconds.
TESTIMONY = 1.0


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
        gate: Gate,
        policy: Policy,
        *,
        deadline: float,
        grace: float,
        skew: float = 0.0,
    ) -> None:
        """Made by the process that works: no other one, such as a handler may fork, goes on after its handler.

        `deadline` is the hard one of an attempt, `grace` how much earlier the soft one falls, `skew` how far the clocks
        of hosts may differ; in seconds.
        """
        self._queue = queue
        self._routes = routes
        self._context = context
        self._ledger = ledger
        self._lease = lease
        self._slot = slot
        self._gate = gate
        self._policy = policy
        self._deadline = deadline
        self._grace = grace
        self._skew = skew
        self._pid = os.getpid()
        self._refusals = 0
        self._volatile = False
        self.worked = 0

    def run(self, stopping: Callable[[], bool]) -> None:
        """Works until `stopping()`; reconnects for as long as the queue is not there."""
        failures = 0
        # the first reserve does not wait: its answer shows that we are connected
        poll = 0
        while not stopping():
            if failures:
                self._slot.state(State.CONNECTING)
                _pause(backoff.ceiling(failures, RECONNECT, RECONNECT_CAP), stopping)
            try:
                self.work_one(poll)
                failures, poll = 0, POLL
            except QueueRefused:
                self._slot.state(State.WAITING)
                ceiling = backoff.ceiling(self._refusals, REFUSED, REFUSED_CAP)
                _pause(ceiling, stopping, at_least=ceiling / 2)
                failures, poll = 0, 0
            except QueueError as error:
                failures, poll = failures + 1, 0
                # the parent tells of it, once for all children
                self._slot.problem(str(error))
                log.debug("queue not reached, trying again %s", fields(failures=failures, error=error))

    def work_one(self, poll: int = POLL) -> bool:
        """Waits up to `poll` seconds for a job and works it; False if there was none. Raises QueueError."""
        slow_down = False
        try:
            job = self._reserve(poll)
            if job is None:
                return False
            slow_down = self._work_job(job)
            return True
        finally:
            self._gate.ended(slow_down=slow_down)

    def _reserve(self, poll: int) -> Job | None:
        opening = self._gate.open()
        job = None
        if opening.tubes:
            job = self._queue.reserve(poll if opening.wait is None else 0, opening.tubes)
        self._slot.state(State.WAITING)
        if job is None and opening.wait is not None:
            # a tube that is over its limit now is looked at again then; others may have our tokens meanwhile
            self._gate.nothing()
            time.sleep(opening.wait)
        return job

    def _work_job(self, job: Job) -> bool:
        """Works a job that has just been reserved; returns whether its tube shall be worked more slowly."""
        try:
            return self._work(job)
        except QueueRefused as error:
            # The queue cannot keep the delivery's next form (disk full, draining), but it still has this one.
            self._on_refusal(error)
            self._give_back(job)
            raise
        except JobTooBig as error:
            # No form of the delivery that tells its story fits. The one we hold does.
            log.error("job buried as it is %s", fields(job=job.id, error=error))
            self._queue.bury(job.id)
            self._slot.tally.count(ATTEMPTS, "bury")
        except JobNotFound:
            # Our lease ran out before we could act, or an operator took what we were burying. Whoever has the job now
            # works it again; what we may still hold goes back.
            log.warning("job is no longer ours %s", fields(job=job.id))
            self._queue.close()
        except BaseException:
            # An open connection would keep a job reserved that nobody works.
            self._queue.close()
            raise
        finally:
            bind_context()
            self.worked += 1
            self._slot.end()
        return False

    def _work(self, job: Job) -> bool:
        stats = self._queue.stats_job(job.id)
        self._look_at_disk(stats)
        try:
            delivery = envelope.decode(job.body)
        except DamagedDelivery as error:
            # Untouched: the bytes are the only evidence there is.
            log.error("damaged job buried %s", fields(job=job.id, tube=stats.tube, bytes=len(job.body), error=error))
            self._queue.bury(job.id)
            self._slot.tally.count(DAMAGED)
            return False
        if delivery.buried and stats.kicks:
            delivery = outcomes.after_kick(delivery)
        bind_context(delivery=delivery.id, attempt=delivery.attempt)
        if delivery.buried:
            # Somebody died while burying it (BURY_DELAY); nobody asked for another try.
            self._queue.bury(job.id)
            return False
        if stats.lost:
            delivery = outcomes.after_loss(delivery, self._deaths(job, delivery))
        found = self._routes.match(delivery)
        tube = (found and found.tube) or stats.tube
        given_up = outcomes.too_often_lost(delivery, self._policy)
        if tube != stats.tube or (stats.lost and not given_up):
            self._put_anew(job, delivery, tube)
            if stats.lost:
                log.warning("an attempt was lost %s", fields(job=job.id, lost=delivery.lost, timeouts=stats.timeouts))
            return False
        self._gate.began(stats.tube)
        attempt = Attempt(delivery, given_up, 0.0) if given_up else self._attempt(job, stats.ttr, delivery, found)
        self._act(job, stats, attempt)
        return attempt.outcome.slow_down

    def _put_anew(self, job: Job, delivery: Delivery, tube: str) -> None:
        """Without an attempt; first the put, as ever.

        To the tube whose limits are those of its handler, or with an attempt that was lost written down. Only then is
        it tried again: where a pool dies, each of its children may get the job just before it dies as well, and all
        of these are the one loss that whoever lives to write it finds.
        """
        self._put(delivery, 0, tube)
        self._queue.delete(job.id, held=True)

    def _attempt(self, job: Job, ttr: int, delivery: Delivery, found: Destination | None) -> Attempt:
        """Runs the handler, and nothing that talks to the queue. `ttr` is the job's lease in seconds."""
        # the handler may take this process along, and what the ledger does not have yet of others
        self._ledger.settle(SETTLE)
        started, begun, at = time.monotonic(), seconds_since_boot(), datetime.now(UTC)
        hard = started + self._deadline
        self._context.deadline = hard - self._grace
        self._slot.begin(job.id, delivery.id, delivery.attempt, hard, begun)
        keys = (
            (duplicates.fingerprint(delivery, found.route), duplicates.event(delivery, found.route))
            if found
            else ("", "")
        )
        try:
            self._lease.take(job.id, self._context.deadline, ttr)
            try:
                result = self._run(delivery, found)
            finally:
                self._end_if_forked()
                self._lease.disarm()
            return Attempt(delivery, outcomes.done(result), time.monotonic() - started, None, at, *keys)
        except BaseException as error:
            if self._lease.interrupted:
                leftovers.end_own(self._slot.parent, self._slot.index, begun)
            duration = time.monotonic() - started
            age = duration if delivery.tried is None else (datetime.now(UTC) - delivery.tried).total_seconds()
            outcome = self._decide(error, delivery, found, age)
            evidence = outcomes.witness(error, delivery, outcome, duration)
            return Attempt(delivery, outcome, duration, evidence, at, *keys)
        finally:
            self._lease.give_up()

    def _run(self, delivery: Delivery, found: Destination | None) -> Result:
        """Under the lease, as the ledger too may be slow."""
        if found is None:
            raise Drop("no route")
        if why := duplicates.replaced_by(delivery, found.route, self._ledger, self._skew):
            raise Drop(why)
        return found.work(delivery, self._context)

    def _decide(self, error: BaseException, delivery: Delivery, found: Destination | None, age: float) -> Outcome:
        try:
            rule = (found and found.rule(delivery, self._context)) or self._policy
            return outcomes.decide(error, delivery, rule, age)
        except BaseException as failure:
            where = fields(why=outcomes.describe(failure), traceback=outcomes.short_traceback(failure))
            log.error("the handler's retry rule has failed: the pool's counts %s", where)
            return outcomes.decide(error, delivery, self._policy, age)

    def _end_if_forked(self) -> None:
        """A handler that forked has come back twice. The other process must not act on the job, nor reserve one."""
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

    def _act(self, job: Job, stats: JobStats, attempt: Attempt) -> None:
        try:
            holder = self._tell_queue(job, stats.tube, attempt)
        except JobTooBig:
            raise
        except QueueError as error:
            tell_untold(self._ledger, self._slot.tally, stats, attempt, error)
            raise
        tell(self._ledger, self._slot.tally, stats, attempt, holder)

    def _tell_queue(self, job: Job, tube: str, attempt: Attempt) -> int:
        """The one place where an outcome becomes queue commands; the job that has the delivery from now on (0: none).

        What is put goes to the `tube` the job came from.
        """
        kind, holder = attempt.outcome.kind, 0
        if kind in (Kind.DONE, Kind.DROPPED):
            self._queue.delete(job.id, held=True)
        elif kind is Kind.RETRY:
            holder = self._put_again(job, tube, attempt)
        elif kind is Kind.BURY:
            holder = self._put_buried(job, tube, attempt)
        elif kind is Kind.INTERRUPTED:
            self._queue.release(job.id)
        return holder

    def _put_again(self, job: Job, tube: str, attempt: Attempt) -> int:
        """First the new job, then the end of the old one: dying between the two makes a duplicate, never a loss."""
        assert attempt.evidence is not None
        following = outcomes.after_retry(attempt.delivery, attempt.outcome, attempt.evidence, attempt.started)
        holder = self._put(following, math.ceil(attempt.outcome.delay), tube)
        self._queue.delete(job.id, held=True)
        return holder

    def _put_buried(self, job: Job, tube: str, attempt: Attempt) -> int:
        """The same order; the new job is delayed until it is buried, so that nobody works it meanwhile."""
        following = outcomes.after_bury(attempt.delivery, attempt.outcome, attempt.evidence)
        holder = self._put(following, BURY_DELAY, tube)
        self._queue.reserve_job(holder)
        self._queue.bury(holder)
        self._queue.delete(job.id, held=True)
        return holder

    def _deaths(self, job: Job, delivery: Delivery) -> list[Evidence]:
        """Of the attempts at this job that died with their process, as far as this pool knows."""
        over = time.monotonic() + TESTIMONY
        while self._slot.others_at(job.id) and time.monotonic() < over:
            time.sleep(0.02)
        deaths = self._slot.deaths.of(job.id, delivery.id)
        return [outcomes.witness_of_death(delivery, death.how, death.why, death.at, death.duration) for death in deaths]

    # -- a queue in trouble ------------------------------------------------------------------------------------------

    def _put(self, following: Delivery, delay: int, tube: str) -> int:
        try:
            holder = self._queue.put(envelope.encode(following), delay=delay, tube=tube)
        except JobTooBig:
            # a server with a smaller limit (-z): the budget matters more than the story
            bare = msgspec.structs.replace(following, evidence=())
            holder = self._queue.put(envelope.encode(bare), delay=delay, tube=tube)
        if self._refusals:
            log.warning("queue takes puts again %s", fields(refused=self._refusals))
            self._refusals = 0
        return holder

    def _on_refusal(self, error: QueueRefused) -> None:
        # one alarm, not one a job
        level = logging.DEBUG if self._refusals else logging.ERROR
        log.log(level, "queue takes no puts: jobs are given back, and reserving pauses %s", fields(error=error))
        self._refusals += 1

    def _give_back(self, job: Job) -> None:
        try:
            # without a delay: a disk that is full has no room for one, and beanstalkd would lose hold of the job
            self._queue.release(job.id)
        except JobNotFound:
            self._queue.close()

    def _look_at_disk(self, stats: JobStats) -> None:
        """Says once that jobs are in memory only, and once that they are on disk again."""
        if self._volatile != (stats.file == 0):
            self._volatile = stats.file == 0
            if self._volatile:
                log.error("jobs are in memory only: beanstalkd does not write to disk %s", fields(job=stats.id))
            else:
                log.warning("jobs are on disk again %s", fields(job=stats.id))


def _pause(ceiling: float, stopping: Callable[[], bool], at_least: float = 0.0) -> None:
    """Sleeps for a random time from `at_least` to `ceiling` seconds, or less when a stop is asked for."""
    over = time.monotonic() + backoff.between(at_least, ceiling)
    while not stopping() and (left := over - time.monotonic()) > 0:
        time.sleep(min(left, 0.1))
