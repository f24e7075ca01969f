"""Keeps batches of deliveries durably, one way or the other: in the queue, else in the journal.

A batch is put into the queue in one go, and proven in one go. What has no proof within its budget goes into the
journal, and from then on everything does, at once, until the watcher has found the queue well again: no sender finds
out anew. The watcher is a thread that looks once a second. It also moves the journal's deliveries on into the queue.

Nothing is acknowledged without a proof, so there is nothing to remember beyond a batch. Only what was put, and whose
proof came too late, is not put again where the proof still comes.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from glassq.errors import JobTooBig, NotDurable, QueueError, QueueRefused, QueueUnavailable, SpoolError
from glassq.intake.spool_journal import Record
from glassq.log import fields, logger
from glassq.queues.base import NewJob, Receipt, Refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from glassq.intake.spool_journal import SpoolJournal
    from glassq.queues import Producer

log = logger("glassq.intake")

# The queue has this much time to take a batch and to prove it, in seconds. Some senders give up after a second.
BUDGET = 0.5
# A packet out of the journal may take longer: nobody waits for it.
MOVE_BUDGET = 5.0
# How often the watcher looks, in seconds.
WATCH = 1.0
# Deliveries are moved on for so long before the watcher looks again, in seconds.
SLICE = 2.0
# Room that the journal must have for a ping to be promised that it takes one, in bytes.
ROOM = 1 << 16

Place = Literal["queue", "journal"]


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether a ping would be taken now, and how.

    `trouble` is what is wrong with the queue, `journal` what is wrong with the journal, "" for nothing; `volatile`: the
    queue keeps jobs in memory only.
    """

    ready: bool
    trouble: str
    volatile: bool
    journal: str


