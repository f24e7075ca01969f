"""Which deliveries `glassq replay` puts again, and why not the others."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from operator import attrgetter
from typing import TYPE_CHECKING

from glassq.cli.find import OPEN, Finder, ambiguous, checked_prefix, fate, is_job_id, place
from glassq.cli.jobs import Done, number
from glassq.cli.missing import surely_missing
from glassq.cli.told import LEFT_OUT
from glassq.errors import JobNotFound

if TYPE_CHECKING:
    import re
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

    from glassq.cli.app import App
    from glassq.ledger import Entry
    from glassq.ledger.reader import FinishedDelivery, LedgerReader
    from glassq.queues import Queue

# Finished states.
STATES = ("done", "dropped")
# Unfinished in the ledger, but absent from the queue.
LOST = "lost"
# What is done about a delivery that the queue holds, by its state there.
_IN_QUEUE = {
    "buried": "`kick` has it worked again",
    "ready": "a consumer works it next",
    "delayed": "it is tried again by itself",
    "reserved": "see what comes of it",
}


@dataclass(frozen=True, slots=True)
class Replayed(Done):
    """What became of one delivery; `replayed_as` is the new one."""

    replayed_as: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Which:
    """What is asked for; what is None or empty is not. `newer` and `older` are in seconds since it was received."""

    state: str | None
    source: str | None
    patterns: tuple[tuple[str, re.Pattern[str]], ...]
    newer: float | None
    older: float | None

    def __bool__(self) -> bool:
        return bool(self.patterns) or any(
            each is not None for each in (self.state, self.source, self.newer, self.older)
        )

    def among(self, ledger: LedgerReader, lost: Callable[[], Collection[str]]) -> Iterator[FinishedDelivery]:
        """The deliveries that fit, the oldest first; `lost()` names those that the queue has lost."""
        since, before = _ago(self.newer), _ago(self.older)
        found: Iterable[FinishedDelivery]
        if self.state == LOST:
            names = lost()
            waiting = (each for state in OPEN for each in ledger.finished(state, since=since, before=before))
            found = sorted((each for each in waiting if each.delivery in names), key=attrgetter("received"))
        else:
            found = ledger.finished(self.state or "done", since=since, before=before)
        for each in found:
            fits = all(pattern.search(getattr(each, name)) for name, pattern in self.patterns)
            if fits and self.source in (None, each.source):
                yield each


@dataclass(slots=True)
class Choice:
    """Which deliveries are put again. `done` is what came of the others."""

    app: App
    ledger: LedgerReader
    queue: Queue
    again: bool
    chosen: list[str] = field(default_factory=list)
    done: list[Done] = field(default_factory=list)
    _lost: frozenset[str] | None = None

    def by_id(self, ids: Sequence[str]) -> None:
        """These, as far as the ledger has them and their bodies. Raises click.UsageError for what is no id."""
        for text in ids:
            name, why = self._named(text)
            if why or name is None:
                self.done.append(Replayed(text, None, name, "nothing", why))
            else:
                self.chosen.append(name)
        self.chosen = list(dict.fromkeys(self.chosen))

    def by_filter(self, which: Which, limit: int | None) -> None:
        """Those that fit, `limit` at most; how many have no body is told in one line."""
        if self.ledger.absent:
            self.done.append(Done("ledger", None, None, "nothing", self.ledger.absent))
        elif not self.ledger.keeps_bodies:
            self.done.append(Done("ledger", None, None, "nothing", self._no_body()))
        bare = 0
        for each in which.among(self.ledger, self._missing):
            if each.replayed and not self.again:
                why = "replayed before (--again replays them once more)"
                self.done.append(Replayed(each.delivery, None, each.delivery, LEFT_OUT, why, each.replayed))
            elif not each.kept:
                bare += 1
            else:
                self.chosen.append(each.delivery)
                if len(self.chosen) == limit:
                    break
        if bare:
            self.done.append(Done(number(bare), None, None, "nothing", self._no_body()))

    def _named(self, text: str) -> tuple[str | None, str]:
        """The delivery of an id or prefix, and why it cannot be put again."""
        if is_job_id(text):
            return None, "a job's id, and those are given again over time: name the delivery"
        entries = self.ledger.find(checked_prefix(text))
        if not entries:
            kept = self.app.settings.ledger.retention
            return None, self.ledger.absent or f"the ledger does not know it; it keeps entries for {kept}"
        if len(entries) > 1:
            return None, ambiguous(text, [entry.delivery for entry in entries]).message
        [entry] = entries
        if entry.state == "archived":
            return entry.delivery, "it is archived: `restore` puts it back, then `kick` has it worked again"
        if entry.state not in (*STATES, *OPEN):
            return entry.delivery, fate(entry)
        if entry.state in OPEN and not entry.replayed and entry.delivery not in self._missing():
            return entry.delivery, self._in_queue(entry)
        if entry.replayed and not self.again:
            return entry.delivery, f"it was replayed before, as {entry.replayed} (--again replays it once more)"
        if self.ledger.stored_body(entry.delivery):
            return entry.delivery, ""
        why = self._no_body()
        if entry.state in OPEN:
            why = f"it is not in the queue, and {why}; `glassq delete {entry.delivery}` gives it up"
        return entry.delivery, why

    def _missing(self) -> frozenset[str]:
        """What the queue has lost."""
        if self._lost is None:
            self._lost = frozenset(each.delivery for each in surely_missing(self.app, self.queue))
        return self._lost

    def _in_queue(self, entry: Entry) -> str:
        try:
            found = Finder(self.queue, self.app.ledger).find(entry.delivery)
        except JobNotFound:
            return "it was worked or removed meanwhile"
        return f"{place(found)}: {_IN_QUEUE[found.stats.state]}"

    def _no_body(self) -> str:
        """Why there is no body."""
        if not self.app.settings.ledger.keep_bodies:
            return "its body is not kept: [ledger] keep_bodies is false"
        if not self.ledger.keeps_bodies:
            return "the ledger is of an older version, which keeps no bodies; the pool brings it to this one"
        return "its body was not kept: it was worked before glassq kept bodies, or while [ledger] keep_bodies was false"


def _ago(age: float | None) -> datetime | None:
    # a date ends with the year 1
    return None if age is None else datetime.now(UTC) - timedelta(seconds=min(age, 1e9))
