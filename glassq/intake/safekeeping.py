"""Keeps a delivery durably, one way or the other: in the queue, else in the spool.

A process that has seen the queue fail does not let each sender find out anew: pings go straight to the spool until
the watcher, a thread that looks once a second, finds the queue well again. The watcher also drains the spool, and looks
whether the queue really writes to disk: after one failed write beanstalkd goes on without its binlog until it is
restarted, and answers as ever. What it took since the last look is then spooled as well, and nothing more is put until
a probe has been seen on disk.
"""

from __future__ import annotations

import threading
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from glassq.errors import JobNotFound, JobTooBig, NotDurable, QueueError, QueueRefused, SpoolError
from glassq.log import fields, logger
from glassq.queues.beanstalk.protocol import DRAINING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from glassq.intake.enqueue import Enqueue
    from glassq.intake.spool import Spool
    from glassq.queues import ServerStats

log = logger("glassq.intake")

# How often the watcher looks, in seconds.
WATCH = 1.0
# The spool is drained for so long before the watcher looks again, in seconds.
SLICE = 2.0
# Of the jobs put last so many are looked for, until there is one that no consumer has finished yet.
SAMPLE = 8
_VOLATILE = "beanstalkd keeps jobs in memory only: its binlog failed; mend the disk and restart it"


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether a ping would be taken now, and how.

    `trouble` is what is wrong with the queue, "" for nothing; `volatile`: it is that it does not write to disk.
    """

    ready: bool
    trouble: str
    volatile: bool


class Safekeeping:
    """The way from a checked ping to disk, for all threads of one process."""

    def __init__(
        self, enqueue: Enqueue, spool: Spool, *, require_durable: bool, spooling: Callable[[bool], None]
    ) -> None:
        """`spooling` is told whether pings go into the spool now: when they begin to, and at every look."""
        self._enqueue = enqueue
        self._spool = spool
        self._require_durable = require_durable
        self._spooling = spooling
        #: why the queue is not used now; "" while it is
        self._trouble = ""
        self._volatile = False
        self._last: ServerStats | None = None
        #: what the queue has taken since it last proved that it writes to disk: (job id, delivery id, job)
        self._unproven: deque[tuple[int, str, bytes]] = deque()
        self._noticing = threading.Lock()
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
                job_id = self._enqueue.put(job)
                if self._require_durable:
                    self._unproven.append((job_id, delivery_id, job))
                return "queue"
            except JobTooBig as error:
                # this one alone: the queue is well
                log.error("a delivery goes to the spool %s", fields(delivery=delivery_id, why=error))
            except QueueError as error:
                self._give_up_on_queue(error)
        try:
            self._spool.write(delivery_id, job)
        except SpoolError as error:
            log.error("not kept %s", fields(delivery=delivery_id, queue=self._trouble, spool=error))
            raise QueueRefused(str(error)) from None
        return "spool"

    def readiness(self, *, ask: bool = True) -> Readiness:
        """What would become of a ping now. Asks the queue if nothing is known against it, and that is wanted."""
        if ask and not self._trouble:
            try:
                self._ask()
            except QueueError as error:
                self._give_up_on_queue(error)
        ready = True
        if self._trouble:
            try:
                self._spool.check_room(1 << 16)
            except SpoolError:
                ready = False
        return Readiness(ready, self._trouble, self._volatile)

    def look(self) -> None:
        """What the watcher does each time: is the queue well, and is there anything to drain?"""
        try:
            self._check()
            # first what lies in the spool: where that is not taken, the queue is not well, whatever it said
            self._drain()
        except QueueError as error:
            self._give_up_on_queue(error)
            return
        if self._trouble:
            log.warning("the queue takes deliveries again")
            self._trouble, self._volatile = "", False
        self._spooling(False)

    def _drain(self) -> None:
        try:
            if self._spool.empty():
                return
            drained = self._spool.drain(self._put_proven, seconds=SLICE)
        except SpoolError as error:
            log.error("spool not drained %s", fields(why=error))
            return
        if drained:
            log.warning("spool drained %s", fields(deliveries=drained))

    def _watch(self) -> None:
        while not self._over.wait(WATCH):
            try:
                self.look()
            except Exception:
                # whatever it is, the next second may be better; without a watcher the spool would never drain
                log.exception("bug in the spool's watcher")

    def _ask(self) -> ServerStats:
        """What the server says of itself. Raises QueueError where it says that it would not keep a delivery durably."""
        now = self._enqueue.stats()
        if now.draining:
            raise QueueRefused(DRAINING)
        if self._require_durable and not now.durable:
            raise NotDurable("beanstalkd writes nothing to disk: start it with -b DIRECTORY -f0")
        return now

    def _check(self) -> None:
        """Raises QueueError where the queue would not keep a delivery durably, whatever it says. For the watcher."""
        before, now = self._last, self._ask()
        self._last = now
        # counters alone prove nothing: puts that were refused count too, and a restarted server begins at 0
        stands_still = before is not None and now.puts > before.puts and now.records == before.records
        # what failed once is believed only when it has been seen to work, for the server says INSERTED all the time
        if (self._trouble or stands_still) and self._enqueue.probe().file == 0 and self._require_durable:
            raise NotDurable(_VOLATILE)
        taken = list(self._unproven)
        if not self._on_disk(job_id for job_id, _, _ in islice(reversed(taken), SAMPLE)):
            raise NotDurable(_VOLATILE)
        for proven in taken:
            # a request's thread that hears of trouble takes them as well
            with suppress(ValueError):
                self._unproven.remove(proven)

    def _on_disk(self, job_ids: Iterable[int]) -> bool:
        """Whether the first that is still there is on disk; so they are where consumers have finished them all."""
        for job_id in job_ids:
            with suppress(JobNotFound):
                return self._enqueue.stats_job(job_id).file > 0
        return True

    def _put_proven(self, job: bytes) -> None:
        """A put out of the spool: only what is seen on disk may leave it. Raises QueueError."""
        job_id = self._enqueue.put(job)
        if self._require_durable and not self._on_disk([job_id]):
            raise NotDurable(_VOLATILE)

    def _keep_unproven(self) -> None:
        """What the queue may have in memory only goes to the spool as well: worked twice rather than not at all."""
        # several threads may hear of the trouble at once
        with suppress(IndexError):
            while True:
                _, delivery_id, job = self._unproven.popleft()
                try:
                    self._spool.write(delivery_id, job)
                except SpoolError as error:
                    log.critical("acknowledged, and perhaps in memory only %s", fields(delivery=delivery_id, why=error))

    def _give_up_on_queue(self, error: QueueError) -> None:
        # every thread with a ping under way notices at the same moment; one of them says so
        with self._noticing:
            first = not self._trouble
            self._trouble, self._volatile = str(error), isinstance(error, NotDurable)
            self._spooling(True)
        if first:
            log.error("the queue takes no deliveries: they go to the spool %s", fields(why=error))
        if self._volatile:
            self._keep_unproven()
