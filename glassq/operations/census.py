"""Counts what lies buried, and keeps the count up to date: one thread, paced, so that workers never feel it.

The first walk looks at every buried job. From then on the queue's counts say where something has changed:

- more are buried than are known: the ledger names the new ones; else those with later references are looked at;
- fewer are: the known ones are asked, a batch at a time, whether they are still buried;
- if that does not explain the counts, all is walked through once more.
"""

from __future__ import annotations

import time
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from glassq.errors import LedgerError, QueueRefused, SearchIncomplete, SettingsError, Stopped
from glassq.log import logger
from glassq.operations.bulk import digest_of
from glassq.operations.census_view import BuriedKinds, CensusEntry, CensusView, by_kind, grouped
from glassq.operations.find import BURIED, buried_by_ledger, found_in, is_ours, require_lists
from glassq.operations.novelty import new_since
from glassq.operations.stopping import Pacer
from glassq.operations.watcher import QueueWatcher

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from glassq.operations import Operations
    from glassq.queues.base import Inspector, Job

log = logger("glassq.operations")

# So many of the newest are kept, of about 300 bytes each.
MAX_ENTRIES = 200_000
# How long it may work at one look, in seconds: a tenth of the time between two (watcher.EVERY).
WORK = 0.5
# The first walk may work half of the time: until it is over, nobody knows what lies buried.
SHARE, FIRST_SHARE = 0.1, 0.5
# Between two walks, in seconds; and between two views while a walk goes on.
WALK_EVERY, SHOW_EVERY = 60.0, 2.0
# And not before a walk has found so many times as many.
SHOW_MORE = 1.3
# Groups are made anew as time passes, even if nothing has changed, in seconds.
STALE = 30.0
# So many jobs are asked at once.
BATCH = 500
# The ledger is written a moment late, and by clocks that differ.
LATE = timedelta(minutes=2)
MAX_NEWS = 20_000


