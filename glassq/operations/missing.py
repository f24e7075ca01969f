"""Deliveries that are unfinished in the ledger, but absent from the queue: what a queue has lost.

The ledger is a moment behind, and names the wrong job where an attempt ended with its process. So a delivery that is
not in the job that the ledger names is looked for again a moment later, and then among all jobs. A delivery that is
being worked is in the queue as well: its job is reserved.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from glassq.delivery import decode
from glassq.errors import Conflict, DamagedDelivery, JobNotFound, QueueError, SearchIncomplete
from glassq.ledger.reader import Open
from glassq.operations.find import OPEN, require_lists, sees_all
from glassq.operations.pace import PACKET
from glassq.queues.base import ALL_STATES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from glassq.operations import Operations
    from glassq.operations.progress import Progress
    from glassq.queues.base import Inspector, TubeCounts

# The pool writes the ledger a moment after it has told the queue, at most LAG. The first look is earlier; in seconds.
LAG, FIRST_LOOK = 1.0, 0.1
# So many are asked for one by one; for more, the ledger is read again.
FEW = 100


@dataclass(frozen=True, slots=True)
class Missing:
    """What was not found, least recently updated first, among `looked` of `total` unfinished deliveries.

    `sure`: the whole queue was searched, so they are in no tube. Else they are not where the ledger says.
    """

    deliveries: tuple[Open, ...]
    looked: int
    total: int
    sure: bool

    def words(self) -> str:
        """The same in words; "" where nothing is missing."""
        if not self.deliveries:
            return ""
        count = len(self.deliveries)
        states = " or ".join(sorted({delivery.state for delivery in self.deliveries}))
        what = f"{count} {'delivery' if count == 1 else 'deliveries'} that the ledger has as {states}"
        verb = "is" if count == 1 else "are"
        where = "not in the queue" if self.sure else "not where the ledger says in the queue"
        short = f" ({self.looked} of {self.total} were looked for)" if self.looked < self.total else ""
        return f"{what} {verb} {where}{short}"


def may_be_missing(operations: Operations, tubes: Iterable[TubeCounts]) -> bool:
    """Whether the counts alone leave room for it: that costs next to nothing, however many jobs there are.

    A retry that is due is ready, as fresh deliveries are, and counts for nothing here. Raises LedgerError and
    SettingsError where the ledger cannot be read.
    """
    with operations.ledger() as ledger:
        recorded = ledger.open_counts()
    seen = list(tubes)
    buried, waiting = sum(tube.buried for tube in seen), sum(tube.delayed + tube.reserved for tube in seen)
    return recorded.get("buried", 0) > buried or recorded.get("retrying", 0) > waiting


def find_missing(operations: Operations, queue: Inspector, seconds: float, progress: Progress) -> Missing:
    """Looks for the unfinished deliveries, for so many seconds and LAG once they are read.

    Raises LedgerError, SettingsError for the ledger's URL, QueueError, and Stopped.
    """
    deadline = time.monotonic() + seconds
    looked, total, absent = _not_at_their_jobs(operations, queue, deadline, progress)
    if absent:
        absent = _still_after_lag(operations, queue, absent, progress)
    if not absent:
        return Missing((), looked, total, sure=True)
    wanted = {delivery.delivery: delivery for delivery in absent}
    held = looked - len(absent) if looked == total else 0
    jobs = sum(counts.jobs for counts in queue.counts())
    sure = jobs == held or _look_everywhere(queue, wanted, deadline + LAG, progress)
    # What was worked meanwhile is no longer where it was looked for.
    left = tuple(_still(operations, queue, list(wanted.values())))
    return Missing(left, looked, total, sure)


def surely_missing(operations: Operations, queue: Inspector, progress: Progress) -> tuple[Open, ...]:
    """All that the queue has lost, however long the search takes.

    Raises what `find_missing` raises, LedgerError where there is no ledger, Unsupported, and Conflict where not all
    jobs can be looked at.
    """
    with operations.ledger() as ledger:
        ledger.require()
    require_lists(queue, ALL_STATES)
    found = find_missing(operations, queue, math.inf, progress)
    if found.deliveries and not found.sure:
        raise Conflict(
            f"what the queue has lost cannot be told: while {queue.engine} takes no jobs, not all of them can be "
            "looked at"
        )
    return found.deliveries


def _recorded(operations: Operations, queue: Inspector) -> Iterator[Open]:
    """Those that are unfinished; where the engine cannot show what waits, those that it would show: buried ones.

    They are read one by one, as there may be very many.
    """
    with operations.ledger() as ledger:
        yield from (each for each in ledger.open_ones() if _would_show(queue, each.state, each.job))


def _would_show(queue: Inspector, state: str, ref: str) -> bool:
    return sees_all(queue) or (state == "buried" and queue.is_ref(ref))


def _not_at_their_jobs(
    operations: Operations, queue: Inspector, deadline: float, progress: Progress
) -> tuple[int, int, list[Open]]:
    """How many were looked at in time, of how many; and those of them that are not in the job that the ledger names."""
    with operations.ledger() as ledger:
        counts = ledger.open_counts()
    expected = sum(counts.values()) if sees_all(queue) else counts.get("buried", 0)
    absent: list[Open] = []
    looked = 0
    recorded = _recorded(operations, queue)
    # few at first: some engines take their time for each
    size = 1
    while packet := list(islice(recorded, size)):
        if time.monotonic() > deadline:
            return looked, max(expected, looked + len(packet)), absent
        progress.advance(looked, expected, "looking for deliveries")
        absent += _absent(queue, packet)
        looked += len(packet)
        size = min(2 * size, PACKET)
    return looked, looked, absent


def _still_after_lag(operations: Operations, queue: Inspector, absent: list[Open], progress: Progress) -> list[Open]:
    """Those that `_still` returns LAG from now; less and less often it is looked whether any are left."""
    over, pause = time.monotonic() + LAG, FIRST_LOOK
    while absent and (left := over - time.monotonic()) > 0:
        progress.wait(min(pause, left))
        absent = _still(operations, queue, absent)
        pause *= 2
    return absent


def _still(operations: Operations, queue: Inspector, absent: Sequence[Open]) -> list[Open]:
    """Those that the ledger still has as unfinished, and that are not in the job that it names by now."""
    names = [delivery.delivery for delivery in absent]
    if len(names) > FEW:
        wanted = frozenset(names)
        latest = {each.delivery: each for each in _recorded(operations, queue) if each.delivery in wanted}
    else:
        latest = _recorded_now(operations, queue, names)
    return _absent(queue, [latest[name] for name in names if name in latest])


def _recorded_now(operations: Operations, queue: Inspector, names: Iterable[str]) -> dict[str, Open]:
    """Those of these deliveries that are unfinished."""
    with operations.ledger() as ledger:
        entries = list(filter(None, map(ledger.exactly, names)))
    return {
        entry.delivery: Open(entry.delivery, entry.source, entry.received, entry.state, entry.job, entry.updated)
        for entry in entries
        if entry.state in OPEN and not entry.replayed and _would_show(queue, entry.state, entry.job)
    }


def _look_everywhere(queue: Inspector, wanted: dict[str, Open], deadline: float, progress: Progress) -> bool:
    """Takes out of `wanted` what some job of any tube holds; whether all jobs were looked at in time."""
    states = ALL_STATES & queue.capabilities.lists

    def advance(looked: int, total: int) -> None:
        progress.advance(looked, total, "looking at jobs")

    ids = frozenset(wanted)
    try:
        for job in queue.find(states, queue.tubes(), wanted=ids.__contains__, progress=advance):
            wanted.pop(_delivery_in(job.body), None)
            if not wanted:
                return True
            if time.monotonic() > deadline:
                return False
    except SearchIncomplete:
        return False
    return states == ALL_STATES


def _absent(queue: Inspector, deliveries: Sequence[Open]) -> list[Open]:
    """Those that are not in the jobs that the ledger names."""
    bodies = queue.peek_all([delivery.job for delivery in deliveries]) if deliveries else ()
    absent = []
    for delivery, body in zip(deliveries, bodies, strict=True):
        if isinstance(body, QueueError) and not isinstance(body, JobNotFound):
            raise body
        if isinstance(body, JobNotFound) or _delivery_in(body) != delivery.delivery:
            absent.append(delivery)
    return absent


def _delivery_in(body: bytes) -> str:
    """The id of the delivery in a job's body; "" where none can be read."""
    try:
        return decode(body).id
    except DamagedDelivery:
        return ""
