"""What lies buried: in groups by what failed, one by one, and one group."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from glassq.console.filtering import conditions, filter_of, options
from glassq.console.request import Page
from glassq.errors import NotFound
from glassq.operations import listing
from glassq.operations.filters import parse
from glassq.operations.listing import BuriedList
from glassq.operations.words import span

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from glassq.console.console import Console
    from glassq.console.request import Answer, PageRequest
    from glassq.ledger.activity import Activity
    from glassq.operations.census_table import CensusEntry
    from glassq.operations.census_view import CensusView
    from glassq.operations.filters import Filter
    from glassq.operations.groups import Group
    from glassq.operations.listing import BuriedRow

# So many are listed one by one.
LIMIT = 50
# A look that is longer ago than this is not taken for that of now, in seconds.
OLD = 15.0
# A longer id is shortened, in characters.
_SHORT_ID = 18


@dataclass(frozen=True, slots=True)
class GroupRow:
    """A group as the page shows it; `note` is what somebody wrote for the next on call."""

    id: str
    count: int
    error: str
    frame: str
    where: str
    pattern: str
    first: datetime | None
    last: datetime | None
    new: bool
    trend: Sequence[int]
    trend_words: str
    note: Activity | None


@dataclass(frozen=True, slots=True)
class DeliveryRow:
    """A buried delivery as the page lists it; `key` is its id, or the reference of a damaged job."""

    key: str
    short: str
    damaged: bool
    user: str
    reason: str
    attempts: int | None
    buried_at: datetime | None
    received: datetime | None
    where: str


@dataclass(frozen=True, slots=True)
class BuriedView:
    """What the census knows, for the templates."""

    total: int
    groups: tuple[GroupRow, ...]
    rows: tuple[DeliveryRow, ...]
    sources: Sequence[str]
    tubes: Sequence[str]
    trouble: str
    looked_at: datetime | None
    looked_words: str
    more_words: str


@dataclass(frozen=True, slots=True)
class Asked:
    """The filter as the form shows it again."""

    source: str
    tube: str
    older: str
    words: str
    any: bool


def buried(console: Console, request: PageRequest) -> Answer:
    """Groups, or with group=0 the newest one by one. Raises InvalidRequest."""
    params = request.params
    source, tube, older, words = (params.get(name, "").strip() for name in ("source", "tube", "older", "words"))
    asked = Asked(source, tube, older, words, bool(conditions(params)))
    wanted = filter_of(params)
    census = console.census.snapshot()
    if params.get("group") == "0":
        found, view = _listed(console, request, census, wanted)
        values = {"view": view, "chosen": asked, "one_by_one": True}
        command = console.command(f"buried{options(params)}")
        return Page("buried.html", "Buried, one by one", found.document, {**values, "command": command})
    groups = census.grouped(wanted, "reason", wanted.tube or console.operations.tube, request.now)
    view = _view(census, request.now, groups=tuple(_group_row(console, each) for each in groups.groups))
    command = console.command(f"buried --by reason{options(params)}")
    values = {"view": view, "chosen": asked, "one_by_one": False, "command": command}
    return Page("buried.html", "Buried", groups.document, values)


def group(console: Console, request: PageRequest) -> Answer:
    """One group, and its newest deliveries. Raises NotFound."""
    id_ = request.path["id"].lower()
    census = console.census.snapshot()
    wanted = parse([f"cause={id_}"])
    found = census.grouped(wanted, "reason", console.operations.tube, request.now).groups
    listed, view = _listed(console, request, census, wanted)
    if not found:
        raise NotFound(_gone(census, id_))
    values = {"group": _group_row(console, found[0]), "view": view}
    command = console.command(f"buried --group {id_}")
    return Page("group.html", found[0].words, listed.document, {**values, "command": command})


def _gone(census: CensusView, id_: str) -> str:
    if census.looked_at is None:
        return f"nobody has looked yet at what lies buried: group {id_} may be among it; try again in a moment"
    return f"no buried delivery is of group {id_} (any more): they were kicked, archived or moved"


def _listed(
    console: Console, request: PageRequest, census: CensusView, wanted: Filter
) -> tuple[BuriedList, BuriedView]:
    """The newest that fit, as they are in the queue by now."""
    operations = console.operations_for(request.actor)
    entries = census.matching(wanted, request.now)
    with operations.looking() as queue:
        rows = listing.rows_of(operations, queue, [entry.ref for entry in entries[:LIMIT]])
    total = census.buried_in(wanted.tube)
    # as the command tells it, which looks for no more than it lists
    fit = listing.known_fit(min(len(entries), LIMIT), LIMIT, total, filtered=bool(wanted), short=census.short)
    found = BuriedList(wanted.tube or operations.tube, census.tubes, total, rows, fit, census.short)
    shown = tuple(_delivery_row(row) for row in rows)
    return found, _view(census, request.now, rows=shown, more=_more(entries, rows))


def _more(entries: Sequence[CensusEntry], rows: Sequence[BuriedRow]) -> str:
    left = len(entries) - min(len(entries), LIMIT)
    return f"{left:,} more are not listed; a plan for all of them holds them, too." if left and rows else ""


def _view(
    census: CensusView,
    now: datetime,
    *,
    groups: tuple[GroupRow, ...] = (),
    rows: tuple[DeliveryRow, ...] = (),
    more: str = "",
) -> BuriedView:
    trouble = census.trouble or census.short
    looked = _looked_words(census, now)
    tubes, sources = census.tubes, census.sources
    return BuriedView(census.total or 0, groups, rows, sources, tubes, trouble, census.looked_at, looked, more)


def _looked_words(census: CensusView, now: datetime) -> str:
    if census.looked_at is None:
        return "looking for the first time"
    looked = f"Looked at {census.known:,} of {census.total or 0:,}"
    ago = (now - census.looked_at).total_seconds()
    # a page that is the same is not sent again
    return looked if ago < OLD else f"{looked}, {span(ago)} ago"


def _group_row(console: Console, found: Group) -> GroupRow:
    cause = found.cause
    error = ": ".join(filter(None, (cause.error, cause.message))) or found.words
    pattern = "\n".join(filter(None, (cause.origin, cause.error, cause.message, cause.frame)))
    return GroupRow(
        id=found.id,
        count=found.count,
        error=error,
        frame=cause.frame,
        where=cause.origin or "damaged",
        pattern=pattern,
        first=found.first,
        last=found.last,
        new=found.new,
        trend=found.trend,
        trend_words=_trend_words(found.trend),
        note=console.note_on(found.id),
    )


def _trend_words(trend: Sequence[int]) -> str:
    """The bars in words: how many failed this hour, and in the day before."""
    return f"{trend[-1]} in the last hour, {sum(trend[:-1])} in the day before"


def _delivery_row(row: BuriedRow) -> DeliveryRow:
    key = row.delivery or row.job
    labels = row.labels or {}
    return DeliveryRow(
        key=key,
        short=key if len(key) <= _SHORT_ID else f"{key[:13]}…{key[-4:]}",
        damaged=row.damaged,
        user=" ".join(f"{name}={value}" for name, value in labels.items() if len(value) <= 40)[:120],
        reason=row.reason,
        attempts=row.attempts,
        buried_at=row.buried_at,
        received=row.received,
        where=row.source or row.tube,
    )
