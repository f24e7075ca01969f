"""What one process knows about queue and journal. Each change is logged once."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from glassq.errors import JournalError, NotDurable, QueueError
from glassq.log import fields, logger

if TYPE_CHECKING:
    from collections.abc import Callable

log = logger("glassq.intake")


class IntakeState:
    """Whether queue and journal are used now; for all threads of a process."""

    def __init__(self, journaling: Callable[[bool], None], *, journal_first: bool = False) -> None:
        """`journaling` is told at each look whether the queue is in trouble, so that pings go into the journal.

        `journal_first`: they go there in any case, and into the queue later.
        """
        #: why the queue, or the journal, is not used now; "" while it is
        self.queue_trouble = self.journal_trouble = ""
        #: the queue keeps jobs in memory only
        self.volatile = False
        self.journal_first = journal_first
        self._journaling = journaling
        self._lock = threading.Lock()

    @property
    def ready(self) -> bool:
        """Whether a ping would be kept now."""
        return not (self.queue_trouble and self.journal_trouble)

    def queue_fails(self, error: QueueError) -> None:
        """The queue has not taken or not proven something."""
        # several threads may notice at the same moment; one of them logs it
        with self._lock:
            first = not self.queue_trouble
            self.queue_trouble, self.volatile = str(error), isinstance(error, NotDurable)
            self._journaling(True)
        if first:
            verb = "stay in" if self.journal_first else "go to"
            log.error("the queue takes no deliveries: they %s the journal %s", verb, fields(why=error))

    def queue_is_well(self) -> None:
        """The queue has taken and proven all that it was asked to."""
        with self._lock:
            first, self.queue_trouble, self.volatile = bool(self.queue_trouble), "", False
            self._journaling(False)
        if first:
            log.warning("the queue takes deliveries again")

    def journal_fails(self, error: JournalError) -> None:
        """The journal has not taken something, or would not."""
        with self._lock:
            first, self.journal_trouble = not self.journal_trouble, str(error)
        if first:
            left = "pings are refused" if self.queue_trouble else "pings are kept by the queue alone"
            log.error("the journal takes nothing: %s %s", left, fields(why=error))

    def journal_is_well(self) -> None:
        """The journal has room."""
        with self._lock:
            first, self.journal_trouble = bool(self.journal_trouble), ""
        if first:
            log.warning("the journal takes deliveries again")
