"""What lies buried: in groups by what failed, one by one, and one group."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from glassq.console.filtering import conditions, filter_of, one_of, options
from glassq.console.pages.delivery import tell
from glassq.console.request import Page
from glassq.errors import InvalidRequest, NotFound
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
    from glassq.operations.census_view import CensusView
    from glassq.operations.filters import Filter
    from glassq.operations.groups import Group
    from glassq.operations.listing import BuriedRow

# So many are listed one by one.
LIMIT = 50
# What the query may have: see docs/console.md.
PARAMS = ("group", "source", "tube", "newer", "older", "words", "page")
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
    """What the census knows, for the templates; `part` is which of the deliveries are listed."""

    total: int
    groups: tuple[GroupRow, ...]
    rows: tuple[DeliveryRow, ...]
    sources: Sequence[str]
    tubes: Sequence[str]
    trouble: str
    looked_at: datetime | None
    looked_words: str
    part: PartShown


@dataclass(frozen=True, slots=True)
class PartShown:
    """Which of those that fit are listed: from `first` to `last` of `count`. The paths lead to others ("": none)."""

    first: int = 0
    last: int = 0
    count: int = 0
    newer: str = ""
    older: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The filter as the form shows it again."""

    source: str
    tube: str
    newer: str
    older: str
    words: str
    any: bool


NOTHING = PartShown()


def buried(console: Console, request: PageRequest) -> Answer:
    """Groups, or with group=0 the newest one by one. Raises InvalidRequest."""
    params = request.params
    grouped = one_of(params, "group", ("1", "0")) == "1"
    given = {name: params.get(name, "").strip() for name in ("source", "tube", "newer", "older", "words")}
    asked = Asked(**given, any=bool(conditions(params)))
    wanted = filter_of(params)
    census = console.census.snapshot()
    if not grouped:
        found, view = _listed(console, request, census, wanted)
        values = {"view": view, "chosen": asked, "one_by_one": True}
        command = console.command(f"buried{options(params)}")
        return Page("buried.html", "Buried, one by one", found.document, {**values, "command": command})
    groups = census.grouped(wanted, "reason", wanted.tube or console.operations.tube, request.now)
    view = _view(census, request.now, groups=tuple(_group_row(console, each) for each in groups.groups))
    command = console.command(f"buried --by reason{options(params)}")
    values = {"view": view, "chosen": asked, "one_by_one": False, "command": command}
    return Page("buried.html", "Buried", groups.document, values)


def group_of(console: Console, request: PageRequest) -> Answer:
    """Leads to the group of a delivery: messages of [notify] name it so. Raises NotFound, and as `story.tell`."""
    story = tell(console, request)
    found = story.found
    if found is None or not found.is_buried:
        raise NotFound(f"{request.path['id']} is not buried (any more), so it is in no group: /d/{request.path['id']}")
    group = found.cause.id
    document = {"delivery": found.name, "group": group}
    return Page("group.html", found.cause.words, document, instead=f"/buried/{group}")


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
    part = _part(request, len(entries))
    with operations.looking() as queue:
        rows = listing.rows_of(operations, queue, [entry.ref for entry in entries[part.first - 1 : part.last]])
    total = census.buried_in(wanted.tube)
    # as the command tells it, which looks for no more than it lists
    fit = listing.known_fit(len(entries[:LIMIT]), LIMIT, total, filtered=bool(wanted), short=census.short)
    found = BuriedList(wanted.tube or operations.tube, census.tubes, total, rows, fit, census.short)
    shown = tuple(_delivery_row(row) for row in rows)
    return found, _view(census, request.now, rows=shown, part=part)


def _part(request: PageRequest, count: int) -> PartShown:
    """Which part of so many this request asks for. Raises InvalidRequest."""
    text, pages = request.params.get("page", "").strip() or "1", max(1, math.ceil(count / LIMIT))
    if not text.isascii() or not text.isdecimal() or len(text) > 9 or not int(text):
        raise InvalidRequest(f"page {text}: expected a number from 1")
    # some may have gone since the link was made
    page = min(int(text), pages)
    first, last = (page - 1) * LIMIT + 1, min(count, page * LIMIT)
    newer = _page(request, page - 1) if page > 1 else ""
    return PartShown(first, last, count, newer, _page(request, page + 1) if page < pages else "")


def _page(request: PageRequest, page: int) -> str:
    given = [(name, value) for name, value in request.params.items() if name != "page" and value]
    return f"{request.url.partition('?')[0]}?{urlencode([*given, ('page', str(page))])}"


def _view(
    census: CensusView,
    now: datetime,
    *,
    groups: tuple[GroupRow, ...] = (),
    rows: tuple[DeliveryRow, ...] = (),
    part: PartShown = NOTHING,
) -> BuriedView:
    trouble = census.trouble or census.short
    looked = _looked_words(census, now)
    tubes, sources = census.tubes, census.sources
    return BuriedView(census.total or 0, groups, rows, sources, tubes, trouble, census.looked_at, looked, part)


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
