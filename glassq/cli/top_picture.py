"""What `glassq top` shows: the overview of the console, as a terminal can draw it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Group as Lines
from rich.text import Text

from glassq import __version__, host
from glassq.cli.output import facts, line, table
from glassq.operations import activity as activities
from glassq.operations.overview import Overview, overview
from glassq.operations.words import PAUSED_FOR_GOOD, span

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from rich.console import RenderableType
    from rich.table import Table

    from glassq.ledger.activity import Activity
    from glassq.operations.census_view import CensusView
    from glassq.operations.overview import TubeLine
    from glassq.operations.rates import Percentiles
    from glassq.operations.sampler import Samples
    from glassq.operations.verdict import SystemVerdict

# How many lines there are beside tubes and groups; and the fewest of these that a small window shows.
FIXED, LEAST = 14, 3
# So many activities, the newest.
MAX_ACTIVITIES = 3
_STYLES = {"wrong": "bold red", "note": "yellow", "ok": "green"}
_MARKS = {"wrong": "WRONG: ", "note": "! ", "ok": ""}
_BARS, _PLAIN_BARS = " ▁▂▃▄▅▆▇█", " .:-=+*#@"
# So many bars a chart has.
_WIDE = 60


@dataclass(frozen=True, slots=True)
class Glimpse:
    """All that is known at `now`."""

    now: datetime
    samples: Samples
    census: CensusView
    verdict: SystemVerdict | None
    done: Sequence[Activity] = ()


def picture(seen: Glimpse, adapt: Callable[[str], str], *, height: int, bars: bool) -> RenderableType:
    """The picture, in about `height` lines. `bars`: the terminal can show blocks."""
    view = overview(seen.samples, seen.now)
    room = max(2 * LEAST, height - FIXED)
    of_tubes = max(LEAST, min(len(view.tubes), room - LEAST))
    parts: list[RenderableType] = [_title(seen), _verdict(seen, adapt), Text(""), facts(_facts(view, seen, bars))]
    parts += [Text(""), _tubes(view.tubes, of_tubes)]
    if seen.census.total or seen.census.groups:
        parts += [Text(""), *_groups(seen.census, seen.now, max(LEAST, room - of_tubes))]
    if seen.done:
        parts += [Text(""), *map(_activity, seen.done[:MAX_ACTIVITIES])]
    return Lines(*parts)


def _title(seen: Glimpse) -> Text:
    return Text(f"glassq {__version__} on {line(host.name())}   {seen.now:%Y-%m-%d %H:%M:%S} UTC", style="dim")


def _verdict(seen: Glimpse, adapt: Callable[[str], str]) -> Text:
    if seen.verdict is None:
        return Text("looking ...", style="dim")
    level = seen.verdict.level
    return Text(f"{_MARKS[level]}{line(adapt(seen.verdict.words))}", style=_STYLES[level])


def _facts(view: Overview, seen: Glimpse, bars: bool) -> list[tuple[str, object]]:
    children = "" if view.children is None else f" of {view.children}"
    counts = f"{view.waiting:,} waiting, {view.working:,}{children} working, {view.retrying:,} delayed"
    disk = {True: "yes", False: "NO", None: "?"}[view.on_disk]
    rows: list[tuple[str, object]] = [
        ("now", f"{counts}, {view.buried:,} buried; on disk: {disk}"),
        ("empty", f"{view.empties.words}   {_pace(view)}"),
        ("last 15 min", f"waited {_times(seen.samples.waited)}   worked {_times(seen.samples.worked)}"),
    ]
    if view.minutes:
        done = [minute.done for minute in view.minutes]
        failed = [minute.failed + minute.buried for minute in view.minutes]
        rows += [("done in 1 h", _chart(done, bars)), ("failed in 1 h", _chart(failed, bars))]
    elif seen.samples.note:
        rows.append(("ledger", seen.samples.note))
    if view.journal:
        rows.append(("journal", view.journal))
    return rows


def _pace(view: Overview) -> str:
    known = [
        f"{name} {number:,.0f}/min"
        for name, number in (("in", view.incoming), ("done", view.done))
        if number is not None
    ]
    return f"({', '.join(known)}; last 5 min)" if known else ""


def _times(found: Percentiles) -> str:
    if found.p50 is None or found.p95 is None:
        return "-"
    return f"p50 {span(found.p50)}, p95 {span(found.p95)}"


def _chart(numbers: Sequence[int], bars: bool) -> str:
    """A bar for each number, and the largest."""
    shown, blocks = numbers[-_WIDE:], _BARS if bars else _PLAIN_BARS
    most = max(shown, default=0)
    steps = len(blocks) - 1
    drawn = "".join(blocks[-(-number * steps // most)] if most else blocks[0] for number in shown)
    return f"|{drawn}| at most {most:,}/min" if most else "none"


def _tubes(tubes: Sequence[TubeLine], most: int) -> Table:
    columns = ("tube", "ready", "working", "delayed", "buried", "oldest", "empty", "paused")
    return table("", columns, [_tube(tube) for tube in tubes[:most]])


def _tube(tube: TubeLine) -> tuple[object, ...]:
    counts = tube.counts
    oldest = "-" if tube.oldest is None else span(tube.oldest)
    left = counts.paused_for
    paused = "paused" if left >= PAUSED_FOR_GOOD else span(left) if left else "-"
    return (
        tube.label,
        f"{counts.ready:,}",
        f"{counts.reserved:,}",
        f"{counts.delayed:,}",
        f"{counts.buried:,}",
        oldest,
        tube.empties.words,
        paused,
    )


def _groups(census: CensusView, now: datetime, most: int) -> list[RenderableType]:
    rows = [
        (
            f"{group.count:,}",
            "NEW" if group.new else "",
            _ago(group.last, now),
            group.id,
            group.words[:200],
        )
        for group in census.groups[:most]
    ]
    # what does not fit is cut off, as nothing may push the rest out of the window
    made = table("", ("buried", "", "last", "group", "error"), rows, wraps="error")
    made.columns[-1].no_wrap = True
    made.columns[-1].overflow = "ellipsis"
    more = len(census.groups) - len(rows)
    words = "" if census.complete else "still looking"
    words = f"{more} more groups{', ' if words else ''}{words}" if more > 0 else words
    return [made, *([Text(words, style="dim")] if words else [])]


def _ago(at: datetime | None, now: datetime) -> str:
    return "?" if at is None else f"{span(max(0.0, (now - at).total_seconds()))} ago"


def _activity(each: Activity) -> Text:
    about = " ".join(filter(None, (each.did, each.cause or each.filter, activities.words(each), each.note)))
    return Text(f"{each.at:%H:%M} {line(each.actor)}: {line(about)}", style="dim", no_wrap=True, overflow="ellipsis")
