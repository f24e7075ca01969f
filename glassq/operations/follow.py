"""The outcomes of deliveries, as they happen.

The ledger holds one line for each delivery: what it came to last. Several processes write it, each a batch at a time,
so a line may come after ones that are younger.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from glassq.causes import reason
from glassq.errors import LedgerError, SettingsError
from glassq.mask import masked_text
from glassq.operations.filters import Recorded
from glassq.operations.find import ref_of
from glassq.operations.words import moment

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from glassq.ledger import Entry
    from glassq.operations import Operations
    from glassq.operations.filters import Filter
    from glassq.operations.progress import Progress

# A writer waits for another one's batch, and clocks of hosts differ: what is younger than this is looked at again.
LATE = timedelta(seconds=10)
# Writers that were kept from the ledger for long are later still: every so many looks, what is younger than this is.
SELDOM, VERY_LATE = 20, timedelta(minutes=2)
STATES = ("done", "dropped", "retrying", "buried", "archived", "deleted")
# What the ledger can be asked.
CONDITIONS = frozenset({"error", "result", "source", "tube", "newer-than", "older-than"})
# Of so many entries, the latest, those are shown that fit.
AMONG = 20_000
# So many entries are read at once where a filter leaves some out.
_MAX_READ = 10_000


class Follower:
    """What is new in the ledger since the last look. Its database may be absent, or be moved and begun anew."""

    def __init__(
        self, operations: Operations, filter_: Filter, state: str | None, progress: Progress, *, once: bool = False
    ) -> None:
        """With `once` only `before` is called. Raises InvalidRequest where the filter asks what the ledger lacks."""
        filter_.only(CONDITIONS, "tail")
        columns = {"state": state, "source": filter_.source, "tube": filter_.tube}
        self._operations = operations
        self._filter = filter_
        self._progress = progress
        self._once = once
        self._columns = {name: value for name, value in columns.items() if value is not None}
        self._latest = datetime.fromtimestamp(0, UTC)
        # When the deliveries of the last seconds were updated, as it was shown.
        self._shown: dict[str, datetime] = {}
        self._trouble = ""
        self._looks = 0

    def before(self, count: int) -> list[Entry]:
        """The latest `count` entries that fit, oldest first; all that is there counts as shown.

        Raises LedgerError and SettingsError.
        """
        with self._operations.ledger() as ledger:
            self._note(ledger.since(limit=1))
            known = ledger.since(self._horizon(VERY_LATE), self._columns)
            # What comes between the two questions is shown now, so it is known too.
            limit = count if self._filter.conditions <= {"source", "tube"} else _MAX_READ
            last = ledger.since(None, self._columns, limit) if count else []
            self._note([*known, *last])
            self._warn(ledger.absent)
        return self._fitting(last)[-count:] if count else []

    def news(self) -> list[Entry]:
        """The entries that were not shown yet, oldest first. What keeps it from looking is said once."""
        try:
            # Opened anew each time: the path may name another file by now.
            with self._operations.ledger() as ledger:
                self._looks += 1
                horizon = self._horizon(VERY_LATE if self._looks % SELDOM == 0 else LATE)
                found = ledger.since(horizon, self._columns)
                newest = ledger.since(limit=1)
                self._warn(ledger.absent)
        except (LedgerError, SettingsError) as error:
            self._warn(str(error))
            return []
        fresh = [entry for entry in found if self._shown.get(entry.delivery) != entry.updated]
        self._note(found, newest)
        return self._fitting(fresh)

    def _fitting(self, entries: Sequence[Entry]) -> list[Entry]:
        return [entry for entry in entries if self._filter.fits(recorded(entry))]

    def _note(self, shown: list[Entry], newest: Sequence[Entry] = ()) -> None:
        """From now on these are known, and what is much older than the newest is forgotten."""
        self._latest = max([self._latest, *(entry.updated for entry in (*shown, *newest))])
        self._shown |= {entry.delivery: entry.updated for entry in shown}
        horizon = self._horizon(VERY_LATE)
        self._shown = {name: updated for name, updated in self._shown.items() if updated >= horizon}

    def _horizon(self, late: timedelta) -> datetime:
        """What was updated before this is known. The clocks of those who write may be behind ours, or ahead."""
        return min(self._latest, self._operations.clock()) - late

    def _warn(self, trouble: str) -> None:
        if trouble != self._trouble:
            waiting = trouble if self._once else f"{trouble}: waiting"
            self._progress.warn(waiting if trouble else "the ledger can be read now")
        self._trouble = trouble


def recorded(entry: Entry) -> Recorded:
    """The entry as a filter looks at it."""
    age = max(0.0, (datetime.now(UTC) - entry.received).total_seconds())
    return Recorded(entry.source, entry.tube, age, reason(entry.reason), masked_text(entry.result))


def latest(operations: Operations, columns: Mapping[str, str], count: int) -> tuple[list[Entry], str]:
    """The latest entries with these values of `state`, `source` and `tube` ("": any), the latest last.

    With them why these may not be all; "" where they are, or as many as were asked for. It looks at AMONG at most, so
    that it takes no longer as the ledger grows.
    """
    wanted = {name: value for name, value in columns.items() if value}
    try:
        with operations.ledger() as ledger:
            since = ledger.latest_since(AMONG) if wanted else None
            found, note = ledger.since(since, wanted, count), ledger.absent
    except (LedgerError, SettingsError) as error:
        return [], str(error)
    if since is not None and len(found) < count:
        note = f"these are among the latest {AMONG:,} outcomes, since {moment(since)}; a search looks further back"
    return found, note


def said(entry: Entry) -> str:
    """Why it failed, or what its handler returned; masked."""
    if entry.reason:
        return reason(entry.reason)
    return masked_text(entry.result) if entry.result else ""


def document(entry: Entry) -> dict[str, Any]:
    """The entry for JSON, masked."""
    return {
        "time": entry.updated,
        "state": entry.state,
        "delivery": entry.delivery,
        "source": entry.source,
        "tube": entry.tube,
        "received": entry.received,
        "attempts": entry.attempts,
        "duration": entry.duration,
        "job": ref_of(entry),
        "result": masked_text(entry.result),
        "reason": reason(entry.reason),
    }
