"""The buried deliveries, one by one or by cause."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from glassq.mask import masked_texts
from glassq.operations.find import Search, buried_matching, found_in, tubes_of
from glassq.operations.groups import group
from glassq.operations.novelty import new_since
from glassq.queues.base import Job

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from glassq.operations import Operations
    from glassq.operations.filters import Selection
    from glassq.operations.find import Found
    from glassq.operations.groups import By, Group
    from glassq.operations.progress import Progress
    from glassq.queues.base import Inspector


@dataclass(frozen=True, slots=True)
class BuriedRow:
    """One buried job, masked. Where it is `damaged`, what only its delivery could tell is None."""

    job: str
    delivery: str | None
    tube: str
    received: datetime | None
    age: int
    source: str | None
    attempts: int | None
    reason: str
    damaged: bool
    labels: dict[str, str] | None
    error: str | None
    buried_at: datetime | None
    handler: str | None
    cause: str


@dataclass(frozen=True, slots=True)
class BuriedList:
    """The buried jobs that fit: `total` is how many are buried in these tubes, whether they fit or not.

    `fit` is how many fit; None where nobody knows: the limit ended the search, or it is `short`.
    `tube` is the one that is meant where a row does not say another. `short` says why these may not be all ("": they
    are).
    """

    tube: str
    tubes: tuple[str, ...]
    total: int
    rows: tuple[BuriedRow, ...]
    fit: int | None
    short: str = ""

    def document(self) -> dict[str, Any]:
        """The list for JSON."""
        rows = [asdict(row) for row in self.rows]
        return {"tube": self.tube, "total": self.total, "fit": self.fit, "jobs": rows}


@dataclass(frozen=True, slots=True)
class BuriedGroups:
    """The buried jobs that fit, in groups; fields as in BuriedList."""

    tube: str
    total: int
    by: By
    groups: tuple[Group, ...]
    short: str = ""

    def document(self) -> dict[str, Any]:
        """The groups for JSON."""
        groups = [each.document() for each in self.groups]
        return {"tube": self.tube, "total": self.total, "by": self.by, "groups": groups}


def buried(operations: Operations, queue: Inspector, selection: Selection, progress: Progress) -> BuriedList:
    """The buried jobs that fit, the newest first. Raises InvalidRequest, Unsupported and QueueError."""
    tubes, total = _counted(operations, queue, selection)
    search = Search(buried_matching(operations, queue, selection.filter, progress), selection.limit)
    rows = tuple(_row(found) for found in search)
    fit = known_fit(len(rows), selection.limit, total, filtered=bool(selection.filter), short=search.short)
    return BuriedList(selection.filter.tube or operations.tube, tuple(tubes), total, rows, fit, search.short)


def known_fit(seen: int, limit: int | None, total: int, *, filtered: bool, short: str) -> int | None:
    """How many fit, as far as one can tell who looked for `limit` of them, and has seen so many. See BuriedList."""
    if short or (seen == limit and total > seen):
        return None if filtered or short else total
    return seen


def rows_of(operations: Operations, queue: Inspector, refs: Sequence[str]) -> tuple[BuriedRow, ...]:
    """Those of these jobs that are buried still. Raises QueueError."""
    seen = queue.get_all(refs)
    return tuple(_row(found_in(operations, job)) for job in seen if isinstance(job, Job) and job.state == "buried")


def buried_groups(
    operations: Operations, queue: Inspector, selection: Selection, by: By, progress: Progress
) -> BuriedGroups:
    """The buried jobs that fit, by cause, handler or source; raises what `buried` raises."""
    _, total = _counted(operations, queue, selection)
    search = Search(buried_matching(operations, queue, selection.filter, progress), selection.limit)
    now = operations.clock()
    groups = tuple(group(search, by, now, new_since(operations, now)))
    return BuriedGroups(selection.filter.tube or operations.tube, total, by, groups, search.short)


def _counted(operations: Operations, queue: Inspector, selection: Selection) -> tuple[Sequence[str], int]:
    tubes = tubes_of(operations, queue, selection.filter)
    return tubes, sum(counts.buried for counts in queue.counts(tubes))


def _row(found: Found) -> BuriedRow:
    delivery = found.delivery
    return BuriedRow(
        job=found.ref,
        delivery=delivery.id if delivery else None,
        tube=found.tube,
        received=delivery.received if delivery else None,
        age=round(found.age),
        source=delivery.source if delivery else None,
        attempts=delivery.attempt if delivery else None,
        reason=found.reason,
        damaged=delivery is None,
        labels=masked_texts(delivery.labels) if delivery else None,
        error=found.error if delivery else None,
        buried_at=found.buried_at,
        handler=found.handler or None,
        cause=found.cause.id,
    )
