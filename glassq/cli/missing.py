"""Deliveries that are unfinished in the ledger, but absent from the queue: what a queue has lost.

The ledger is a moment behind, and has the wrong job where an attempt ended with its process. So a delivery that is not
where the ledger says is looked for again a moment later, and then among all jobs. One that is being worked is in the
queue as well: its job is reserved.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from glassq.cli.find import ALL_STATES
from glassq.delivery import decode
from glassq.errors import DamagedDelivery, JobNotFound
from glassq.queues.beanstalk.protocol import JobStats, ScanShort

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from glassq.cli.app import App
    from glassq.ledger.reader import Open
    from glassq.queues import Queue, TubeStats

# The pool writes the ledger a moment after it has told the queue; in seconds.
LAG = 1.0


@dataclass(frozen=True, slots=True)
class Missing:
    """What was not found, oldest news first, among `looked` of `total` unfinished deliveries.

    `sure`: all of the queue was looked through, so they are in no tube. Else they are not where the ledger says.
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
        states = " or ".join(sorted({each.state for each in self.deliveries}))
        what = f"{count} {'delivery' if count == 1 else 'deliveries'} that the ledger has as {states}"
        verb = "is" if count == 1 else "are"
        where = "not in the queue" if self.sure else "not where the ledger says in the queue"
        short = f" ({self.looked} of {self.total} were looked for)" if self.looked < self.total else ""
        return f"{what} {verb} {where}{short}"


def may_be_missing(app: App, tubes: Iterable[TubeStats]) -> bool:
    """Whether the counts alone leave room for it: that costs next to nothing, however many jobs there are.

    A retry that is due is ready, as fresh deliveries are, and counts for nothing here. Raises LedgerError and
    SettingsError where the ledger cannot be read.
    """
    with app.ledger() as ledger:
        recorded = ledger.open_counts()
    seen = list(tubes)
    buried, waiting = sum(tube.buried for tube in seen), sum(tube.delayed + tube.reserved for tube in seen)
    return recorded.get("buried", 0) > buried or recorded.get("retrying", 0) > waiting


def find_missing(app: App, queue: Queue, seconds: float) -> Missing:
    """Looks for the deliveries that are not over, for so many seconds and LAG once they are read.

    Raises LedgerError, SettingsError for the ledger's URL, and QueueError.
    """
    recorded = _recorded(app)
    until = time.monotonic() + seconds
    looked, absent = _not_at_their_jobs(queue, recorded, until)
    if absent:
        time.sleep(LAG)
        absent = _still(app, queue, absent)
    if not absent:
        return Missing((), looked, len(recorded), sure=True)
    wanted = {each.delivery: each for each in absent}
    held = looked - len(absent) if looked == len(recorded) else 0
    sure = _jobs(queue) == held or _look_everywhere(queue, wanted, until + LAG)
    # what was worked meanwhile is no longer where it was looked for
    left = tuple(_still(app, queue, list(wanted.values())))
    return Missing(left, looked, len(recorded), sure)


def surely_missing(app: App, queue: Queue) -> tuple[Open, ...]:
    """All that the queue has lost, however long it takes to look. Raises what `find_missing` does, and
    click.ClickException where not all jobs can be looked at."""
    found = find_missing(app, queue, math.inf)
    if found.deliveries and not found.sure:
        raise click.ClickException(
            "what the queue has lost cannot be told: while beanstalkd takes no jobs, not all of them can be looked at"
        )
    return found.deliveries


def _recorded(app: App) -> list[Open]:
    with app.ledger() as ledger:
        return ledger.open_ones()


def _not_at_their_jobs(queue: Queue, recorded: Sequence[Open], until: float) -> tuple[int, list[Open]]:
    """How many were looked at in time, and those of them that are not in the job that the ledger names."""
    absent: list[Open] = []
    for looked, each in enumerate(recorded):
        if time.monotonic() > until:
            return looked, absent
        if not each.job or _name(queue, int(each.job)) != each.delivery:
            absent.append(each)
    return len(recorded), absent


def _still(app: App, queue: Queue, absent: Sequence[Open]) -> list[Open]:
    """Those that the ledger still has as open, and that are not in the job that it names by now."""
    news = {each.delivery: each for each in _recorded(app)}
    latest = [news[each.delivery] for each in absent if each.delivery in news]
    return [each for each in latest if not each.job or _name(queue, int(each.job)) != each.delivery]


def _look_everywhere(queue: Queue, wanted: dict[str, Open], until: float) -> bool:
    """Takes out of `wanted` what some job holds, in whatever tube; whether all jobs were looked at in time."""
    for seen in queue.scan(ALL_STATES, *queue.tubes()):
        if isinstance(seen, ScanShort):
            return False
        if isinstance(seen, JobStats):
            wanted.pop(_name(queue, seen.id), None)
        if not wanted:
            return True
        if time.monotonic() > until:
            return False
    return True


def _jobs(queue: Queue) -> int:
    """How many jobs there are, in whatever tube."""
    tubes = [queue.stats_tube(name) for name in queue.tubes()]
    return sum(tube.ready + tube.reserved + tube.delayed + tube.buried for tube in tubes)


def _name(queue: Queue, job: int) -> str:
    """The id of the delivery that a job holds; "" where there is no such job, or none can be read in it."""
    try:
        return decode(queue.peek(job).body).id
    except (JobNotFound, DamagedDelivery):
        return ""
