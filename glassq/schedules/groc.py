"""App Engine's schedules in words: "every 5 minutes", "every monday 09:00", "1st,third mon of sep,oct 17:00".

Source of the grammar: Google's page on cron.yaml, and groc.g of App Engine's SDK. One thing differs: "every 5 minutes"
counts from the last time it was due, and not from the end of the last run.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING

from glassq.due import zone_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from zoneinfo import ZoneInfo

    from glassq.due import DueTimes

_EXPECTED = 'such as "every 5 minutes", "every 2 hours from 10:00 to 14:00", "every monday 09:00", "1 of month 00:00"'
_DAY = 24 * 60
# A day that matches comes within so many days: "5th monday of february" comes once in 28 years.
_DAYS = 366 * 41
_WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_MONTHS = (
    *("january", "february", "march", "april", "may", "june"),
    *("july", "august", "september", "october", "november", "december"),
)
_ORDINALS = {
    "first": 1,
    "second": 2,
    "third": 3,
    "fourth": 4,
    "fifth": 5,
    "1st": 1,
    "2nd": 2,
    "3rd": 3,
    "4th": 4,
    "5th": 5,
}
_INTERVAL = re.compile(r"every (\d{1,5}) (hours?|hrs?|minutes?|mins?)(?: (synchronized|from (\S+) to (\S+)))?")
_SPECIFIC = re.compile(
    r"(?P<which>\S+)(?: (?P<days>(?!of )[a-z,]+))?(?: of (?P<months>\S+))?(?: (?P<at>\d?\d:\d\d))?",
)


@dataclass(frozen=True, slots=True)
class EveryInterval:
    """Every so many minutes, from the last time on."""

    every: timedelta

    def after(self, moment: datetime) -> datetime | None:
        return (moment + self.every).astimezone(UTC)

    def latest(self, since: datetime, until: datetime) -> datetime | None:
        passed = (until - since) // self.every
        return (since + passed * self.every).astimezone(UTC) if passed > 0 else None


@dataclass(frozen=True, slots=True)
class TimesOfDay:
    """At these minutes of a day (from midnight; those of an interval that ends on the next day are above 1439).

    The day must be one of `months`, and either one of `monthdays`, or one of `weekdays` (0: Monday) that is among the
    `ordinals` of its month.
    """

    zone: ZoneInfo
    minutes: tuple[int, ...]
    months: frozenset[int] = frozenset(range(1, 13))
    monthdays: frozenset[int] = frozenset()
    weekdays: frozenset[int] = frozenset(range(7))
    ordinals: frozenset[int] = frozenset(range(1, 6))

    def after(self, moment: datetime) -> datetime | None:
        day = moment.astimezone(self.zone).date() - timedelta(days=1)
        for _ in range(_DAYS):
            if found := next((at for at in self._on(day) if at > moment), None):
                return found
            day += timedelta(days=1)
        return None

    def latest(self, since: datetime, until: datetime) -> datetime | None:
        day, first = until.astimezone(self.zone).date(), since.astimezone(self.zone).date() - timedelta(days=1)
        while day >= first:
            if found := [at for at in self._on(day) if since < at <= until]:
                return found[-1]
            day -= timedelta(days=1)
        return None

    def _on(self, day: date) -> Iterator[datetime]:
        if not self._fits(day):
            return
        midnight = datetime.combine(day, time(), self.zone)
        for minute in self.minutes:
            # a time of day: one that is left out on a night in spring becomes the same time after the gap
            yield (midnight + timedelta(minutes=minute)).astimezone(UTC)

    def _fits(self, day: date) -> bool:
        if day.month not in self.months:
            return False
        if self.monthdays:
            return day.day in self.monthdays
        return day.weekday() in self.weekdays and (day.day - 1) // 7 + 1 in self.ordinals


def parse(text: str, zone: str = "UTC") -> DueTimes:
    """The times of a schedule in words. Raises ValueError, with what is expected."""
    words = " ".join(text.lower().replace(", ", ",").split())
    place = zone_of(zone)
    if interval := _INTERVAL.fullmatch(words):
        return _interval(interval, place)
    if (specific := _SPECIFIC.fullmatch(words)) and (specific["days"] or specific["months"]):
        return _specific(specific, place)
    raise ValueError(_EXPECTED)


def _interval(found: re.Match[str], zone: ZoneInfo) -> DueTimes:
    number, unit, how, begin, end = found.groups()
    step = int(number) * (60 if unit.startswith("h") else 1)
    if step < 1:
        raise ValueError(_EXPECTED)
    if how is None:
        return EveryInterval(timedelta(minutes=step))
    if how == "synchronized":
        if _DAY % step:
            raise ValueError(f"with synchronized, an interval by which a day can be divided; {_EXPECTED}")
        return TimesOfDay(zone, tuple(range(0, _DAY, step)))
    first, last = _minute(begin), _minute(end)
    return TimesOfDay(zone, tuple(range(first, last + (_DAY if last < first else 0) + 1, step)))


def _specific(found: re.Match[str], zone: ZoneInfo) -> DueTimes:
    which, days, months = found["which"], found["days"], found["months"] or "month"
    minutes, in_months = (_minute(found["at"] or "0:00"),), _months(months)
    if days is None:
        numbers = [int(word) if word.isdecimal() else 0 for word in which.split(",")]
        if not all(1 <= number <= 31 for number in numbers):
            raise ValueError(_EXPECTED)
        return TimesOfDay(zone, minutes, in_months, monthdays=frozenset(numbers))
    weekdays = _numbers(days, _WEEKDAYS, 0, "day")
    if which == "every":
        return TimesOfDay(zone, minutes, in_months, weekdays=weekdays)
    ordinals = [_ORDINALS.get(word, 0) for word in which.split(",")]
    if not all(ordinals):
        raise ValueError(_EXPECTED)
    return TimesOfDay(zone, minutes, in_months, weekdays=weekdays, ordinals=frozenset(ordinals))


def _months(words: str) -> frozenset[int]:
    return frozenset((1, 4, 7, 10)) if words == "quarter" else _numbers(words, _MONTHS, 1, "month")


def _numbers(words: str, names: tuple[str, ...], first: int, every: str) -> frozenset[int]:
    """The numbers of names that are written whole or by their first three letters; `every` stands for all."""
    if words == every:
        return frozenset(range(first, first + len(names)))
    found = []
    for word in words.split(","):
        near = [number for number, name in enumerate(names, first) if word in (name, name[:3])]
        if not near:
            raise ValueError(f"{word} is no {every}; {_EXPECTED}")
        found += near
    return frozenset(found)


def _minute(text: str) -> int:
    if not re.fullmatch(r"([01]?[0-9]|2[0-3]):[0-5][0-9]", text):
        raise ValueError(f"times from 00:00 to 23:59; {_EXPECTED}")
    hour, _, minute = text.partition(":")
    return int(hour) * 60 + int(minute)
