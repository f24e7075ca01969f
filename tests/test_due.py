"""When cron expressions are due, above all on nights on which clocks are changed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from glassq.due import CronTimes, zone_of

BERLIN, LORD_HOWE = "Europe/Berlin", "Australia/Lord_Howe"


def due(expression: str, zone: str, since: str, until: str) -> list[str]:
    """All times between two, as the clock of that zone shows them, with its distance from UTC."""
    times, moment, end = CronTimes.parse(expression, zone), at(since, zone), at(until, zone)
    found = []
    while (following := times.after(moment)) is not None and following <= end:
        assert following.tzinfo is UTC
        moment = following
        found.append(following.astimezone(zone_of(zone)).strftime("%d %H:%M%z"))
    return found


def at(text: str, zone: str = "UTC") -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=zone_of(zone))


@pytest.mark.parametrize(
    ("expression", "zone", "since", "until", "expected"),
    [
        # 2026-03-29: 02:00 becomes 03:00; what falls into the gap is due right after it, once
        ("30 2 * * *", BERLIN, "2026-03-28T12:00", "2026-03-30T12:00", ["29 03:00+0200", "30 02:30+0200"]),
        ("0 3 * * *", BERLIN, "2026-03-28T12:00", "2026-03-29T12:00", ["29 03:00+0200"]),
        (
            "0 * * * *",
            BERLIN,
            "2026-03-29T00:30",
            "2026-03-29T04:30",
            ["29 01:00+0100", "29 03:00+0200", "29 04:00+0200"],
        ),
        # 2026-10-25: 03:00 becomes 02:00; a time of day that comes twice is due the first time
        ("30 2 * * *", BERLIN, "2026-10-24T12:00", "2026-10-26T12:00", ["25 02:30+0200", "26 02:30+0100"]),
        (
            "0 * * * *",
            BERLIN,
            "2026-10-25T01:30",
            "2026-10-25T03:30",
            ["25 02:00+0200", "25 02:00+0100", "25 03:00+0100"],
        ),
        ("*/30 2 * * *", BERLIN, "2026-10-25T01:30", "2026-10-25T02:59", ["25 02:00+0200", "25 02:30+0200"]),
        ("0 0 * * *", "UTC", "2026-03-28T12:00", "2026-03-30T12:00", ["29 00:00+0000", "30 00:00+0000"]),
        ("@daily", "Asia/Kolkata", "2026-03-28T12:00", "2026-03-29T12:00", ["29 00:00+0530"]),
        ("15 14 29 2 *", "UTC", "2026-01-01T00:00", "2028-12-01T00:00", ["29 14:15+0000"]),
        ("0 9 * * MON-FRI", "UTC", "2026-11-27T12:00", "2026-12-01T12:00", ["30 09:00+0000", "01 09:00+0000"]),
        ("0 9 L * *", "UTC", "2026-11-27T12:00", "2026-12-01T12:00", ["30 09:00+0000"]),
    ],
)
def test_due_by_the_clock_on_the_wall(expression: str, zone: str, since: str, until: str, expected: list[str]) -> None:
    assert due(expression, zone, since, until) == expected


@pytest.mark.parametrize("zone", [BERLIN, LORD_HOWE, "America/New_York", "UTC"])
@pytest.mark.parametrize("expression", ["*/5 * * * *", "30 2 * * *", "0 */2 * * *", "15,45 1-3 * * *", "0 2 * * SUN"])
@pytest.mark.parametrize("night", ["2026-03-07", "2026-03-28", "2026-04-04", "2026-10-24", "2026-10-31"])
def test_the_latest_time_is_the_last_one_that_came(zone: str, expression: str, night: str) -> None:
    times, since = CronTimes.parse(expression, zone), at(f"{night}T18:00", zone)
    moment, end = since, since + timedelta(hours=14)
    came = [moment]
    while (following := times.after(came[-1])) is not None and following <= end:
        came.append(following)
    for before, this in pairwise(came):
        assert times.latest(since, this) == this
        expected = before if before > since else None
        assert times.latest(since, this - timedelta(seconds=1)) == expected
        assert times.latest(before, this - timedelta(seconds=1)) is None


def test_in_the_hour_that_comes_twice_the_next_time_is_never_in_the_past() -> None:
    times, moment = CronTimes.parse("30 2 * * *", BERLIN), datetime(2026, 10, 25, 0, 0, tzinfo=UTC)
    for minutes in range(150):
        now = moment + timedelta(minutes=minutes)
        following = times.after(now)
        assert following is not None
        assert following > now


def test_years_without_a_pool_cost_no_time() -> None:
    times = CronTimes.parse("* * * * *", BERLIN)
    assert times.latest(at("2016-01-01T00:00"), at("2026-01-01T00:00:30")) == at("2026-01-01T00:00")


@pytest.mark.parametrize(
    ("expression", "zone", "why"),
    [
        ("* * * *", "UTC", "five fields"),
        ("* * * * * *", "UTC", "five fields"),
        ("60 * * * *", "UTC", "bad minute"),
        ("0 0 31 2 *", "UTC", "bad day-of-month"),
        ("@reboot", "UTC", "five fields"),
        ("\0", "UTC", "five fields"),
        ("0 0 * * *", "Europe/Bonn", "a time zone such as"),
        ("0 0 * * *", "../etc/passwd", "a time zone such as"),
        ("0 0 * * *", "", "a time zone such as"),
    ],
)
def test_what_is_no_schedule_is_refused_with_what_is_expected(expression: str, zone: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        CronTimes.parse(expression, zone)
