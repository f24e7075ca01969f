"""Looks once a second whether the queue is well, and moves on into it what lies in the journal."""

from __future__ import annotations

import threading
import time
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING

from glassq.errors import JournalError, NotDurable, QueueError
from glassq.log import fields, logger
from glassq.queues.packets import PacketMover, confirm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from glassq.bodies.waiting import WaitingBodies
    from glassq.intake.state import IntakeState
    from glassq.intake.tubes import PingTubes
    from glassq.journal import Journal, JournalRecord
    from glassq.queues import Producer
    from glassq.queues.base import Receipt

log = logger("glassq.intake")

# How often the watcher looks, in seconds.
WATCH = 1.0
# The queue's time for an answer or a late proof, in seconds: what it has for a batch of pings.
PROBE_BUDGET = 0.5
# A packet out of the journal may take longer, in seconds: nobody waits for it.
MOVE_BUDGET = 5.0
# Deliveries are moved on for so long before the watcher looks again, in seconds.
SLICE = 2.0
# Room that the journal must have for a ping to be promised that it takes one, in bytes.
ROOM = 1 << 16


class Watcher:
    """A thread of its own, in each process that takes pings."""

    def __init__(
        self,
        producer: Producer,
        journal: Journal,
        state: IntakeState,
        tubes: PingTubes,
        tend: Callable[[], None] = lambda: None,
        bodies: WaitingBodies | None = None,
    ) -> None:
        """`tubes` are those that pings go into. `tend` is called at each look of the thread.

        `bodies` are stored before their deliveries move on.
        """
        self._put = self._put_packet if bodies is None else bodies.first(self._put_packet)
        self._producer = producer
        self._journal = journal
        self._state = state
        self._tubes = tubes
        self._tend = tend
        #: what the queue has taken and did not prove in time; it is held in the journal
        self._late: deque[Receipt] = deque()
        #: why the journal could not be moved on; it is logged once
        self._stuck = ""
        self._over = threading.Event()
        self._mover = PacketMover(producer, within=MOVE_BUDGET)
        self._thread = threading.Thread(target=self._run, name="watcher", daemon=True)

    def start(self) -> None:
        """Starts the thread. Call it after the fork."""
        self._thread.start()

    def stop(self, wait: float) -> None:
        """Ends the thread after what it is doing; waits for that, up to this number of seconds.

        What the queue has proven by then is taken out of the journal: nobody else could.
        """
        self._over.set()
        if self._thread.is_alive():
            self._thread.join(wait)
        if not self._thread.is_alive():
            with suppress(QueueError):
                self._settle_late()

    def await_proof(self, receipts: Iterable[Receipt]) -> None:
        """The queue has taken these and did not prove them in time; the journal holds them."""
        self._late.extend(receipts)

    def ask(self) -> None:
        """Asks queue and journal one cheap question each, unless trouble is known."""
        self.look_at_journal()
        if not self._state.queue_trouble:
            try:
                self._producer.check(within=PROBE_BUDGET)
            except QueueError as error:
                self._state.queue_fails(error)

    def look_at_journal(self) -> None:
        """Asks whether the journal has room."""
        try:
            self._journal.check_room(ROOM)
        except JournalError as error:
            self._state.journal_fails(error)
        else:
            self._state.journal_is_well()

    def look(self) -> None:
        """What the thread does each time."""
        self.look_at_journal()
        try:
            self._producer.check(within=PROBE_BUDGET)
            self._settle_late()
            # The journal comes first: where the queue does not take that, it is not well, whatever it said.
            self._move_on()
        except QueueError as error:
            self._state.queue_fails(error)
        else:
            self._state.queue_is_well()

    def _run(self) -> None:
        while not self._over.wait(WATCH):
            try:
                self._tend()
                self.look()
            except Exception:
                # Whatever it is, the next second may be better; without a watcher the journal would never be empty.
                log.exception("bug in the intake's watcher")

    def _settle_late(self) -> None:
        """Takes out of the journal what is proven by now. Raises QueueError if the queue still does not say."""
        late = [self._late.popleft() for _ in range(len(self._late))]
        keys = [receipt.key for receipt in late]
        try:
            confirm(self._producer, late, time.monotonic() + PROBE_BUDGET)
        except NotDurable:
            # the queue has lost them, or may have: they are put again
            self._journal.release(keys)
        except QueueError:
            self._late.extendleft(reversed(late))
            raise
        else:
            self._journal.retire(keys)

    def _move_on(self) -> None:
        try:
            moved = self._journal.move_on(self._put, seconds=SLICE)
        except JournalError as error:
            if str(error) != self._stuck:
                log.error("the journal cannot be moved on %s", fields(why=error))
            self._stuck = str(error)
            return
        self._stuck = ""
        if moved:
            log.warning("moved on from the journal into the queue %s", fields(deliveries=moved))

    def _put_packet(self, records: Sequence[JournalRecord]) -> Mapping[str, QueueError]:
        """Puts what comes out of the journal, which keeps what this returns, or sets that aside."""
        return self._mover.put(self._tubes.jobs(records))
