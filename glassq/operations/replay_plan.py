"""Which deliveries are replayed, and why the others are not."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from operator import attrgetter
from typing import TYPE_CHECKING

from glassq.errors import Ambiguous, InvalidRequest, NotFound
from glassq.operations.filters import Recorded
from glassq.operations.find import OPEN, Finder, ambiguous, checked_prefix, ledger_state
from glassq.operations.hints import argument
from glassq.operations.missing import surely_missing
from glassq.operations.result import Did, Report, Result, not_done
from glassq.operations.words import deliveries
from glassq.routes import all_routes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime

    from glassq.ledger import Entry
    from glassq.ledger.reader import FinishedDelivery, LedgerReader
    from glassq.operations import Operations
    from glassq.operations.filters import Selection
    from glassq.operations.progress import Progress
    from glassq.queues.base import Inspector
    from glassq.settings import Route

# Finished states.
STATES = ("done", "dropped")
# Unfinished in the ledger, but absent from the queue.
LOST = "lost"
# What the ledger can be asked of deliveries whose bodies it keeps.
CONDITIONS = frozenset({"error", "result", "source", "tube", "label", "handler", "newer-than", "older-than"})
# What is done about a delivery that the queue holds, by its state there.
_IN_QUEUE = {
    "buried": "`glassq kick` has it worked again",
    "ready": "a consumer works it next",
    "delayed": "it is tried again by itself",
    "reserved": "see what comes of it",
}


@dataclass(frozen=True, slots=True)
class Replayed(Result):
    """See Result; `replayed_as` is the id of the new delivery."""

    replayed_as: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayFilter:
    """What is asked for: deliveries by id, or those in this `state` (None: done) that fit the selection's filter.

    With `again` those too that were replayed before. `from_step` is the step that they begin with ("": the first).
    """

    selection: Selection
    state: str | None = None
    again: bool = False
    from_step: str = ""

    def check(self) -> None:
        """Raises InvalidRequest."""
        selection = self.selection
        if bool(selection.ids) == bool(selection.filter or self.state):
            raise InvalidRequest("expected either ids, or --state or filters (see --help)")
        if selection.ids and selection.limit:
            raise InvalidRequest("--limit goes with filters, not with ids")
        selection.filter.only(CONDITIONS, "replay")

    @property
    def typed(self) -> str:
        """What is asked for, as Selection has it."""
        if self.selection.ids:
            return self.selection.typed
        return f"state={self.state or 'done'} {self.selection.typed}".strip()

    def nothing_found_text(self) -> str:
        """What to say where there is no such delivery."""
        hint = "" if self.state else "; --state dropped looks among those that were dropped"
        return f"nothing that is {self.state or 'done'} is left to replay{hint}"


@dataclass(frozen=True, slots=True)
class ReplayPlan:
    """The ids of the deliveries that are going to be replayed, in this order; `results` are those that are not.

    With `again` it does not matter whether they were replayed before.
    """

    chosen: tuple[str, ...]
    results: tuple[Result, ...] = ()
    again: bool = False

    def preview(self) -> Report:
        """The report of a dry run."""
        planned = [Replayed(name, None, name, Did.REPLAYED, "", True) for name in self.chosen]
        return Report([*self.results, *planned])


@dataclass
class ReplayPlanner:
    """Finds out which deliveries can be replayed. It opens neither ledger nor queue."""

    operations: Operations
    ledger: LedgerReader
    queue: Inspector
    progress: Progress
    again: bool
    _chosen: list[str] = field(default_factory=list)
    _results: list[Result] = field(default_factory=list)

    def by_ids(self, ids: Iterable[str]) -> ReplayPlan:
        """Those of these ids, as far as the ledger has them and their bodies. Raises InvalidRequest."""
        for text in ids:
            name, why = self._named(text)
            if why or name is None:
                self._results.append(Replayed(text, None, name, Did.NOTHING, why))
            else:
                self._chosen.append(name)
        return self._plan()

    def by_filter(self, asked: ReplayFilter) -> ReplayPlan:
        """Those that fit, the oldest first. How many have no body is told in one line.

        Raises LedgerError where there is no ledger.
        """
        self.ledger.require()
        if not self.ledger.keeps_bodies:
            self._results.append(not_done("ledger", self._no_body()))
        without_body = 0
        for found in self._matching(asked):
            name = found.delivery
            if found.replayed and not self.again:
                why = "replayed before (--again replays them once more)"
                self._results.append(Replayed(name, None, name, Did.LEFT_OUT, why, replayed_as=found.replayed))
            elif not found.kept:
                without_body += 1
            else:
                self._chosen.append(name)
                if len(self._chosen) == asked.selection.limit:
                    break
        if without_body:
            self._results.append(not_done(deliveries(without_body), self._no_body()))
        return self._plan()

    def _plan(self) -> ReplayPlan:
        return ReplayPlan(tuple(dict.fromkeys(self._chosen)), tuple(self._results), self.again)

    def _matching(self, asked: ReplayFilter) -> Iterator[FinishedDelivery]:
        """The deliveries that fit, the oldest first."""
        filter_ = asked.selection.filter
        since, before = self._ago(filter_.newer), self._ago(filter_.older)
        found: Iterable[FinishedDelivery]
        if asked.state == LOST:
            lost = self._lost
            open_ones = (each for state in OPEN for each in self.ledger.finished(state, since=since, before=before))
            found = sorted((each for each in open_ones if each.delivery in lost), key=attrgetter("received"))
        else:
            found = self.ledger.finished(asked.state or "done", since=since, before=before)
        return (each for each in found if filter_.fits(self._recorded(each)))

    def _recorded(self, found: FinishedDelivery) -> Recorded:
        """The delivery as a filter looks at it."""
        age = max(0.0, (self.operations.clock() - found.received).total_seconds())
        routes = (route.work for route in self._routes if route.wants(found.source, found.labels))
        return Recorded(found.source, found.tube, age, found.reason, found.result, found.labels, next(routes, ""))

    @cached_property
    def _routes(self) -> tuple[Route, ...]:
        return all_routes(self.operations.settings)

    def _named(self, text: str) -> tuple[str | None, str]:
        """The delivery of an id or prefix, and why it cannot be replayed ("": it can)."""
        if self.queue.is_ref(text):
            return None, "a job's id, which the queue may use again: name the delivery by its own"
        entries = self.ledger.find(checked_prefix(text))
        if not entries:
            kept = self.operations.settings.ledger.retention
            return None, self.ledger.absent or f"the ledger does not know it; it keeps entries for {kept}"
        if len(entries) > 1:
            error = ambiguous(text, [entry.delivery for entry in entries])
            return None, "; ".join([str(error), *error.candidates])
        return entries[0].delivery, self._refusal(entries[0])

    def _refusal(self, entry: Entry) -> str:
        """Why the entry's delivery cannot be replayed; "" where it can."""
        if entry.state == "archived":
            return "it is archived: `glassq restore` puts it back, then `glassq kick` has it worked again"
        if entry.state not in (*STATES, *OPEN):
            return ledger_state(entry)
        if entry.state in OPEN and not entry.replayed and entry.delivery not in self._lost:
            return self._in_queue(entry)
        if entry.replayed and not self.again:
            return f"it was replayed before, as {entry.replayed} (--again replays it once more)"
        if self.ledger.recorded_ping(entry.delivery):
            return ""
        why = self._no_body()
        if entry.state in OPEN:
            return f"it is not in the queue, and {why}; `glassq delete {argument(entry.delivery)}` gives it up"
        return why

    @cached_property
    def _lost(self) -> frozenset[str]:
        """The deliveries that the queue has lost."""
        missing = surely_missing(self.operations, self.queue, self.progress)
        return frozenset(delivery.delivery for delivery in missing)

    def _in_queue(self, entry: Entry) -> str:
        try:
            found = Finder(self.operations, self.queue, self.progress).find(entry.delivery)
        except (Ambiguous, NotFound):
            return "it was worked or removed meanwhile"
        state = found.job.state
        words = "being worked" if state == "reserved" else state
        return f"it is in the queue, {words}, in tube {found.tube} (job {found.ref}): {_IN_QUEUE[state]}"

    def _no_body(self) -> str:
        """Why there is no body."""
        if not self.operations.settings.ledger.keep_bodies:
            return "its body is not kept: [ledger] keep_bodies is false"
        if not self.ledger.keeps_bodies:
            return "the ledger is of an older version, which keeps no bodies; the pool brings it to this one"
        return "its body was not kept: it was worked before glassq kept bodies, or while [ledger] keep_bodies was false"

    def _ago(self, age: float | None) -> datetime | None:
        # A date ends with the year 1.
        return None if age is None else self.operations.clock() - timedelta(seconds=min(age, 1e9))
