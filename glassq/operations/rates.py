"""Rates and estimates, from samples and from the ledger: what an operator asks of a backlog. Pure functions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from glassq.ledger.figures import Timing

# A slope is that of so many seconds, and of at least so many samples.
WINDOW, MIN_SAMPLES = 300.0, 4
# Less than this a minute is no change.
STEADY = 1.0


@dataclass(frozen=True, slots=True)
class Estimate:
    """When a backlog is empty: `words` say it, `seconds` is how long that takes (None: never, or nobody knows)."""

    words: str
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Of so many durations, in seconds; None where there are none."""

    count: int = 0
    p50: float | None = None
    p95: float | None = None


NONE = Percentiles()


@dataclass(frozen=True, slots=True)
class Minute:
    """What attempts of one minute came to; `at` is its beginning, as a Unix time."""

    at: int
    done: int = 0
    failed: int = 0
    buried: int = 0

    @property
    def ended(self) -> int:
        """How many deliveries left for good, or lie buried."""
        return self.done + self.buried


def slope(points: Sequence[tuple[float, float]]) -> float | None:
    """The slope of these points (seconds, number) by least squares, per second; None where they are too few."""
    if len(points) < MIN_SAMPLES:
        return None
    count = len(points)
    middle = sum(at for at, _ in points) / count
    mean = sum(number for _, number in points) / count
    width = sum((at - middle) ** 2 for at, _ in points)
    if not width:
        return None
    return sum((at - middle) * (number - mean) for at, number in points) / width


def estimate(ready: int, change: float | None, rate: float | None = None) -> Estimate:
    """When so many `ready` are worked, while their number changes by `change` a second.

    A push queue that is worked at `rate` a second is not empty before that allows it.
    """
    if rate == 0 and ready:
        return Estimate("never: its rate is 0")
    if not ready:
        return Estimate("empty", 0.0)
    if change is None:
        return Estimate("-")
    if change * 60 > STEADY:
        return Estimate(f"grows by {change * 60:,.0f}/min")
    if change * 60 > -STEADY:
        return Estimate("steady")
    seconds = max(ready / -change, ready / rate if rate else 0.0)
    return Estimate(f"in about {about(seconds)}", seconds)


def about(seconds: float) -> str:
    """A duration as an estimate says it: 40 s, 9 min, 5 h, 3 days."""
    for unit, size, many in (("s", 1, 90), ("min", 60, 90), ("h", 3_600, 36)):
        if seconds < many * size:
            return f"{max(1, round(seconds / size))} {unit}"
    return f"{round(seconds / 86_400)} days"


def per_minute(minutes: Sequence[Minute], now: float, window: float = WINDOW) -> float | None:
    """How many deliveries are done in a minute, by the whole minutes of the last `window` seconds; None without one."""
    began = now - window
    whole = [minute for minute in minutes if minute.at >= began - 60 and minute.at + 60 <= now]
    return sum(minute.done for minute in whole) / (window / 60) if minutes else None


def percentiles(durations: Sequence[float]) -> Percentiles:
    """Half of them are not longer than p50, and 95 of 100 not longer than p95."""
    if not durations:
        return NONE
    ordered = sorted(durations)
    last = len(ordered) - 1
    return Percentiles(len(ordered), ordered[last // 2], ordered[round(last * 0.95)])


def waited(timings: Sequence[Timing]) -> Percentiles:
    """How long deliveries waited until their handler started, for the first attempt."""
    waits = ((each.started - each.received).total_seconds() for each in timings if each.first and each.started)
    return percentiles([max(0.0, wait) for wait in waits])


def worked(timings: Sequence[Timing]) -> Percentiles:
    """How long their last attempts took."""
    return percentiles([each.duration for each in timings])
