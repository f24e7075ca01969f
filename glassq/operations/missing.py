"""Deliveries that are unfinished in the ledger, but absent from the queue: what a queue has lost.

The ledger is a moment behind, and names the wrong job where an attempt ended with its process. So a delivery that is
not in the job that the ledger names is looked for again a moment later, and then among all jobs. A delivery that is
being worked is in the queue as well: its job is reserved.
"""

from __future__ import annotations

import math
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from glassq.delivery import decode
from glassq.errors import Conflict, DamagedDelivery, JobNotFound, SearchIncomplete
from glassq.operations.find import require_lists, sees_all
from glassq.queues.base import ALL_STATES

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from glassq.ledger.reader import Open
    from glassq.operations import Operations
    from glassq.operations.progress import Progress
    from glassq.queues.base import Inspector, TubeCounts

# The pool writes the ledger a moment after it has told the queue, at most LAG. The first look is earlier; in seconds.
LAG, FIRST_LOOK = 1.0, 0.1


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
    recorded = _recorded(operations, queue)
    deadline = time.monotonic() + seconds
    looked, absent = _not_at_their_jobs(queue, recorded, deadline, progress)
    if absent:
        absent = _still_after_lag(operations, queue, absent, progress)
    if not absent:
        return Missing((), looked, len(recorded), sure=True)
    wanted = {delivery.delivery: delivery for delivery in absent}
    held = looked - len(absent) if looked == len(recorded) else 0
    jobs = sum(counts.jobs for counts in queue.counts())
    sure = jobs == held or _look_everywhere(queue, wanted, deadline + LAG, progress)
    # What was worked meanwhile is no longer where it was looked for.
    left = tuple(_still(operations, queue, list(wanted.values())))
    return Missing(left, looked, len(recorded), sure)


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


def _recorded(operations: Operations, queue: Inspector) -> list[Open]:
    """Those that are unfinished; where the engine cannot show what waits, those that it would show: buried ones."""
    with operations.ledger() as ledger:
        found = ledger.open_ones()
    if sees_all(queue):
        return found
    return [each for each in found if each.state == "buried" and queue.is_ref(each.job)]


def _not_at_their_jobs(
    queue: Inspector, recorded: Sequence[Open], deadline: float, progress: Progress
) -> tuple[int, list[Open]]:
    """How many were looked at in time, and those of them that are not in the job that the ledger names."""
    absent: list[Open] = []
    for looked, delivery in enumerate(recorded):
        if time.monotonic() > deadline:
            return looked, absent
        progress.advance(looked, len(recorded), "looking for deliveries")
        if not _holds(queue, delivery):
            absent.append(delivery)
    return len(recorded), absent


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
    latest = {delivery.delivery: delivery for delivery in _recorded(operations, queue)}
    unfinished = (latest[delivery.delivery] for delivery in absent if delivery.delivery in latest)
    return [delivery for delivery in unfinished if not _holds(queue, delivery)]


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


def _holds(queue: Inspector, delivery: Open) -> bool:
    """Whether the delivery is in the job that the ledger names."""
    with suppress(JobNotFound):
        return bool(delivery.job) and _delivery_in(queue.peek(delivery.job)) == delivery.delivery
    return False


def _delivery_in(body: bytes) -> str:
    """The id of the delivery in a job's body; "" where none can be read."""
    try:
        return decode(body).id
    except DamagedDelivery:
        return ""
