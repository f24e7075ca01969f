"""From when on a failure is new: for an hour, and since the pool was started or reloaded, as a release may have it."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from glassq.errors import LedgerError, SettingsError
from glassq.ledger.activity import RELOADED, STARTED
from glassq.operations.activity import newest

if TYPE_CHECKING:
    from datetime import datetime

    from glassq.operations import Operations

# A group whose first failure is younger than this is new.
YOUNG = timedelta(hours=1)
# A start that is longer ago than this makes nothing new any more, in seconds.
DAY = 86_400.0


def new_since(operations: Operations, now: datetime) -> datetime:
    """A group is new if its first failure came at this time or later. `now` is in UTC."""
    try:
        found = [newest(operations, did=did, seconds=DAY, limit=1) for did in (STARTED, RELOADED)]
    except (LedgerError, SettingsError):
        found = []
    last = max((activity.at for activities in found for activity in activities), default=now)
    return min(now - YOUNG, last)
