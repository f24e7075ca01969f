"""One line of the record, and what the pool asks of whoever keeps it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from datetime import datetime


@dataclass(frozen=True, slots=True)
class Entry:
    """What an attempt came to.

    `state` is "done", "dropped", "retrying" or "buried". `attempts` counts those that ran; `job` is the id of the
    job that holds the delivery from now on (0: none does). `result` is what the handler returned, as text; `reason`
    is why it was dropped, buried or is tried again. `duration` of the attempt is in seconds.
    """

    delivery: str
    source: str
    received: datetime
    state: str
    attempts: int
    updated: datetime
    duration: float
    job: int = 0
    result: str = ""
    reason: str = ""


class Ledger(Protocol):
    """Where the pool writes entries."""

    def record(self, entry: Entry) -> None:
        """Keeps the entry, sooner or later. Never raises and never blocks the caller."""

    def close(self) -> None:
        """Writes what is still waiting to be written, within a few seconds, or says that it could not."""
