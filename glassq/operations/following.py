"""Waits for what becomes of a delivery that an operator has just put: the ledger has it a moment later."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from glassq.errors import LedgerError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable

    from glassq.ledger import Entry
    from glassq.operations import Operations
    from glassq.operations.progress import Progress

# For how long, and how often it is looked at, in seconds.
FOLLOW, LOOK_EVERY = 3.0, 0.1


def follow(operations: Operations, look: Callable[[], Entry | None], progress: Progress) -> Entry | None:
    """The entry that `look` finds in the ledger; None if there is none soon, or no ledger. Raises Stopped."""
    try:
        with operations.ledger() as ledger:
            if ledger.absent:
                # no pool has ever worked here
                return None
        deadline = time.monotonic() + FOLLOW
        while time.monotonic() < deadline:
            if (found := look()) is not None:
                return found
            progress.wait(LOOK_EVERY)
    except (LedgerError, SettingsError):
        pass
    return None
