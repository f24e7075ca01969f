"""Charts as shapes: where lines and bars are, and the numbers behind them. The template `charts.html` draws them.

Nothing here is HTML. A chart is 600 by 140 units, and scales to its place on the page.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from glassq.operations.curves import CountSample
    from glassq.operations.rates import Minute

WIDTH, HEIGHT = 600, 140
# Room for the numbers at the left and the times below.
LEFT, BOTTOM, TOP = 44, 18, 6
# So many bars, or points of a line, can be told apart.
MAX_BARS, MAX_POINTS = 72, 180
# A line is broken where nobody looked for so many seconds.
GAP = 180.0
# A remark needs so much room, and a time so much beside the left axis.
MIN_REMARK, MIN_TICK = 260.0, 20.0
SPARK_WIDTH, SPARK_HEIGHT = 120, 24
_STEPS = (1, 2, 3, 4, 5, 6, 8, 10)
# Between two times below a chart, in minutes, by its hours.
_TIMES = {1: 10, 6: 60, 24: 240}


@dataclass(frozen=True, slots=True)
class Shape:
    """One line, or the bars of one name: `path` is SVG's; `kind` is a class of the style sheet.

    `area` is the path of what lies below a line ("": nothing is filled).
    """

    name: str
    kind: str
    path: str
    area: str = ""


@dataclass(frozen=True, slots=True)
class Tick:
    """A number or a time at an axis."""

    at: float
    words: str


@dataclass(frozen=True, slots=True)
class Chart:
    """What is drawn, and the same as a table: `words` say in a sentence what it shows.

    `remark` stands where it has nothing to show: in its middle, or, up to `blank`, where nobody looked yet.
    """

    title: str
    words: str
    shapes: tuple[Shape, ...]
    left: tuple[Tick, ...]
    below: tuple[Tick, ...]
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    remark: str = ""
    blank: float = 0.0

    @property
    def empty(self) -> bool:
        """Whether there is nothing to draw."""
        return not self.rows

    @property
    def remark_at(self) -> float:
        """Where the middle of the remark is."""
        return (LEFT + (self.blank or WIDTH)) / 2


def lines(title: str, samples: Sequence[CountSample], begin: float, end: float) -> Chart:
    """The backlog of a time (Unix times), and of it what is ready."""
    shown, gap = thinned(samples), GAP * _every(samples, MAX_POINTS)
    top = nice(max((each.backlog for each in shown), default=0))
    kinds: tuple[tuple[str, str, Callable[[CountSample], int]], ...] = (
        ("all that waits", "all", lambda each: each.backlog),
        ("ready", "ready", lambda each: each.ready),
    )
    shapes = tuple(
        Shape(name, kind, path, _area(path) if kind == "all" else "")
        for name, kind, value in kinds
        for path in [_line(shown, value, top, begin, end, gap)]
    )
    rows = tuple(
        (clock(each.at), f"{each.ready:,}", f"{each.working:,}", f"{each.delayed:,}", f"{each.buried:,}")
        for each in shown[:: max(1, len(shown) // MAX_BARS)]
    )
    words = _line_words(samples)
    columns = ("UTC", "ready", "working", "delayed", "buried")
    blank = _x(shown[0].at, begin, end) if shown and shown[0].at - begin > GAP else 0.0
    remark = f"sampled since {clock(shown[0].at)}: the curve grows from there" if blank - LEFT > MIN_REMARK else ""
    return Chart(title, words, shapes, _left(top), _below(begin, end), columns, rows, remark, blank)


def bars(title: str, minutes: Sequence[Minute], begin: float, end: float) -> Chart:
    """How many attempts of each minute, or of some minutes together, came to what: stacked bars."""
    size = max(1, -(-int((end - begin) / 60) // MAX_BARS))
    groups = _grouped(minutes, size)
    top = nice(max((sum(counts) for _, counts in groups), default=0))
    if groups:
        # whole minutes begin a little earlier
        begin, end = groups[0][0], groups[0][0] + end - begin
    names = (("done", "done"), ("failed, to be tried again", "failed"), ("buried", "buried"))
    width = (WIDTH - LEFT) * size * 60 / max(60.0, end - begin)
    paths: list[list[str]] = [[], [], []]
    for at, counts in groups:
        below = 0
        for path, count in zip(paths, counts, strict=True):
            if count:
                path.append(_bar(_x(at, begin, end), width, below, count, top))
            below += count
    shapes = tuple(Shape(name, kind, "".join(path)) for (name, kind), path in zip(names, paths, strict=True))
    rows = tuple((clock(at), *(f"{count:,}" for count in counts)) for at, counts in groups)
    each = "each minute" if size == 1 else f"every {size} minutes"
    sums = [sum(counts[index] for _, counts in groups) for index in range(3)]
    words = f"{sums[0]:,} done, {sums[1]:,} failed and {sums[2]:,} buried; a bar for {each}"
    columns = ("UTC", "done", "failed", "buried")
    if groups and not any(sums):
        return Chart(title, words, shapes, _left(top)[:1], _below(begin, end), columns, rows, "nothing was worked")
    return Chart(title, words, shapes, _left(top), _below(begin, end), columns, rows)


def spark_words(values: Sequence[float]) -> str:
    """What a small line shows, in words; "" where there is none."""
    if len(values) < 2:
        return ""
    if min(values) == max(values):
        return f"{values[0]:,} all the time"
    return f"{values[-1]:,} now, at least {min(values):,}, at most {max(values):,}"


def spark(values: Sequence[float]) -> str:
    """The path of a small line without axes, in a box of SPARK_WIDTH by SPARK_HEIGHT; "" for fewer than two values."""
    if len(values) < 2:
        return ""
    top = max(*values, 1.0)
    step = SPARK_WIDTH / (len(values) - 1)
    points = (
        f"{index * step:.1f},{SPARK_HEIGHT - 1 - (SPARK_HEIGHT - 2) * value / top:.1f}"
        for index, value in enumerate(values)
    )
    return f"M{' L'.join(points)}"


def thinned(samples: Sequence[CountSample], most: int = MAX_POINTS) -> list[CountSample]:
    """At most so many of them: of some that follow one another the one with the most jobs, and the last one always."""
    every = _every(samples, most)
    parts = [samples[max(0, end - every) : end] for end in range(len(samples) - 1, 0, -every)]
    highest = [max(part, key=lambda each: each.backlog) for part in reversed(parts)]
    return [*highest, *samples[-1:]]


def _every(samples: Sequence[CountSample], most: int) -> int:
    return max(1, -(-(len(samples) - 1) // (most - 1)))


def nice(largest: float) -> int:
    """A round number that is not smaller: where the axis ends."""
    if largest <= 4:
        return 4
    size = 10 ** (len(str(int(largest))) - 1)
    return int(next(step * size for step in _STEPS if step * size >= largest))


def clock(at: float) -> str:
    """The time of day in UTC."""
    return datetime.fromtimestamp(at, UTC).strftime("%H:%M")


def short(number: float) -> str:
    """A number in a few characters: 950, 5.6k, 120k, 2M."""
    for size, unit in ((1_000_000, "M"), (1_000, "k")):
        if number >= size:
            return f"{number / size:.1f}".removesuffix(".0") + unit
    return f"{number:g}"


def _line(
    samples: Iterable[CountSample], value: Callable[[CountSample], int], top: int, begin: float, end: float, gap: float
) -> str:
    parts, before = [], float("-inf")
    for each in samples:
        start = "L" if each.at - before <= gap else "M"
        parts.append(f"{start}{_x(each.at, begin, end):.1f},{_y(value(each), top):.1f}")
        before = each.at
    return " ".join(parts)


def _area(line: str) -> str:
    """What lies below a line, each of its parts by itself."""
    base = _y(0, 1)
    parts = [part.split() for part in line.replace("M", "|M").split("|") if part]
    closed = (f"{' '.join(part)} V{base:.1f} H{part[0][1:].partition(',')[0]}z" for part in parts if len(part) > 1)
    return " ".join(closed)


def _line_words(samples: Sequence[CountSample]) -> str:
    if not samples:
        return "no samples yet"
    numbers = [each.backlog for each in samples]
    since = clock(samples[0].at)
    return f"{numbers[-1]:,} wait now; since {since} UTC at least {min(numbers):,}, at most {max(numbers):,}"


def _grouped(minutes: Sequence[Minute], size: int) -> list[tuple[float, tuple[int, int, int]]]:
    groups = []
    for first in range(0, len(minutes), size):
        part = minutes[first : first + size]
        counts = (sum(each.done for each in part), sum(each.failed for each in part), sum(each.buried for each in part))
        groups.append((float(part[0].at), counts))
    return groups


def _bar(x: float, width: float, below: int, count: int, top: int) -> str:
    y, base = _y(below + count, top), _y(below, top)
    return f"M{x:.1f},{y:.1f}h{max(1.0, width - 1):.1f}V{base:.1f}H{x:.1f}z"


def _left(top: int) -> tuple[Tick, ...]:
    return tuple(Tick(_y(number, top), short(number)) for number in (0, top / 2, top))


def _below(begin: float, end: float) -> tuple[Tick, ...]:
    every = _TIMES.get(round((end - begin) / 3_600), 240) * 60
    first = -(-int(begin) // every) * every
    # the last one would be cut off, and the first one stand over the axis
    places = ((_x(at, begin, end), at) for at in range(first, int(end - every / 8), every))
    return tuple(Tick(x, clock(at)) for x, at in places if x > LEFT + MIN_TICK)


def _x(at: float, begin: float, end: float) -> float:
    return LEFT + (WIDTH - LEFT) * (at - begin) / max(1.0, end - begin)


def _y(number: float, top: int) -> float:
    return TOP + (HEIGHT - TOP - BOTTOM) * (1 - number / top)
