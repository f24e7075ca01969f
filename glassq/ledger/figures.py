"""What the ledger is asked for charts and searches: each query reads the rows of a stretch of time, by their index."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

# A time is text of one width: its first 16 characters are the minute.
MINUTES = "SELECT substr(updated, 1, 16), state, count(*) FROM deliveries WHERE updated >= :since GROUP BY 1, 2"
TIMINGS = (
    "SELECT received, started, duration, attempts FROM deliveries WHERE updated >= :since AND state <> 'archived'"
    " AND state <> 'deleted' ORDER BY updated DESC"
)
CONTENTS = (
    "SELECT delivery, source, tube, state, updated, reason, result, labels, body FROM deliveries"
    " WHERE updated >= :since AND updated < :before ORDER BY updated DESC"
)
# The columns that older versions lack.
TIMINGS_NEED, CONTENTS_NEED = "started", "body"


@dataclass(frozen=True, slots=True)
class Timing:
    """When a delivery was received and its last attempt started, how long that took in seconds; `first`: it was one."""

    received: datetime
    started: datetime | None
    duration: float
    first: bool


@dataclass(frozen=True, slots=True)
class Content:
    """What of a delivery can be searched for words; body and labels are "" where they were not kept."""

    delivery: str
    source: str
    tube: str
    state: str
    updated: datetime
    reason: str
    result: str
    labels: str
    body: bytes
