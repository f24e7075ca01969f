"""What the keys of a schedule must be, and what they must keep with the routes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from glassq.settings.route_rules import SOURCE_NAME
from glassq.settings.sections import DUE_LABEL, SCHEDULE_LABEL, SCHEDULE_SOURCE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from glassq.settings.route_rules import Rule
    from glassq.settings.sections import ScheduleSettings
    from glassq.settings.settings import Settings

# A body that is written into the settings, in bytes.
MAX_SCHEDULE_BODY = 16_384
# Labels that glassq sets itself.
_OURS = frozenset({SCHEDULE_LABEL, DUE_LABEL, "event_id"})


def schedule_rules(settings: Settings) -> Iterator[Rule]:
    """The rules of all schedules."""
    names = [schedule.name for schedule in settings.schedule]
    for index, schedule in enumerate(settings.schedule):
        at, name = f"schedule.{index}", schedule.name
        fits, expected = bool(SOURCE_NAME.fullmatch(name)), "a name of 1 to 63 of a-z 0-9 and -, not - first"
        yield fits, f"{at}.name", name, expected
        yield names.count(name) == 1, f"{at}.name", name, "a name that no other schedule has"
        yield from _time_rules(at, schedule)
        for label, value in schedule.labels.items():
            fits = label not in _OURS and value.isprintable() and len(value) <= 256
            yield (
                fits,
                f"{at}.labels.{label}",
                value,
                f"up to 256 printable characters; {', '.join(sorted(_OURS))} are set",
            )
        fits, expected = len(schedule.body.encode()) <= MAX_SCHEDULE_BODY, f"at most {MAX_SCHEDULE_BODY} bytes"
        yield fits, f"{at}.body", f"{schedule.body[:20]}...", expected
        labels = {**schedule.known_labels, DUE_LABEL: ""}
        routed = any(route.wants(SCHEDULE_SOURCE, labels) for route in settings.routes)
        wanted = f"{{ {SCHEDULE_LABEL} = {json.dumps(name)} }}"
        expected = f'a route that takes it: [[routes]] source = "{SCHEDULE_SOURCE}", match = {wanted}, handler = ...'
        # without any route the pool waits, and says so
        yield routed or not settings.routes, f"{at}.name", name, expected


def _time_rules(at: str, schedule: ScheduleSettings) -> Iterator[Rule]:
    # imported here: settings without a schedule need none of it
    from glassq.due import CronTimes, zone_of

    try:
        zone_of(schedule.zone)
    except ValueError as error:
        yield False, f"{at}.zone", schedule.zone, str(error)
        return
    try:
        CronTimes.parse(schedule.cron, schedule.zone)
    except ValueError as error:
        yield False, f"{at}.cron", schedule.cron, str(error)