class Census(QueueWatcher):
    """All that is buried. `start` begins its thread, `close` ends it; `snapshot` never waits."""

    def __init__(self, operations: Operations, *, limit: int = MAX_ENTRIES) -> None:
        """`limit` is how many entries are kept at most, the newest."""
        super().__init__(operations, "census")
        self._limit = limit
        self._view = CensusView()
        self._kinds = BuriedKinds()
        # oldest first, so that new ones come to the end
        self._entries: dict[str, CensusEntry] = {}
        # how many are known in each tube, and how many more there are than are kept; and all that may be gone by now
        self._known: Counter[str] = Counter()
        self._beyond: Counter[str] = Counter()
        self._suspects: list[str] = []
        self._left: list[str] = []
        self._mark = self._short = ""
        self._asked = operations.clock()
        # when the last walk began, and when the next may; when groups were made
        self._walked: float | None = None
        self._may_walk = self._shown = 0.0
        self._changed = True

    def snapshot(self) -> CensusView:
        """What is known now. Whoever asks, watches: if nobody did, it is looked anew at once."""
        if self._attention.pay():
            self._wanted.set()
        return self._view

    def left(self, refs: Iterable[str]) -> None:
        """These are perhaps not buried any more: they are asked first. For who has just kicked or archived them."""
        self._left.extend(refs)
        self._wanted.set()

    def step(self, queue: Inspector) -> None:
        """Looks once. Raises QueueError, Unsupported where the engine does not list what is buried, and Stopped."""
        require_lists(queue, BURIED)
        counts = self._counts(queue)
        if self._walked is None:
            self._walk(queue, FIRST_SHARE)
            counts = self._counts(queue)
        deadline = time.monotonic() + WORK
        self._drop_left(queue)
        if self._missing(counts):
            self._add_recorded(queue, deadline)
        if self._missing(counts):
            self._add_later(queue, deadline)
        if self._surplus(counts):
            self._drop_gone(queue, counts, deadline)
        if self._wrong(counts) and not self._suspects and time.monotonic() > self._may_walk:
            self._walk(queue, SHARE)
            counts = self._counts(queue)
        self._show(counts)

    def _cannot(self, why: str) -> None:
        self._show(trouble=why)

    def _log_bug(self) -> str:
        log.exception("the census failed")
        return "the census failed: the log of the console says why"

    # -- what the counts say -------------------------------------------------------------------------------------------

    def _counts(self, queue: Inspector) -> dict[str, int]:
        main = self._operations.tube
        found = queue.counts(states=BURIED)
        return {counts.name: counts.buried for counts in found if counts.buried and is_ours(main, counts.name)}

    def _missing(self, counts: dict[str, int]) -> bool:
        """Whether more are buried in a tube than are known of it."""
        return any(count > self._known[tube] + self._beyond[tube] for tube, count in counts.items())

    def _surplus(self, counts: dict[str, int]) -> frozenset[str]:
        """The tubes of which more are known than there are."""
        there = (tube for tube, known in self._known.items() if known)
        return frozenset(tube for tube in there if self._known[tube] + self._beyond[tube] > counts.get(tube, 0))

    def _wrong(self, counts: dict[str, int]) -> bool:
        return self._missing(counts) or bool(self._surplus(counts))

    # -- what has come -------------------------------------------------------------------------------------------------

    def _add_recorded(self, queue: Inspector, deadline: float) -> None:
        """Those that the ledger has as buried since the last look."""
        now = self._operations.clock()
        try:
            with self._operations.ledger() as ledger:
                found = ledger.since(self._asked - LATE, {"state": "buried"}, MAX_NEWS)
        except (LedgerError, SettingsError):
            return
        self._asked = now
        refs = [entry.job for entry in found if queue.is_ref(entry.job) and entry.job not in self._entries]
        pace = self._pacer(SHARE, deadline)
        for done in range(0, len(refs), BATCH):
            pace(done, len(refs))
            for job in queue.get_all(refs[done : done + BATCH]):
                if (
                    not isinstance(job, Exception)
                    and job.state == "buried"
                    and is_ours(self._operations.tube, job.tube)
                ):
                    self._add(self._entry(job))

    def _add_later(self, queue: Inspector, deadline: float) -> None:
        """Those with later references than all that was looked at."""
        try:
            mark = queue.newest()
        except QueueRefused:
            # it takes no jobs now, so there are no later ones
            return
        found: list[CensusEntry] = []
        tubes, pace = list(self._counts(queue)), self._pacer(SHARE, deadline)
        with suppress(SearchIncomplete):
            jobs = queue.find(BURIED, tubes, since=self._mark, progress=pace) if tubes else ()
            found.extend(self._entry(job) for job in jobs if job.ref not in self._entries)
        for entry in reversed(found):
            self._add(entry)
        self._mark = mark

    def _add(self, entry: CensusEntry) -> None:
        self._forget(entry.ref)
        self._entries[entry.ref] = entry
        self._known[entry.tube] += 1
        self._changed = True
        if len(self._entries) > self._limit:
            oldest = next(iter(self._entries.values()))
            self._forget(oldest.ref)
            self._beyond[oldest.tube] += 1

    def _forget(self, ref: str) -> None:
        if (entry := self._entries.pop(ref, None)) is not None:
            self._known[entry.tube] -= 1
            self._changed = True

    def _entry(self, job: Job) -> CensusEntry:
        return self._kinds.entry(found_in(self._operations, job), self._operations.clock().timestamp())

    # -- what has gone -------------------------------------------------------------------------------------------------

    def _drop_left(self, queue: Inspector) -> None:
        refs, self._left = self._left, []
        for done in range(0, len(refs), BATCH):
            self._drop(queue, [ref for ref in refs[done : done + BATCH] if ref in self._entries])

    def _drop_gone(self, queue: Inspector, counts: dict[str, int], deadline: float) -> None:
        """Asks the known ones of tubes that hold fewer, newest first, until the counts add up or the time is over."""
        tubes = self._surplus(counts)
        if not self._suspects:
            self._suspects = [entry.ref for entry in self._entries.values() if entry.tube in tubes]
        while self._suspects and time.monotonic() < deadline:
            self._check()
            batch = [ref for ref in self._suspects[-BATCH:] if ref in self._entries]
            del self._suspects[-BATCH:]
            self._drop(queue, batch)
        if not self._surplus(counts):
            self._suspects = []

    def _drop(self, queue: Inspector, refs: list[str]) -> None:
        for ref, still in zip(refs, queue.still(refs, "buried"), strict=True):
            if not still:
                self._forget(ref)

    # -- all of it -----------------------------------------------------------------------------------------------------

    def _walk(self, queue: Inspector, share: float) -> None:
        """Looks at every buried job. What is known already is not read again."""
        began = time.monotonic()
        self._asked = self._operations.clock()
        with suppress(QueueRefused):
            self._mark = queue.newest()
        counts = self._counts(queue)
        walked = []
        for entry in self._seen(queue, counts, share):
            walked.append(entry)
            if self._walked is None and len(walked) >= SHOW_MORE * len(self._view.entries):
                self._show_first(counts, walked)
            if len(walked) == self._limit:
                break
        # two of them at once would be most of what the process has
        self._entries.clear()
        self._entries.update((entry.ref, entry) for entry in reversed(walked))
        self._kinds.keep(walked)
        self._suspects, self._changed = [], True
        self._known = Counter(entry.tube for entry in walked)
        self._beyond = Counter(counts) - self._known if len(walked) == self._limit else Counter()
        self._walked = time.monotonic()
        self._may_walk = self._walked + max(WALK_EVERY, (self._walked - began) / SHARE)

    def _seen(self, queue: Inspector, counts: dict[str, int], share: float) -> Iterator[CensusEntry]:
        """The entries of all that is buried, newest first, and unhurried."""
        self._short = ""
        pace = self._pacer(share)
        # they cost nothing where the ledger knows them all; where few are buried, among very many, they save a search
        hints = buried_by_ledger(self._operations)
        found = queue.find(BURIED, list(counts), hints=hints, progress=pace) if counts else ()
        try:
            for number, job in enumerate(found, 1):
                known = self._entries.get(job.ref)
                yield known if known and known.digest == digest_of(job.body) else self._entry(job)
                if number % BATCH == 0:
                    pace(number, 0)
        except SearchIncomplete as error:
            self._short = str(error)

    def _pacer(self, share: float, deadline: float = 0.0) -> Pacer:
        return Pacer(self._stopping, share, deadline)

    def _check(self) -> None:
        if self._stopping.is_set():
            raise Stopped

    # -- what others see -----------------------------------------------------------------------------------------------

    def _show(self, counts: dict[str, int] | None = None, trouble: str = "") -> None:
        """The present state, for others; groups are made only if something has changed, or has become old."""
        view = self._view
        if counts is None:
            self._view = replace(view, trouble=trouble)
            return
        complete = not self._wrong(counts)
        if self._changed or time.monotonic() > self._shown + STALE:
            self._publish(counts, tuple(reversed(self._entries.values())), complete=complete)
            self._changed = False
            return
        now = self._operations.clock()
        short = self._words(counts)
        self._view = replace(view, counts=counts, looked_at=now, complete=complete, short=short, trouble="")

    def _show_first(self, counts: dict[str, int], walked: list[CensusEntry]) -> None:
        """What the first walk has found so far; not too often, as each time all of it is counted."""
        if time.monotonic() > self._shown + SHOW_EVERY:
            self._publish(counts, tuple(walked), complete=False)

    def _publish(self, counts: dict[str, int], entries: tuple[CensusEntry, ...], *, complete: bool) -> None:
        now = self._operations.clock()
        since = new_since(self._operations, now)
        kinds = by_kind(entries, now, since)
        groups = tuple(grouped(kinds, now, since))
        self._view = CensusView(entries, kinds, groups, counts, since, now, complete, self._words(counts))
        self._shown = time.monotonic()

    def _words(self, counts: dict[str, int]) -> str:
        """Why these may not be all."""
        if self._beyond and (total := sum(counts.values())) > self._limit:
            return f"these are the newest {self._limit} of {total}: no more can be kept in memory"
        return self._short
