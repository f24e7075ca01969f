"""The schedules of the settings: those of [[schedule]], and those of App Engine's cron.yaml."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from glassq.delivery import Delivery
from glassq.due import CronTimes
from glassq.schedules.scheduler import Schedule
from glassq.settings import DUE_LABEL, SCHEDULE_SOURCE, ping_tube

if TYPE_CHECKING:
    from glassq.settings import ScheduleSettings, Settings


def has_schedules(settings: Settings) -> bool:
    """Whether there is anything to put by the clock."""
    return bool(settings.schedule) or (settings.push is not None and settings.push.cron_yaml is not None)


def schedules_of(settings: Settings) -> list[Schedule]:
    """All schedules. Raises SettingsError if cron.yaml cannot be used; [[schedule]] is checked when it is read."""
    found = [_schedule(settings, section) for section in settings.schedule]
    if settings.push is not None and settings.push.cron_yaml is not None:
        # imported here: without cron.yaml nobody needs a YAML parser
        from glassq.schedules import cron_yaml

        found += cron_yaml.load(settings.push.cron_yaml, settings.queue.tube, settings.push.targets)
    return found


def _schedule(settings: Settings, section: ScheduleSettings) -> Schedule:
    times = CronTimes.parse(section.cron, section.zone)
    make = partial(_delivery, settings, section)
    return Schedule(section.name, section.cron, section.zone, times, section.catch_up == "once", make)


def _delivery(settings: Settings, section: ScheduleSettings, key: str, due: datetime) -> Delivery:
    """The delivery with this id that is due at this time."""
    stamp = due.strftime("%Y-%m-%dT%H:%M:%SZ")
    labels = {**section.known_labels, DUE_LABEL: stamp, "event_id": f"{section.name} {stamp}"}
    return Delivery(
        id=key,
        source=SCHEDULE_SOURCE,
        received=datetime.now(UTC),
        body=section.body.encode(),
        labels=labels,
        content_type=section.content_type,
        tube=ping_tube(settings, SCHEDULE_SOURCE)(labels),
    )