class DurableStore:
    """Takes checked pings to disk, in one process. One thread stores; the watcher is another one."""

    def __init__(
        self,
        producer: Producer,
        journal: SpoolJournal,
        *,
        tube: str,
        acknowledge: Place = "queue",
        journaling: Callable[[bool], None],
    ) -> None:
        """`tube` is where pings go. With `acknowledge` "journal" a ping is acknowledged once it is in the journal.

        `journaling` is told whether the queue is in trouble and pings go into the journal, at each change and look.
        """
        self.tube = tube
        self._producer = producer
        self._journal = journal
        self._acknowledge = acknowledge
        self._journaling = journaling
        #: why the queue, or the journal, is not used now; "" while it is
        self._trouble = self._journal_trouble = ""
        self._volatile = False
        #: what the queue has taken, and has not proven in time: it is in the journal, too
        self._late: deque[Receipt] = deque()
        self._state_lock = threading.Lock()
        self._look_now = threading.Event()
        self._over = False

    def start(self) -> None:
        """Starts the watcher. Call it after the fork."""
        self._journal.start()
        threading.Thread(target=self._watch, name="watcher", daemon=True).start()

    def stop(self) -> None:
        """Ends the watcher after what it is doing."""
        self._over = True
        self._look_now.set()

    def store(self, batch: Sequence[NewJob]) -> list[Place | QueueError]:
        """Where each delivery lies durably now, in their order; or why it is kept nowhere."""
        in_queue = set() if self._trouble or self._acknowledge == "journal" else self._put(batch)
        rest = [job for job in batch if job.key not in in_queue]
        refused = self._write(rest) if rest else None
        return ["queue" if job.key in in_queue else refused or "journal" for job in batch]

    def readiness(self, *, ask: bool = True) -> Readiness:
        """What would become of a ping now. Asks the queue if nothing is known against it, and that is wanted."""
        if ask and not self._trouble:
            try:
                self._producer.check(within=BUDGET)
            except QueueError as error:
                self._mark_queue_down(error)
        self._check_journal()
        ready = not (self._journal_trouble and (self._trouble or self._acknowledge == "journal"))
        return Readiness(ready, self._trouble, self._volatile, self._journal_trouble)

    def look(self) -> None:
        """What the watcher does each time: it checks the queue, and moves the journal's deliveries on."""
        self._check_journal()
        try:
            self._producer.check(within=BUDGET, thorough=True)
            self._retire_late()
            # The journal comes first: where the queue does not take that, it is not well, whatever it said.
            self._move_on()
        except QueueError as error:
            self._mark_queue_down(error)
            return
        if self._trouble:
            log.warning("the queue takes deliveries again")
            self._trouble, self._volatile = "", False
        self._journaling(False)

    def _put(self, batch: Sequence[NewJob]) -> set[str]:
        """The ids of the deliveries that the queue has taken, and has proven to keep."""
        until = time.monotonic() + BUDGET
        answers = self._producer.put(batch, within=BUDGET, again=True)
        for answer in answers:
            if isinstance(answer, Receipt):
                continue
            if isinstance(answer.error, JobTooBig):
                # this one alone: the queue is well
                log.error("a delivery goes to the journal %s", fields(delivery=answer.key, why=answer.error))
            else:
                self._mark_queue_down(answer.error)
        taken = [answer for answer in answers if isinstance(answer, Receipt)]
        try:
            self._confirm(taken, until)
        except QueueError as error:
            self._mark_queue_down(error)
            if not isinstance(error, NotDurable):
                self._late.extend(taken)
            return set()
        return {receipt.key for receipt in taken}

    def _confirm(self, receipts: Sequence[Receipt], until: float) -> None:
        if not receipts:
            return
        left = until - time.monotonic()
        if left <= 0:
            raise QueueUnavailable("the queue took too long")
        self._producer.confirm(receipts, within=left)

    def _write(self, batch: Sequence[NewJob]) -> QueueError | None:
        """Writes these into the journal; None, or why none of them is kept."""
        try:
            self._journal.write([Record(job.key, job.body) for job in batch])
        except SpoolError as error:
            self._mark_journal(str(error))
            return QueueRefused(str(error))
        if self._acknowledge == "journal":
            self._look_now.set()
        return None

    def _watch(self) -> None:
        while not self._over:
            self._look_now.wait(WATCH)
            self._look_now.clear()
            try:
                self.look()
            except Exception:
                # Whatever it is, the next second may be better; without a watcher the journal would never be empty.
                log.exception("bug in the journal's watcher")

    def _retire_late(self) -> None:
        """Takes out of the journal what is in the queue, too, and proven by now."""
        late = [self._late.popleft() for _ in range(len(self._late))]
        if not late:
            return
        try:
            self._producer.confirm(late, within=BUDGET)
        except NotDurable:
            # the queue has lost them, or may have: they are put again
            return
        except QueueError:
            self._late.extendleft(reversed(late))
            raise
        self._journal.retire([receipt.key for receipt in late])

    def _move_on(self) -> None:
        try:
            moved = self._journal.move_on(self._put_proven, seconds=SLICE)
        except SpoolError as error:
            log.error("the journal cannot be moved on %s", fields(why=error))
            return
        if moved and self._acknowledge == "queue":
            log.warning("moved from the journal into the queue %s", fields(deliveries=moved))

    def _put_proven(self, records: Sequence[Record]) -> Mapping[str, QueueError]:
        """Puts what comes out of the journal, which keeps its copy until this returns; what is refused for good.

        Raises QueueError.
        """
        until = time.monotonic() + MOVE_BUDGET
        jobs = [NewJob(record.key, record.body, self.tube) for record in records]
        answers = self._producer.put(jobs, within=MOVE_BUDGET, again=True)
        refused = {answer.key: answer.error for answer in answers if isinstance(answer, Refusal)}
        for error in refused.values():
            if not isinstance(error, JobTooBig):
                raise error
        self._confirm([answer for answer in answers if isinstance(answer, Receipt)], until)
        return refused

    def _mark_queue_down(self, error: QueueError) -> None:
        # a thread beside may notice at the same moment; one of them logs it
        with self._state_lock:
            first = not self._trouble
            self._trouble, self._volatile = str(error), isinstance(error, NotDurable)
            self._journaling(True)
        if first and self._acknowledge == "queue":
            log.error("the queue takes no deliveries: they go to the journal %s", fields(why=error))
        elif first:
            log.error("the queue takes no deliveries: they stay in the journal %s", fields(why=error))

    def _check_journal(self) -> None:
        try:
            self._journal.check_room(ROOM)
        except SpoolError as error:
            self._mark_journal(str(error))
        else:
            self._mark_journal("")

    def _mark_journal(self, why: str) -> None:
        with self._state_lock:
            before, self._journal_trouble = self._journal_trouble, why
        if bool(why) == bool(before):
            return
        if why:
            left = "pings are refused" if self._trouble or self._acknowledge == "journal" else "only the queue is left"
            log.error("the journal takes nothing: %s %s", left, fields(why=why))
        else:
            log.warning("the journal takes deliveries again")
