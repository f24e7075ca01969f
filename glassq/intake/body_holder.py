"""Says in the store of bodies which of them this intake's journal and queue may name, so that nobody sweeps those who
looks into another one.
"""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING

from glassq.bodies.queue_holder import hold_queue
from glassq.errors import BodyError, JournalError
from glassq.log import fields, logger

if TYPE_CHECKING:
    from glassq.bodies import BodyStore
    from glassq.journal import Journal
    from glassq.values import QueueUrl

log = logger("glassq.intake")

# How often that is said, in seconds.
EVERY = 600.0
# A body is journaled within seconds of its last byte. This is for that, and for clocks that differ; in seconds.
MARGIN = 3600.0


class BodyHolder:
    """For one process. It is quick, but while the journal is large, and does nothing most of the time."""

    def __init__(self, store: BodyStore, journal: Journal, queue: QueueUrl) -> None:
        self._store = store
        self._journal = journal
        self._queue = queue
        self._about = f"{socket.gethostname()}: {journal.directory}"
        self._due = 0.0

    def tend(self) -> None:
        """Says it again, if that is due."""
        if time.monotonic() < self._due:
            return
        self._due = time.monotonic() + EVERY
        try:
            hold_queue(self._store, self._queue)
            # the time first: what is journaled meanwhile is younger
            now, found = time.time(), self._journal.look()
            # what was set aside may be of any age
            since = None if found.damaged or found.refused else now - found.oldest - MARGIN
            self._store.hold(self._journal.identity(), since, self._about)
        except (BodyError, JournalError) as error:
            log.warning("other hosts do not know which bodies the journal names %s", fields(why=error))
