"""What becomes of deliveries once they are kicked: by the ledger, and without one by the queue."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from glassq.causes import reason
from glassq.errors import JobNotFound, LedgerError, SearchIncomplete, SettingsError
from glassq.operations.find import found_in, our_tubes, sees_all
from glassq.operations.result import FailedAgain
from glassq.queues.base import ALL_STATES

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from glassq.ledger import Entry
    from glassq.operations import Operations
    from glassq.operations.bulk import Chosen
    from glassq.operations.progress import Progress
    from glassq.queues.base import Inspector

# How long an outcome may take to be written to the ledger, and between two looks at it, in seconds.
LEDGER_LAG, BETWEEN_LOOKS = 1.5, 0.2
# What progress is told while outcomes are waited for.
FOLLOWING = "outcomes so far"
# So many failures are told one by one.
MAX_FAILURES = 3


@dataclass(slots=True)
class Outcomes:
    """What came of kicked deliveries: how many went well, by what they came to, and why the others failed again.

    `unknown` have no outcome yet. `seconds` is how long the outcomes were waited for.
    """

    good: Counter[str] = field(default_factory=Counter)
    failed: list[FailedAgain] = field(default_factory=list)
    unknown: int = 0
    seconds: float = 0.0

    @property
    def well(self) -> bool:
        """Whether all of them have an outcome, and it is a good one."""
        return not self.failed and not self.unknown

    def counts(self) -> dict[str, int]:
        """How many came to what."""
        found = {**self.good, "failed again": len(self.failed), "without outcome": self.unknown}
        return {what: count for what, count in found.items() if count}

    def words(self) -> str:
        """The same in words."""
        return ", ".join(f"{count} {what}" for what, count in self.counts().items()) or "nothing"

    def failures(self) -> str:
        """Why the first few failed again, in words that go on."""
        return "".join(f"; {failure}" for failure in self.failed[:MAX_FAILURES])


class OutcomeTracker:
    """Follows some buried deliveries that are about to be kicked: made before they are."""

    def __init__(self, operations: Operations, queue: Inspector, jobs: Sequence[Chosen]) -> None:
        """Raises QueueRefused where the queue takes no job: what fails could not be put again."""
        self._operations = operations
        self._queue = queue
        # What fails is put again, behind this mark.
        self._mark = queue.newest()
        self._names = {job.ref: job.delivery or "" for job in jobs}
        # Compared for being another one, as the clocks of hosts differ.
        self._before = {name: entry.updated for name, entry in self._entries(self._names).items()}
        self._gone: dict[str, float] = {}

    def wait(self, kicked: Mapping[str, str], patience: float, progress: Progress, told: Outcomes) -> None:
        """Adds to `told` what becomes of these jobs within so many seconds. Raises Stopped and QueueError.

        `kicked` has the reference that each of them got by that, by the one that it had.
        """
        began = time.monotonic()
        waiting = list(kicked)
        total = len(waiting)
        told.unknown += total
        while waiting:
            known = self._outcomes(waiting, kicked)
            for ref, (what, why) in known.items():
                told.unknown -= 1
                if why:
                    told.failed.append(FailedAgain(self._names[ref], ref, why))
                else:
                    told.good[what] += 1
            waiting = [ref for ref in waiting if ref not in known]
            took = told.seconds = time.monotonic() - began
            if not waiting or took > patience:
                return
            progress.advance(total - len(waiting), total, FOLLOWING)
            progress.wait(BETWEEN_LOOKS)

    def _outcomes(self, waiting: Collection[str], kicked: Mapping[str, str]) -> dict[str, tuple[str, str]]:
        """Of those that have an outcome: what it is, and why it is a failure ("": it is none)."""
        entries = self._entries(waiting)
        known, unseen = {}, []
        for ref in waiting:
            name = self._names[ref]
            entry = entries.get(name)
            if entry and entry.updated != self._before.get(name):
                good = entry.state in ("done", "dropped")
                known[ref] = (entry.state, "" if good else reason(entry.reason) or entry.state)
            elif (state := self._state(kicked[ref])) == "buried":
                known[ref] = ("buried", "it was buried again")
            elif not state:
                unseen.append(ref)
        return known | self._search([ref for ref in unseen if self._is_overdue(ref)])

    def _state(self, ref: str) -> str:
        """The job's state; "" where it is gone."""
        try:
            return self._queue.get(ref).state
        except JobNotFound:
            return ""

    def _is_overdue(self, ref: str) -> bool:
        """Whether it is gone for so long that the ledger would know of it."""
        return time.monotonic() - self._gone.setdefault(ref, time.monotonic()) > LEDGER_LAG

    def _search(self, refs: Collection[str]) -> dict[str, tuple[str, str]]:
        """Without a ledger: whatever is still in the queue was not done."""
        if not refs or not sees_all(self._queue):
            # what cannot be seen there may wait as well
            return {}
        again: dict[str, str] = {}
        tubes = our_tubes(self._operations, self._queue)
        try:
            names = frozenset(self._names[ref] for ref in refs)
            for job in self._queue.find(ALL_STATES, tubes, since=self._mark, wanted=names.__contains__):
                found = found_in(self._operations, job)
                again[found.name] = found.reason
        except SearchIncomplete:
            # Then those that were not found may be anywhere.
            return {ref: ("retrying", again[self._names[ref]]) for ref in refs if self._names[ref] in again}
        return {ref: ("done", again.get(self._names[ref], "")) for ref in refs}

    def _entries(self, refs: Collection[str]) -> dict[str, Entry]:
        """What the ledger says of their deliveries now."""
        names = [name for ref in refs if (name := self._names[ref])]
        try:
            with self._operations.ledger() as ledger:
                found = [entry for name in names if (entry := ledger.exactly(name))]
        except (LedgerError, SettingsError):
            return {}
        return {entry.delivery: entry for entry in found}
