"""Counts what lies buried, and keeps the count up to date: one thread, paced, so that workers never feel it.

The first walk looks at every buried job. From then on the queue's counts say where something has changed:

- more are buried than are known: the ledger names the new ones; else those with later references are looked at;
- fewer are: the known ones are asked, a batch at a time, whether they are still buried;
- if that does not explain the counts, all is walked through once more.
"""

from __future__ import annotations

import time
from array import array
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from glassq.errors import LedgerError, QueueRefused, SearchIncomplete, SettingsError, Stopped
from glassq.log import logger
from glassq.operations.bulk import digest_of
from glassq.operations.census_table import BuriedKinds, CensusTable, Choice, RefIndex
from glassq.operations.census_view import CensusView, grouped
from glassq.operations.find import BURIED, buried_by_ledger, found_in, is_ours, require_lists
from glassq.operations.novelty import new_since
from glassq.operations.stopping import Pacer
from glassq.operations.watcher import QueueWatcher

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from glassq.operations import Operations
    from glassq.operations.census_table import CensusEntry
    from glassq.queues.base import Inspector, Job, TubeCounts

log = logger("glassq.operations")

# So many of the newest are kept, of about 64 bytes each.
MAX_ENTRIES = 200_000
# How long it may work at one look, in seconds: a tenth of the time between two (watcher.EVERY).
WORK = 0.5
# The first walk may work half of the time, where others leave the processors free: until it is over, nobody knows what
# lies buried.
SHARE, FIRST_SHARE = 0.1, 0.5
# Between two walks, in seconds; and between two views while a walk goes on.
WALK_EVERY, SHOW_EVERY = 60.0, 2.0
# Groups are made anew as time passes, even if nothing has changed, in seconds.
STALE = 30.0
# So many jobs are asked at once.
BATCH = 500
# So many of the known ones are asked at each look, in turn.
TURN = 200
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
        self._table = CensusTable()
        # how many were seen so far, each time anew
        self._seen = 0
        # how many are known in each tube, and how many more there are than are kept; the rows that may be gone by now
        self._known: Counter[str] = Counter()
        self._beyond: Counter[str] = Counter()
        self._suspects = array("I")
        self._left: list[str] = []
        # the row above those that are asked next, in turn; and how many jobs came and went, by tube
        self._turn = 0
        self._moves: dict[str, tuple[int | None, int | None]] = {}
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
        ours = self._ours(queue)
        counts, moved = _buried(ours), self._moved(ours)
        if self._walked is None:
            self._walk(queue, FIRST_SHARE)
            counts = self._counts(queue)
        deadline = time.monotonic() + WORK
        self._drop_left(queue)
        if moved and not self._metered and not self._wrong(counts):
            self._drop_in_turn(queue)
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
        return _buried(self._ours(queue))

    def _ours(self, queue: Inspector) -> list[TubeCounts]:
        return [counts for counts in queue.counts(states=BURIED) if is_ours(self._operations.tube, counts.name)]

    def _moved(self, tubes: Iterable[TubeCounts]) -> bool:
        """Whether any job came or went since the last look; where the engine does not count them, perhaps."""
        before, self._moves = self._moves, {tube.name: (tube.total, tube.deleted) for tube in tubes}
        return before != self._moves or any(total is None for total, _ in self._moves.values())

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
        named = dict.fromkeys(entry.job for entry in found if queue.is_ref(entry.job))
        known = self._table.rows_of(named)
        refs = [ref for ref in named if ref not in known]
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
            found.extend(map(self._entry, jobs))
        known = self._table.rows_of(entry.ref for entry in found)
        for entry in reversed(found):
            if entry.ref not in known:
                self._add(entry)
        self._mark = mark

    def _add(self, entry: CensusEntry) -> None:
        self._seen += 1
        self._table.append(entry, self._seen)
        self._known[entry.tube] += 1
        self._changed = True
        if self._table.count > self._limit:
            oldest = next(row for row in range(self._table.begin, len(self._table)) if self._table.is_there(row))
            self._beyond[self._table.kind(oldest).tube] += 1
            self._forget([oldest])
            self._table.begin = oldest + 1

    def _forget(self, rows: Iterable[int]) -> None:
        for row in rows:
            if self._table.is_there(row):
                self._known[self._table.forget(row).tube] -= 1
                self._changed = True

    def _entry(self, job: Job) -> CensusEntry:
        return self._kinds.entry(found_in(self._operations, job), self._operations.clock().timestamp())

    # -- what has gone -------------------------------------------------------------------------------------------------

    def _drop_left(self, queue: Inspector) -> None:
        refs, self._left = self._left, []
        rows = list(self._table.rows_of(refs).values())
        for done in range(0, len(rows), BATCH):
            self._drop(queue, rows[done : done + BATCH])

    def _drop_in_turn(self, queue: Inspector) -> None:
        """Asks some of the known ones, newest first, and the next ones at the next look.

        One that went just when another one came changes no count: only so the other one is missed, and looked for.
        """
        end = self._turn if self._table.begin < self._turn <= len(self._table) else len(self._table)
        self._turn = max(self._table.begin, end - TURN)
        self._drop(queue, [row for row in range(self._turn, end) if self._table.is_there(row)])

    def _drop_gone(self, queue: Inspector, counts: dict[str, int], deadline: float) -> None:
        """Asks the known ones of tubes that hold fewer, newest first, until the counts add up or the time is over."""
        tubes = self._surplus(counts)
        if not self._suspects:
            self._suspects = self._table.rows(Choice(kinds=[kind for kind in self._table.kinds if kind.tube in tubes]))
        while self._suspects and time.monotonic() < deadline:
            self._check()
            batch = [row for row in self._suspects[-BATCH:] if self._table.is_there(row)]
            del self._suspects[-BATCH:]
            self._drop(queue, batch)
        if not self._surplus(counts):
            del self._suspects[:]

    def _drop(self, queue: Inspector, rows: Sequence[int]) -> None:
        still = queue.still([self._table.ref(row) for row in rows], "buried")
        self._forget(row for row, there in zip(rows, still, strict=True) if not there)

    # -- all of it -----------------------------------------------------------------------------------------------------

    def _walk(self, queue: Inspector, share: float) -> None:
        """Looks at every buried job. What is known already is not read again."""
        began = time.monotonic()
        self._asked = self._operations.clock()
        with suppress(QueueRefused):
            self._mark = queue.newest()
        counts = self._counts(queue)
        table = CensusTable(min(self._limit, sum(counts.values())))
        for entry, seen in self._found(queue, counts, share):
            table.put_before(entry, seen)
            if self._walked is None and table.count % BATCH == 1:
                self._show_first(counts, table)
            if not table.begin:
                break
        whole = table.count == self._limit
        self._table, self._suspects, self._changed = table, array("I"), True
        self._kinds.keep(table.kinds)
        self._known = Counter()
        for kind, tally in table.tallies(Choice(), self._asked, self._asked).items():
            self._known[kind.tube] += tally.count
        self._beyond = Counter(counts) - self._known if whole else Counter()
        self._walked = time.monotonic()
        self._may_walk = self._walked + max(WALK_EVERY, (self._walked - began) / SHARE)

    def _found(self, queue: Inspector, counts: dict[str, int], share: float) -> Iterator[tuple[CensusEntry, int]]:
        """All that is buried, newest first, and unhurried; with each when it was seen."""
        self._short = ""
        pace = self._pacer(share)
        # they cost nothing where the ledger knows them all; where few are buried, among very many, they save a search
        hints = buried_by_ledger(self._operations) if counts else []
        found = queue.find(BURIED, list(counts), hints=hints, progress=pace) if counts else ()
        # there may be very many of them
        del hints
        known = RefIndex(self._table)
        try:
            for number, job in enumerate(found, 1):
                row = known.row(job.ref)
                if row is not None and self._table.digest(row) == digest_of(job.body):
                    yield self._table.entry(row), self._table.seen(row)
                else:
                    self._seen += 1
                    yield self._entry(job), self._seen
                if number % BATCH == 0:
                    pace(number, 0)
        except SearchIncomplete as error:
            self._short = str(error)

    def _pacer(self, share: float, deadline: float = 0.0) -> Pacer:
        return Pacer(self._stopping, share, deadline, crowded=SHARE)

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
            if not self._suspects:
                self._table = self._table.tidied()
            self._publish(counts, self._table, complete=complete)
            self._changed = False
            return
        now = self._operations.clock()
        short = self._words(counts)
        self._view = replace(view, counts=counts, looked_at=now, complete=complete, short=short, trouble="")

    def _show_first(self, counts: dict[str, int], table: CensusTable) -> None:
        """What the first walk has found so far; not too often, as each time all of it is counted."""
        if time.monotonic() > self._shown + SHOW_EVERY:
            self._publish(counts, table, complete=False)

    def _publish(self, counts: dict[str, int], table: CensusTable, *, complete: bool) -> None:
        now = self._operations.clock()
        since = new_since(self._operations, now)
        tallies = table.tallies(Choice(), now, since)
        groups = tuple(grouped(tallies, "reason", now, since))
        self._view = CensusView(
            table=table,
            end=len(table),
            mark=self._seen,
            known=table.count,
            tallies=tallies,
            groups=groups,
            counts=counts,
            new_since=since,
            looked_at=now,
            complete=complete,
            short=self._words(counts),
        )
        self._shown = time.monotonic()

    def _words(self, counts: dict[str, int]) -> str:
        """Why these may not be all."""
        if self._beyond and (total := sum(counts.values())) > self._limit:
            return f"these are the newest {self._limit} of {total}: no more can be kept in memory"
        return self._short


def _buried(tubes: Iterable[TubeCounts]) -> dict[str, int]:
    return {tube.name: tube.buried for tube in tubes if tube.buried}
