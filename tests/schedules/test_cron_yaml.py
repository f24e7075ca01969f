"""App Engine's cron.yaml: its words for times, the tasks that it makes, its mistakes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from glassq.due import zone_of
from glassq.errors import SettingsError
from glassq.push.http_request import of_task
from glassq.push.request import from_labels
from glassq.schedules import cron_yaml, groc
from glassq.values import Tube

if TYPE_CHECKING:
    from pathlib import Path

NEW_YORK = "America/New_York"
# a Saturday
SINCE = datetime(2026, 11, 28, 8, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("words", "zone", "expected"),
    [
        ("every 12 hours", "UTC", ["28 Nov 20:00", "29 Nov 08:00"]),
        ("every 5 minutes from 10:00 to 14:00", "UTC", ["28 Nov 10:00", "28 Nov 10:05"]),
        ("every 2 hours from 22:00 to 03:00", "UTC", ["28 Nov 22:00", "29 Nov 00:00", "29 Nov 02:00", "29 Nov 22:00"]),
        ("every 6 hours synchronized", "UTC", ["28 Nov 12:00", "28 Nov 18:00", "29 Nov 00:00"]),
        ("every day 00:00", NEW_YORK, ["29 Nov 05:00", "30 Nov 05:00"]),
        ("every monday 09:00", "UTC", ["30 Nov 09:00", "07 Dec 09:00"]),
        (
            "2nd,third mon,wed,thu of march 17:00",
            "UTC",
            ["08 Mar 17:00", "10 Mar 17:00", "11 Mar 17:00", "15 Mar 17:00"],
        ),
        ("1st monday of sep,oct,nov 17:00", "UTC", ["06 Sep 17:00", "04 Oct 17:00", "01 Nov 17:00"]),
        ("1 of jan,april,july,oct 00:00", "UTC", ["01 Jan 00:00", "01 Apr 00:00"]),
        ("1 of quarter 00:00", "UTC", ["01 Jan 00:00", "01 Apr 00:00"]),
        ("1,15 of month 10:30", "UTC", ["01 Dec 10:30", "15 Dec 10:30"]),
        ("every mon,wed of month 9:05", "UTC", ["30 Nov 09:05", "02 Dec 09:05"]),
        ("Every 10 Mins", "UTC", ["28 Nov 08:10", "28 Nov 08:20"]),
    ],
)
def test_schedules_in_words(words: str, zone: str, expected: list[str]) -> None:
    times, moment, found = groc.parse(words, zone), SINCE, []
    for _ in expected:
        following = times.after(moment)
        assert following is not None
        assert times.latest(moment, following) == following
        assert times.latest(moment, following - timedelta(seconds=1)) is None
        moment = following
        found.append(following.strftime("%d %b %H:%M"))
    assert found == expected


def test_a_time_of_day_that_a_night_leaves_out_comes_after_the_gap() -> None:
    times = groc.parse("every day 02:30", "Europe/Berlin")
    following = times.after(datetime(2026, 3, 28, 12, tzinfo=UTC))
    assert following is not None
    assert following.astimezone(zone_of("Europe/Berlin")).strftime("%d %H:%M%z") == "29 03:30+0200"


@pytest.mark.parametrize(
    "words",
    [
        "",
        "every",
        "5 minutes",
        "every 0 minutes",
        "every 7 minutes synchronized",
        "every monday 25:00",
        "every funday 09:00",
        "6th monday of may 10:00",
        "0 of month 10:00",
        "1 of smarch 10:00",
        "every 5 minutes from 10 to 14",
        "* * * * *",
    ],
)
def test_words_that_are_no_schedule(words: str) -> None:
    with pytest.raises(ValueError, match="such as"):
        groc.parse(words)


CRON = """
cron:
- description: daily summary
  url: /tasks/summary?of=day
  target: beta
  schedule: every 24 hours
- url: /tasks/summary?of=week
  schedule: every monday 09:00
  timezone: America/New_York
  retry_parameters:
    job_retry_limit: 3
    min_backoff_seconds: 2.5
"""


def test_an_entry_becomes_a_task_that_is_sent_once(tmp_path: Path) -> None:
    file = tmp_path / "cron.yaml"
    file.write_text(CRON)
    daily, weekly = cron_yaml.load(str(file), Tube("glassq"), {"beta", "default"})
    assert (daily.name, daily.said, daily.zone) == ("/tasks/summary", "every 24 hours", "UTC")
    assert (weekly.name, weekly.zone) == ("/tasks/summary#2", NEW_YORK)
    delivery = daily.make("0199-id", SINCE)
    request = from_labels(delivery.labels)
    assert (delivery.source, delivery.tube, delivery.id) == ("push", "glassq", "0199-id")
    assert (request.method, request.url, request.target) == ("GET", "/tasks/summary?of=day", "beta")
    assert request.retry is not None
    assert request.retry.after(1, 1.0) is None
    sent = of_task(request, "/base", delivery)
    assert sent.path == "/base/tasks/summary?of=day"
    assert sent.headers["X-AppEngine-Cron"] == "true"
    assert sent.headers["X-AppEngine-QueueName"] == "__cron"
    again = from_labels(weekly.make("0199-id", SINCE).labels).retry
    assert again is not None
    assert [again.after(failures, 1.0) is None for failures in (1, 3, 4)] == [False, False, True]


def test_all_mistakes_are_told_with_their_lines(tmp_path: Path) -> None:
    file = tmp_path / "cron.yaml"
    file.write_text(
        "cron:\n- url: tasks\n  schedule: every day 00:00\n"
        "- schedule: every day 00:00\n- url: /x\n  schedule: now and then\n"
        "- url: /y\n  schedule: every day 00:00\n  target: nobody\n  shedule: x\nother: 1\n"
    )
    with pytest.raises(SettingsError) as caught:
        cron_yaml.load(str(file), Tube("glassq"), {"default"})
    lines = [line.removeprefix(str(file)) for line in str(caught.value).splitlines()]
    assert (
        lines[0] == ':2: entry number 1: url = "tasks": expected a path that begins with one /, such as /tasks/summary'
    )
    assert lines[1] == ":4: entry number 2: missing key url"
    assert lines[2].startswith(':6: entry number 3: schedule = "now and then": expected such as')
    assert lines[3] == ':9: entry number 4: target = "nobody": expected one of [push.targets]: default'
    assert lines[4].startswith(":10: entry number 4: unknown key shedule; did you mean schedule?")
    assert lines[5] == ":11: unknown key other; expected one of: cron"
