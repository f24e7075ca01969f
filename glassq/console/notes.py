"""What operators have told whoever is on call next: notes on groups."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from glassq.errors import LedgerError, SettingsError
from glassq.operations import activity

if TYPE_CHECKING:
    from glassq.ledger.activity import Activity
    from glassq.operations import Operations

# So long they are not asked for again, in seconds.
_FRESH = 5.0


class Notes:
    """The newest note of each group. Any thread may use it."""

    def __init__(self, operations: Operations) -> None:
        self._operations = operations
        self._lock = threading.Lock()
        self._notes: dict[str, Activity] = {}
        self._until = 0.0

    def on(self, cause: str) -> Activity | None:
        """The note on the group of this cause; None where there is none, or the ledger cannot be read."""
        with self._lock:
            if time.monotonic() > self._until:
                try:
                    self._notes = activity.notes(self._operations)
                except (LedgerError, SettingsError):
                    self._notes = {}
                self._until = time.monotonic() + _FRESH
            return self._notes.get(cause)

    def forget(self) -> None:
        """There is a new one."""
        with self._lock:
            self._until = 0.0
