"""Slopes, estimates and percentiles: what an operator reads of them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from glassq.ledger.figures import Timing
from glassq.operations.curves import MINUTES, CountSample, Curve
from glassq.operations.rates import Minute, estimate, per_minute, percentiles, slope, waited, worked
from glassq.operations.sampler import by_minute

NOW = datetime(2026, 11, 29, 3, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("numbers", "per_second"),
    [
        ([], None),
        ([5, 4, 3], None),
        ([7, 7, 7, 7], 0.0),
        ([0, 10, 20, 30], 2.0),
        ([100, 95, 90, 85, 80], -1.0),
        # one odd sample bends it, and does not turn it
        ([100, 90, 80, 95, 60, 50], -1.8),
    ],
)
def test_a_slope_is_by_least_squares_over_samples_of_five_seconds(
    numbers: list[float], per_second: float | None
) -> None:
    found = slope([(5.0 * index, number) for index, number in enumerate(numbers)])
    assert found == (None if per_second is None else pytest.approx(per_second, abs=0.2))


def test_samples_of_one_moment_have_no_slope() -> None:
    assert slope([(1.0, 1), (1.0, 2), (1.0, 3), (1.0, 4)]) is None


@pytest.mark.parametrize(
    ("ready", "change", "rate", "words", "seconds"),
    [
        (0, None, None, "empty", 0.0),
        (5_600, None, None, "-", None),
        (5_400, -10.0, None, "in about 9 min", 540.0),
        (30, -1.0, None, "in about 30 s", 30.0),
        (1_000_000, -10.0, None, "in about 28 h", 100_000.0),
        (10_000_000, -10.0, None, "in about 12 days", 1_000_000.0),
        (10, 2.0, None, "grows by 120/min", None),
        (10, 0.001, None, "steady", None),
        (10, -0.01, None, "steady", None),
        # a push queue, not before its rate allows it
        (600, -100.0, 5.0, "in about 2 min", 120.0),
        (600, -1.0, 5.0, "in about 10 min", 600.0),
        (600, None, 0.0, "never: its rate is 0", None),
        (0, None, 0.0, "empty", 0.0),
    ],
)
def test_an_estimate_says_when_a_backlog_is_empty(
    ready: int, change: float | None, rate: float | None, words: str, seconds: float | None
) -> None:
    found = estimate(ready, change, rate)
    assert (found.words, found.seconds) == (words, None if seconds is None else pytest.approx(seconds))


def test_percentiles_are_durations_that_occurred() -> None:
    assert percentiles([]).p50 is None
    found = percentiles([float(number) for number in range(1, 101)])
    assert (found.count, found.p50, found.p95) == (100, 50.0, 95.0)
    assert percentiles([3.0]).p95 == 3.0


def test_the_first_attempts_tell_how_long_was_waited_and_all_how_long_was_worked() -> None:
    first = Timing(NOW, NOW + timedelta(seconds=3), 0.5, first=True)
    again = Timing(NOW, NOW + timedelta(hours=1), 2.5, first=False)
    never = Timing(NOW, None, 0.0, first=True)
    assert waited([first, again, never]).count == 1
    assert waited([first]).p50 == 3.0
    assert worked([first, again]).p95 == 2.5


def test_minutes_count_what_attempts_came_to() -> None:
    rows = [(NOW, "done", 5), (NOW, "dropped", 1), (NOW, "retrying", 2), (NOW, "buried", 3), (NOW, "deleted", 9)]
    [minute] = by_minute(rows).values()
    assert minute == Minute(int(NOW.timestamp()), 6, 2, 3)
    assert minute.ended == 9


def test_a_rate_is_of_whole_minutes() -> None:
    now = NOW.timestamp()
    minutes = [Minute(int(now) - 60 * back, done=100) for back in range(8)]
    assert per_minute(minutes, now + 30) == pytest.approx(100.0)
    assert per_minute([], now) is None
    assert per_minute([Minute(int(now))], now) == 0.0


def test_a_curve_keeps_five_minutes_in_full_and_a_day_by_the_minute() -> None:
    curve = Curve()
    for number in range(2 * MINUTES * 12):
        curve.add(CountSample(5.0 * number, number, 0, 0, 0))
    last = curve.recent[-1].at
    assert (len(curve.recent), len(curve.minutes)) == (60, MINUTES)
    hour = curve.since(last - 3_600)
    assert [each.at for each in hour] == sorted({each.at for each in hour})
    assert 60 + 54 <= len(hour) <= 60 + 56
    assert len(curve.since(last - 60)) == 13
    assert curve.recent[-1].backlog == curve.recent[-1].ready
