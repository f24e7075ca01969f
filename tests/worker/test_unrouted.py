"""What becomes of a delivery that no route in effect takes, by what the settings on disk say."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import msgspec
import pytest

from glassq import delivery as envelope
from glassq import routes
from glassq.errors import Bury, Drop, Retry
from glassq.settings import POOL, TASK_SOURCE, Settings, load
from glassq.worker.unrouted import MAX_ROLLOUT, WAIT, WAIT_CAP, Unrouted

if TYPE_CHECKING:
    from pathlib import Path

    from glassq.delivery import Delivery

OLD = """
[sources.shop]
kind = "github"
secrets_file = "shop"
[[routes]]
source = "shop"
match = {event = "push"}
handler = "handlers:handle"
"""
NEW = OLD + '[sources.fresh]\nkind = "stripe"\nsecrets_file = "fresh"\n'
ROUTE = '[[routes]]\nsource = "{}"\nhandler = "handlers:handle"\n'
PUSH = "[push]\n"


class Reading:
    """Settings in a file that a child has read; counts how often it reads them again."""

    def __init__(self, directory: Path, text: str = OLD) -> None:
        self.file = directory / "glassq.toml"
        self.file.write_text(text)
        self.times = 0
        self.unrouted = Unrouted(load(str(self.file), {}, POOL), self._again)

    def _again(self, file: str) -> tuple[routes.Route, ...]:
        self.times += 1
        return routes.all_routes(load(file, {}, POOL))


def ping(source: str, event: str = "", age: float = 0.0) -> Delivery:
    made = envelope.new(source, b"{}", {"event": event} if event else {})
    return msgspec.structs.replace(made, received=datetime.now(UTC) - timedelta(seconds=age))


@pytest.mark.parametrize(
    ("on_disk", "source", "event", "age", "verdict", "reason"),
    [
        (OLD, "shop", "star", 0, Drop, "no route"),
        # a comment, another section: no route is newer
        (OLD + "# by hand\n[worker]\nprocesses = 3\n", "shop", "star", 0, Drop, "no route"),
        (OLD + ROUTE.format("shop"), "shop", "star", 0, Retry, "reload glassq-worker"),
        (OLD + ROUTE.format("shop"), "shop", "star", 2 * MAX_ROLLOUT, Retry, "reload glassq-worker"),
        (NEW + ROUTE.format("fresh"), "fresh", "", 0, Retry, "reload glassq-worker"),
        # intake may know it by now, and its route comes later, or on this host later
        (NEW, "fresh", "", 0, Retry, "no [sources.fresh]"),
        (OLD, "fresh", "", MAX_ROLLOUT / 2, Retry, "no [sources.fresh]"),
        (OLD, "fresh", "", MAX_ROLLOUT + 60, Bury, "no [sources.fresh]"),
        (OLD, TASK_SOURCE, "", 0, Drop, "no route"),
        (OLD + PUSH, TASK_SOURCE, "", 0, Retry, "reload glassq-worker"),
        # half written
        (OLD + "[[routes]\n", "shop", "star", 0, Retry, "cannot be read"),
        (None, "shop", "star", 0, Retry, "cannot be read"),
        # wrong in what no pool reads
        (OLD + "[intake]\nthread = 4\n", "shop", "star", 0, Drop, "no route"),
    ],
)
def test_only_a_delivery_for_which_no_newer_settings_may_have_a_route_is_dropped(
    tmp_path: Path, on_disk: str | None, source: str, event: str, age: float, verdict: type, reason: str
) -> None:
    reading = Reading(tmp_path)
    if on_disk is None:
        reading.file.unlink()
    else:
        reading.file.write_text(on_disk)
    found = reading.unrouted.verdict(ping(source, event, age))
    assert type(found) is verdict
    assert reason in found.reason


def test_a_wait_costs_no_attempt_and_grows(tmp_path: Path) -> None:
    reading = Reading(tmp_path)
    delays = []
    for waits in (0, 1, 50):
        found = reading.unrouted.verdict(msgspec.structs.replace(ping("fresh"), waits=waits))
        assert isinstance(found, Retry)
        assert not found.counts
        delays.append(found.delay)
    assert delays == [WAIT, 2 * WAIT, WAIT_CAP]


def test_the_settings_on_disk_are_read_again_only_after_a_change(tmp_path: Path) -> None:
    reading = Reading(tmp_path)
    for _ in range(3):
        assert isinstance(reading.unrouted.verdict(ping("shop", "star")), Drop)
    assert reading.times == 1
    reading.file.write_text(OLD + ROUTE.format("shop"))
    for _ in range(3):
        assert isinstance(reading.unrouted.verdict(ping("shop", "star")), Retry)
    assert reading.times == 2


def test_a_pool_without_sections_of_sources_knows_those_of_its_routes(tmp_path: Path) -> None:
    reading = Reading(tmp_path, '[[routes]]\nsource = "shop"\nmatch = {event = "push"}\nhandler = "handlers:handle"\n')
    assert isinstance(reading.unrouted.verdict(ping("shop", "star")), Drop)
    assert isinstance(reading.unrouted.verdict(ping("fresh")), Retry)


def test_without_a_settings_file_nothing_is_newer(tmp_path: Path) -> None:
    unrouted = Unrouted(Settings(), lambda _: ())
    assert isinstance(unrouted.verdict(ping(TASK_SOURCE)), Drop)
