"""The nights on which clocks change, as two hosts with one ledger work them: the table of docs/schedules.md.

python -m tests.schedules.nights
"""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from glassq.due import zone_of
from glassq.schedules.opening import schedules_of
from glassq.schedules.scheduler import Scheduler
from glassq.schedules.table import ScheduleTable
from glassq.settings import LedgerSettings, Route, ScheduleSettings, Settings
from glassq.values import HandlerName

if TYPE_CHECKING:
    from glassq.delivery import Delivery

CRONS = ("*/30 * * * *", "30 2 * * *", "0 3 * * *")
# The zone, the day, and what its clock does then.
NIGHTS = (
    ("Europe/Berlin", "2026-03-29", "02:00 becomes 03:00"),
    ("Europe/Berlin", "2026-10-25", "03:00 becomes 02:00"),
    ("America/New_York", "2026-03-08", "02:00 becomes 03:00"),
    ("America/New_York", "2026-11-01", "02:00 becomes 01:00"),
    ("Australia/Lord_Howe", "2026-10-04", "02:00 becomes 02:30"),
    ("Australia/Lord_Howe", "2026-04-05", "02:00 becomes 01:30"),
)
# What is looked at of a night, by its own clock.
SINCE, UNTIL = "00:59", "03:59"


def worked(url: str, zone: str, day: str) -> list[Delivery]:
    """All deliveries that two hosts with this ledger put in that night, in order."""
    now, until = (datetime.fromisoformat(f"{day}T{time}").replace(tzinfo=zone_of(zone)) for time in (SINCE, UNTIL))
    now, until = now.astimezone(UTC), until.astimezone(UTC)
    sections = tuple(ScheduleSettings(name=str(number), cron=cron, zone=zone) for number, cron in enumerate(CRONS))
    route = Route(source="schedule", handler=HandlerName("m:f"))
    settings = Settings(schedule=sections, routes=(route,), ledger=LedgerSettings(url=url))
    put: list[Delivery] = []
    hosts = [
        Scheduler(schedules_of(settings), ScheduleTable(url), put.append, host, lambda: now) for host in ("a", "b")
    ]
    while now <= until:
        for host in hosts:
            host.step()
        # the next of the times at which anything here can be due
        now = datetime.fromtimestamp((now.timestamp() // 1800 + 1) * 1800, UTC)
    return put


def local(delivery: Delivery, zone: str) -> datetime:
    """When it was due, by the clock of the zone."""
    return datetime.fromisoformat(delivery.labels["due"]).astimezone(zone_of(zone))


def listed(times: list[datetime]) -> str:
    """The times, with an arrow where the clock was changed in between."""
    parts = []
    for last, this in zip([None, *times], times, strict=False):
        changed = last is not None and last.utcoffset() != this.utcoffset()
        parts.append(f"{'→ ' if changed else ''}{this:%H:%M}")
    comes_twice = times[0].replace(fold=0).utcoffset() != times[0].replace(fold=1).utcoffset()
    which = f" (the {'second' if times[0].fold else 'first'} one)" if len(times) == 1 and comes_twice else ""
    return f"{' '.join(parts)}{which}"


def table() -> str:
    """In Markdown: a night a line, an expression a column."""
    head = " | ".join(f"`{cron}`" for cron in CRONS)
    lines = [f"| night | {head} |", "|---" * (1 + len(CRONS)) + "|"]
    with tempfile.TemporaryDirectory() as directory:
        for number, (zone, day, what) in enumerate(NIGHTS):
            put = worked(f"sqlite:///{Path(directory) / str(number)}.db", zone, day)
            times = [
                [local(each, zone) for each in put if each.labels["schedule"] == str(n)] for n in range(len(CRONS))
            ]
            lines.append(f"| {zone}, {day}: {what} | {' | '.join(map(listed, times))} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
