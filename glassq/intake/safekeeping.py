"""Keeps a delivery durably, one way or the other: in the queue, else in the spool.

A process that has seen the queue fail does not let each sender find out anew: pings go straight to the spool until
the watcher, a thread that looks once a second, finds the queue well again. The watcher also drains the spool, and looks
whether the queue really writes to disk: after one failed write beanstalkd goes on without its binlog, and answers as
ever. What it took since the last look is then spooled as well.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from glassq.errors import JobNotFound, QueueError, QueueRefused, QueueVolatile, SpoolError
from glassq.log import kv

if TYPE_CHECKING:
    from glassq.intake.enqueue import Enqueue
    from glassq.intake.spool import Spool
    from glassq.queues import ServerStats

log = logging.getLogger("glassq.intake")

# How often the watcher looks, in seconds.
WATCH = 1.0


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether a ping would be taken now, and how: `trouble` is what is wrong with the queue, "" for nothing."""

    ready: bool
    trouble: str
    spooled: int


class Safekeeping:
    """The way from a checked ping to disk, for all threads of one process."""

    def __init__(self, enqueue: Enqueue, spool: Spool, *, require_durable: bool) -> None:
        self._enqueue = enqueue
        self._spool = spool
        self._require_durable = require_durable
        #: why the queue is not used now; "" while it is
        self._trouble = ""
        self._last: ServerStats | None = None
        #: what the queue has taken since it last proved that it writes to disk: (job id, delivery id, job)
        self._unproven: deque[tuple[int, str, bytes]] = deque()
        self._over = threading.Event()

    def start(self) -> None:
        """Starts the watcher. Made after the fork."""
        threading.Thread(target=self._watch, name="watcher", daemon=True).start()

    def stop(self) -> None:
        """Ends the watcher after what it is doing."""
        self._over.set()

    def keep(self, delivery_id: str, job: bytes) -> str:
        """Returns where the job lies durably now: "queue" or "spool".

        Raises QueueError where neither takes it, within 5 s.
        """
        if not self._trouble:
            try:
                self._unproven.append((self._enqueue.put(job), delivery_id, job))
                return "queue"
            except QueueError as error:
                self._give_up_on_queue(error)
        try:
            self._spool.write(delivery_id, job)
        except SpoolError as error:
            log.error("not kept %s", kv(delivery=delivery_id, queue=self._trouble, spool=error))
            raise QueueRefused(str(error)) from None
        return "spool"

    def readiness(self) -> Readiness:
        """What would become of a ping now. Asks the queue if nothing is known against it."""
        if not self._trouble:
            try:
                self._check()
            except QueueError as error:
                self._give_up_on_queue(error)
        ready = True
        if self._trouble:
            try:
                self._spool.check_room(1 << 16)
            except SpoolError:
                ready = False
        return Readiness(ready, self._trouble, self._spool.look().count)

    def look(self) -> None:
        """What the watcher does each time: is the queue well, and is there anything to drain?"""
        try:
            self._check()
        except QueueError as error:
            self._give_up_on_queue(error)
            return
        if self._trouble:
            log.warning("the queue takes deliveries again")
            self._trouble = ""
        if self._spool.empty():
            return
        try:
            drained = self._spool.drain(self._enqueue.put)
        except QueueError as error:
            self._give_up_on_queue(error)
            return
        if drained:
            log.warning("spool drained %s", kv(deliveries=drained))

    def _watch(self) -> None:
        while not self._over.wait(WATCH):
            try:
                self.look()
            except Exception:
                # whatever it is, the next second may be better; without a watcher the spool would never drain
                log.exception("bug in the spool's watcher")
                time.sleep(WATCH)

    def _check(self) -> None:
        """Raises QueueError where the queue would not take a delivery durably."""
        now = self._enqueue.stats()
        if now.draining:
            raise QueueRefused("beanstalkd is draining: it takes no jobs until it is restarted")
        if not self._require_durable:
            return
        if not now.durable:
            raise QueueVolatile("beanstalkd writes nothing to disk: start it with -b DIRECTORY -f0")
        taken = len(self._unproven)
        before, self._last = self._last, now
        # a restarted server counts from 0 again
        stands_still = before is not None and now.puts > before.puts and now.records == before.records
        if stands_still or (taken and not self._on_disk(self._unproven[taken - 1][0])):
            raise QueueVolatile("beanstalkd keeps jobs in memory only: its binlog failed; mend the disk and restart it")
        for _ in range(taken):
            self._unproven.popleft()

    def _on_disk(self, job_id: int) -> bool:
        try:
            return self._enqueue.stats_job(job_id).file > 0
        except JobNotFound:
            # a consumer was faster; the binlog's counters speak for it
            return True

    def _keep_unproven(self) -> None:
        """What the queue may have in memory only goes to the spool as well: worked twice rather than not at all."""
        while self._unproven:
            _, delivery_id, job = self._unproven.popleft()
            try:
                self._spool.write(delivery_id, job)
            except SpoolError as error:
                log.critical("acknowledged, and perhaps in memory only %s", kv(delivery=delivery_id, why=error))

    def _give_up_on_queue(self, error: QueueError) -> None:
        if not self._trouble:
            log.error("the queue takes no deliveries: they go to the spool %s", kv(why=error))
        self._trouble = str(error)
        if isinstance(error, QueueVolatile):
            self._keep_unproven()
