"""An entry of the ledger, and what the pool needs of a ledger."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from glassq.delivery import Evidence


class Entry(msgspec.Struct, frozen=True):
    """A delivery's latest outcome.

    `state` is "done", "dropped", "retrying" or "buried"; "archived" if an operator moved the delivery from the queue
    to a file, whose path is then the `reason`; "deleted" if an operator removed it for good. `attempts` counts the
    attempts that ran; `job` is the queue's reference of the job that holds the delivery now ("": none). `result` is the
    handler's return value as text; `reason` says why the delivery was dropped, buried or is retried. `duration` is the
    attempt's, in seconds; `started` is when its handler started, `tube` where its job came from. `fingerprint` is equal
    for identical pings, `event` for pings about one event of their source ("": never looked up).

    `body` and `labels` are the delivery's, for `glassq replay`, and so is `kept`: its content type, headers, and where
    its body is stored if that is not in its job. `story` says why attempts failed, of a delivery that is over or
    buried; most have none. Readers of entries leave these out. `replayed` is the id under which the delivery was put
    again ("": it was not).
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
    body: bytes | None = None
    labels: Mapping[str, str] | None = None
    replayed: str = ""
    kept: Mapping[str, object] | None = None
    story: tuple[Evidence, ...] = ()


class Ledger(Protocol):
    """Where the pool records outcomes, and looks up earlier ones.

    Lookups see what is written by then, which is a moment behind. They never raise; the answer is also "" if the ledger
    cannot be read.
    """

    def record(self, entry: Entry) -> None:
        """Takes the entry, to be written soon. Never raises and never blocks the caller."""

    def done_since(self, fingerprint: str, after: datetime, *, but: str) -> str:
        """The id of a delivery with this fingerprint that succeeded and whose handler started later than `after`.

        `but` is the asking delivery's own id, which does not count. "" if there is none.
        """

    def event_done(self, event: str, since: datetime, *, but: str) -> str:
        """The id of a delivery of this event, other than `but`, that succeeded at `since` or later, or ""."""

    def settle(self, patience: float) -> None:
        """Waits, at most `patience` seconds, until the recorded entries of open deliveries are written.

        Called before a process may die: if the queue then loses such a delivery, it can be put again from the ledger.
        Returns at once while the ledger cannot be written.
        """

    def close(self) -> None:
        """Writes the waiting entries within a few seconds, or logs how many are lost."""
