"""One line of the record, and what the pool asks of whoever keeps it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime


@dataclass(frozen=True, slots=True)
class Entry:
    """What an attempt came to.

    `state` is "done", "dropped", "retrying" or "buried"; "archived" where an operator took the delivery out of the
    queue into a file, whose path is the reason then; "deleted" where one removed it for good. `attempts` counts those
    that ran; `job` is the queue's reference of the job that holds the delivery from now on ("": none does). `result` is
    what the handler returned, as text; `reason` is why it was dropped, buried or is tried again. `duration` of the
    attempt is in seconds, `started` when its handler did, `tube` where its job came from. By `fingerprint` identical
    pings are found again, by `event` those of one event of their source ("": nobody will ask).

    `body` and `labels` are the delivery's, for `glassq replay`; whoever reads entries asks for them apart. `replayed`
    is the id of the delivery that it was put again as ("": it was not).
    """

    delivery: str
    source: str
    received: datetime
    state: str
    attempts: int
    updated: datetime
    duration: float
    job: str = ""
    result: str = ""
    reason: str = ""
    started: datetime | None = None
    fingerprint: str = ""
    event: str = ""
    tube: str = ""
    body: bytes | None = field(default=None, repr=False)
    labels: Mapping[str, str] | None = field(default=None, repr=False)
    replayed: str = ""


class Ledger(Protocol):
    """Where the pool writes entries, and asks what it has done already.

    The questions are answered from what is written by then, which is a moment behind. They never raise; "" is also the
    answer where the record cannot be read.
    """

    def record(self, entry: Entry) -> None:
        """Keeps the entry, sooner or later. Never raises and never blocks the caller."""

    def done_since(self, fingerprint: str, after: datetime, *, but: str) -> str:
        """The id of a delivery with this fingerprint that succeeded, and whose handler started later than `after`.

        `but` is the delivery that asks, which does not count. "" where there is none.
        """

    def event_done(self, event: str, since: datetime, *, but: str) -> str:
        """The id of another delivery of this event that succeeded at `since` or later; "" where there is none."""

    def settle(self, patience: float) -> None:
        """Waits until what was recorded of deliveries that are not over is written, at most `patience` seconds.

        For whoever may die now: should the queue lose such a delivery, it can be put again from here. Returns at once
        while the ledger cannot be written.
        """

    def close(self) -> None:
        """Writes what is still waiting to be written, within a few seconds, or says that it could not."""
