"""When a schedule is due: pure functions of time.

The times of day are those of a clock on the wall of the schedule's time zone. On the night when that clock is put
forward, a schedule for a time of day that does not exist is due at once after the gap; on the night when it is put
back, one for a time of day that comes twice is due the first time only. A schedule with a * in its minute or hour
follows elapsed time, and is due twice in the hour that comes twice. That is the rule of Debian's cron, and cronsim's.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Protocol
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

if TYPE_CHECKING:
    from collections.abc import Iterator

# Times further away than this are never reached: 29 February on a Monday comes once in 28 years.
HORIZON = timedelta(days=366 * 41)
# Expressions that stand for others. Source: crontab(5).
NAMED = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}


class DueTimes(Protocol):
    """The times at which a schedule is due. All times here are aware, and those that are returned are in UTC."""

    def after(self, moment: datetime) -> datetime | None:
        """The first time after this one; None if there is none any more."""

    def latest(self, since: datetime, until: datetime) -> datetime | None:
        """The last time after `since`, up to `until`; None if there is none."""


def zone_of(name: str) -> ZoneInfo:
    """The time zone. Raises ValueError if there is none of that name here."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError('a time zone such as "Europe/Berlin" (is the package tzdata installed?)') from None


@dataclass(frozen=True, slots=True)
class CronTimes:
    """The times of a cron expression of five fields, in a time zone."""

    expression: str
    zone: ZoneInfo

    @classmethod
    def parse(cls, text: str, zone: str = "UTC") -> CronTimes:
        """Raises ValueError, with what is expected, for a text that is no expression, or is never due."""
        expected = 'five fields: minute hour day month weekday, such as "*/5 * * * *", or @daily'
        expression = NAMED.get(text.strip().lower(), text)
        if len(expression.split()) != 5:
            raise ValueError(expected)
        times = cls(expression, zone_of(zone))
        try:
            CronSim(expression, datetime(2024, 1, 1, tzinfo=UTC))
        except CronSimError as error:
            raise ValueError(f"{expected}; {str(error).lower()}") from None
        if times.after(datetime.now(UTC)) is None:
            raise ValueError(f"{expected}; no day is such a one")
        return times

    def after(self, moment: datetime) -> datetime | None:
        return self._next(moment, reverse=False)

    def latest(self, since: datetime, until: datetime) -> datetime | None:
        # Backwards it jumps near, and forwards it says the same as `after`: the two differ on some nights. A time that
        # is due exactly then counts, and cronsim looks at whole seconds.
        near = self._next(until + timedelta(seconds=1), reverse=True)
        if near is None:
            return None
        found = None
        for following in self._walk(max(since, near - timedelta(days=1))):
            if following > until:
                break
            found = following
        return found

    def _next(self, moment: datetime, *, reverse: bool) -> datetime | None:
        found = next(self._walk(moment, reverse=reverse), None)
        return None if found is None or abs(found - moment) > HORIZON else found

    def _walk(self, moment: datetime, *, reverse: bool = False) -> Iterator[datetime]:
        with suppress(OverflowError):
            for found in CronSim(self.expression, moment.astimezone(self.zone), reverse):
                # begun in the second hour of two that have one name, cronsim goes on from the first
                if (found < moment) if reverse else (found > moment):
                    yield found.astimezone(UTC)
