"""Keeps a delivery durably, one way or the other: in the queue, else in the spool.

A process that has seen the queue fail does not let each sender find out anew: pings go straight to the spool until the
watcher finds the queue well again. The watcher is a thread that looks once a second. It also drains the spool, and has
the queue prove that it keeps what it took: an engine may go on in memory only after a failed write, and answer as
before. What it took since its last proof is then spooled as well, and nothing more is put until a new proof.
"""

from __future__ import annotations

import threading
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from glassq.errors import JobTooBig, NotDurable, QueueError, QueueRefused, SpoolError
from glassq.log import fields, logger
from glassq.queues.base import NewJob, Receipt, Refusal

if TYPE_CHECKING:
    from collections.abc import Callable

    from glassq.intake.spool import Spool
    from glassq.queues import Producer

log = logger("glassq.intake")

# A sender has its answer within 5 s, whatever the queue does. The queue has this much of it, the spool has the rest.
BUDGET = 4.5
# How often the watcher looks, in seconds.
WATCH = 1.0
# The spool is drained for so long before the watcher looks again, in seconds.
SLICE = 2.0


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether a ping would be taken now, and how.

    `trouble` is what is wrong with the queue, "" for nothing; `volatile`: it keeps jobs in memory only.
    """

    ready: bool
    trouble: str
    volatile: bool


class DurableStore:
    """Takes checked pings to disk, for all threads of one process."""

    def __init__(
        self, producer: Producer, spool: Spool, *, tube: str, require_durable: bool, spooling: Callable[[bool], None]
    ) -> None:
        """`tube` is where pings go. `spooling` is told whether they go into the spool now, at each change and look."""
        self._producer = producer
        self._spool = spool
        self._tube = tube
        self._require_durable = require_durable
        self._spooling = spooling
        #: why the queue is not used now; "" while it is
        self._trouble = ""
        self._volatile = False
        #: what the queue has taken since it last proved that it keeps it
        self._unproven: deque[tuple[Receipt, bytes]] = deque()
        self._state_lock = threading.Lock()
        self._over = threading.Event()

    def start(self) -> None:
        """Starts the watcher. Call it after the fork."""
        threading.Thread(target=self._watch, name="watcher", daemon=True).start()

    def stop(self) -> None:
        """Ends the watcher after what it is doing."""
        self._over.set()

    def store(self, delivery_id: str, body: bytes) -> str:
        """Returns where the delivery lies durably now: "queue" or "spool".

        Raises QueueError where neither takes it, within 5 s.
        """
        if not self._trouble and self._put(delivery_id, body):
            return "queue"
        try:
            self._spool.write(delivery_id, body)
        except SpoolError as error:
            log.error("not kept %s", fields(delivery=delivery_id, queue=self._trouble, spool=error))
            raise QueueRefused(str(error)) from None
        return "spool"

    def readiness(self, *, ask: bool = True) -> Readiness:
        """What would become of a ping now. Asks the queue if nothing is known against it, and that is wanted."""
        if ask and not self._trouble:
            try:
                self._producer.check(within=BUDGET)
            except QueueError as error:
                self._mark_queue_down(error)
        ready = True
        if self._trouble:
            try:
                self._spool.check_room(1 << 16)
            except SpoolError:
                ready = False
        return Readiness(ready, self._trouble, self._volatile)

    def look(self) -> None:
        """What the watcher does each time: it checks the queue, and drains the spool."""
        try:
            self._check()
            # The spool comes first: where the queue does not take that, it is not well, whatever it said.
            self._drain()
        except QueueError as error:
            self._mark_queue_down(error)
            return
        if self._trouble:
            log.warning("the queue takes deliveries again")
            self._trouble, self._volatile = "", False
        self._spooling(False)

    def _put(self, delivery_id: str, body: bytes) -> bool:
        """Whether the queue has taken it."""
        (answer,) = self._producer.put([NewJob(delivery_id, body, self._tube)], within=BUDGET, again=True)
        if isinstance(answer, Receipt):
            if self._require_durable:
                self._unproven.append((answer, body))
            return True
        if isinstance(answer.error, JobTooBig):
            # This one alone: the queue is well.
            log.error("a delivery goes to the spool %s", fields(delivery=delivery_id, why=answer.error))
        else:
            self._mark_queue_down(answer.error)
        return False

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
                # Whatever it is, the next second may be better; without a watcher the spool would never drain.
                log.exception("bug in the spool's watcher")

    def _check(self) -> None:
        """Raises QueueError where the queue would not keep a delivery durably, whatever it says."""
        self._producer.check(within=BUDGET, thorough=True)
        taken = list(self._unproven)
        self._producer.confirm([receipt for receipt, _ in taken], within=BUDGET)
        for proven in taken:
            # A request's thread that hears of trouble removes them as well.
            with suppress(ValueError):
                self._unproven.remove(proven)

    def _put_proven(self, delivery_id: str, body: bytes) -> None:
        """Puts what comes out of the spool, which keeps its copy until this returns. Raises QueueError."""
        (answer,) = self._producer.put([NewJob(delivery_id, body, self._tube)], within=BUDGET, again=True)
        if isinstance(answer, Refusal):
            raise answer.error
        self._producer.confirm([answer], within=BUDGET)

    def _spool_unproven(self) -> None:
        """Spools as well what the queue may have in memory only: worked twice rather than not at all."""
        # Several threads may hear of the trouble at once.
        with suppress(IndexError):
            while True:
                receipt, body = self._unproven.popleft()
                try:
                    self._spool.write(receipt.key, body)
                except SpoolError as error:
                    log.critical("acknowledged, and perhaps in memory only %s", fields(delivery=receipt.key, why=error))

    def _mark_queue_down(self, error: QueueError) -> None:
        # Every thread with a ping under way notices at the same moment; one of them logs it.
        with self._state_lock:
            first = not self._trouble
            self._trouble, self._volatile = str(error), isinstance(error, NotDurable)
            self._spooling(True)
        if first:
            log.error("the queue takes no deliveries: they go to the spool %s", fields(why=error))
        if self._volatile:
            self._spool_unproven()
