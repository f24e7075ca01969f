"""The scheduler on a real ledger file: each time is put once over all hosts, and never not at all."""

from __future__ import annotations

import logging
import os
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from glassq import host
from glassq.due import CronTimes
from glassq.errors import QueueUnavailable
from glassq.programs import scheduling
from glassq.schedules.opening import schedules_of
from glassq.schedules.scheduler import AGAIN, LOOK, STALE, Scheduler, delivery_id
from glassq.schedules.table import ScheduleTable, read_states
from glassq.settings import LedgerSettings, Route, ScheduleSettings, Settings
from glassq.values import HandlerName

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from glassq.delivery import Delivery
    from tests.postgres import PostgresServer

NOON = datetime(2026, 11, 28, 12, 0, 0, tzinfo=UTC)


@dataclass
class Hosts:
    """Schedulers of several hosts with one ledger and one clock; `put` are the deliveries, in order."""

    url: str
    now: datetime = NOON
    put: list[Delivery] = field(default_factory=list)
    fails: bool = False
    tables: list[ScheduleTable] = field(default_factory=list)

    def table(self) -> ScheduleTable:
        self.tables.append(ScheduleTable(self.url))
        return self.tables[-1]

    def scheduler(self, host: str = "a", *, catch_up: str = "once", cron: str = "*/5 * * * *") -> Scheduler:
        section = ScheduleSettings(name="five", cron=cron, catch_up=catch_up, labels={"kind": "x"}, body="{}")  # type: ignore[arg-type]
        route = Route(source="schedule", handler=HandlerName("m:f"))
        settings = Settings(schedule=(section,), routes=(route,), ledger=LedgerSettings(url=self.url))
        return Scheduler(schedules_of(settings), self.table(), self._put, host, lambda: self.now)

    def _put(self, delivery: Delivery) -> None:
        if self.fails:
            raise QueueUnavailable("away")
        self.put.append(delivery)

    @property
    def due(self) -> list[str]:
        return [delivery.labels["due"][11:16] for delivery in self.put]

    def run(self, scheduler: Scheduler, until: datetime) -> None:
        """Lets the clock go on as the scheduler asks."""
        while self.now < until:
            self.now += timedelta(seconds=max(0.001, scheduler.step()))


@pytest.fixture(params=["sqlite", "postgres"])
def hosts(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Hosts]:
    if request.param == "sqlite":
        made = Hosts(f"sqlite:///{tmp_path}/ledger.db")
    else:
        server: PostgresServer = request.getfixturevalue("postgres")
        made = Hosts(server.url(server.database()).whole)
    yield made
    for table in made.tables:
        table.close()


def test_a_new_schedule_is_due_from_now_on_at_each_of_its_times(hosts: Hosts) -> None:
    hosts.run(hosts.scheduler(), NOON + timedelta(minutes=16))
    assert hosts.due == ["12:05", "12:10", "12:15"]
    first = hosts.put[0]
    assert first.labels == {
        "kind": "x",
        "schedule": "five",
        "due": "2026-11-28T12:05:00Z",
        "event_id": "five 2026-11-28T12:05:00Z",
    }
    assert (first.source, first.body, first.tube) == ("schedule", b"{}", "glassq")
    assert first.id == delivery_id("five", NOON + timedelta(minutes=5)) != hosts.put[1].id


def test_it_sleeps_until_the_next_time_but_never_long(hosts: Hosts) -> None:
    scheduler = hosts.scheduler()
    assert scheduler.step() == LOOK
    hosts.now += timedelta(minutes=4, seconds=53.5)
    assert scheduler.step() == pytest.approx(6.5)


def test_hosts_that_share_a_ledger_put_each_time_once(hosts: Hosts) -> None:
    schedulers = [hosts.scheduler(name) for name in "abcd"]
    for scheduler in schedulers:
        scheduler.step()
    for _ in range(10):
        hosts.now += timedelta(minutes=5)
        threads = [threading.Thread(target=scheduler.step) for scheduler in schedulers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(hosts.due) == len(set(hosts.due)) == 10


def test_a_host_that_dies_over_a_put_is_replaced_and_the_delivery_is_the_same(hosts: Hosts) -> None:
    dead, other = hosts.scheduler("a"), hosts.scheduler("b")
    dead.step()
    hosts.now += timedelta(minutes=5)
    hosts.fails = True
    assert dead.step() == AGAIN
    hosts.fails = False
    assert 0 < other.step() <= LOOK
    assert hosts.put == []
    hosts.now += timedelta(seconds=STALE)
    other.step()
    assert hosts.due == ["12:05"]
    # it was not dead after all, and finds that all is done
    dead.step()
    assert hosts.due == ["12:05"]


def test_two_pools_with_one_host_name_are_two_hosts(hosts: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    section = ScheduleSettings(name="five", cron="*/5 * * * *")
    route = Route(source="schedule", handler=HandlerName("m:f"))
    settings = Settings(schedule=(section,), routes=(route,), ledger=LedgerSettings(url=hosts.url))
    names: list[str] = []
    monkeypatch.setattr(scheduling, "run", lambda settings, parent, name: names.append(name))
    for _ in range(2):
        main = scheduling.main_of(settings)
        assert main is not None
        main()
        # another process, which may have the same pid in its own container
        host.run_name.cache_clear()
    assert names[0] != names[1]
    assert all(name.startswith(f"{host.name()}:{os.getpid()}:") for name in names)
    first, second = map(hosts.scheduler, names)
    first.step()
    hosts.now += timedelta(minutes=5)
    hosts.fails = True
    assert first.step() == AGAIN
    hosts.fails = False
    # the claim is another one's, who may be about to put it
    second.step()
    assert hosts.put == []
    first.step()
    second.step()
    assert hosts.due == ["12:05"]


def test_what_cannot_be_put_is_tried_again_and_said_once(hosts: Hosts, caplog: pytest.LogCaptureFixture) -> None:
    scheduler = hosts.scheduler()
    scheduler.step()
    hosts.now += timedelta(minutes=5)
    hosts.fails = True
    with caplog.at_level(logging.WARNING):
        assert [scheduler.step() for _ in range(3)] == [AGAIN] * 3
        assert [record.levelname for record in caplog.records] == ["ERROR"]
        hosts.fails = False
        scheduler.step()
    assert caplog.messages[-1] == "schedules go on"
    assert hosts.due == ["12:05"]


@pytest.mark.parametrize(("catch_up", "expected"), [("once", ["14:55", "15:00"]), ("skip", ["15:00"])])
def test_times_that_passed_without_a_pool_are_caught_up_once_or_skipped(
    hosts: Hosts, catch_up: str, expected: list[str]
) -> None:
    scheduler = hosts.scheduler(catch_up=catch_up)
    scheduler.step()
    hosts.now = NOON + timedelta(hours=2, minutes=57)
    hosts.run(scheduler, NOON + timedelta(hours=3, minutes=1))
    assert hosts.due == expected


def test_a_time_that_is_a_little_late_is_not_skipped(hosts: Hosts) -> None:
    scheduler = hosts.scheduler(catch_up="skip")
    scheduler.step()
    hosts.now += timedelta(minutes=5, seconds=45)
    scheduler.step()
    assert hosts.due == ["12:05"]


def test_nothing_is_put_while_it_is_paused_and_nothing_is_made_up_for(hosts: Hosts) -> None:
    scheduler, table = hosts.scheduler(), hosts.table()
    scheduler.step()
    table.pause("five", hosts.now)
    hosts.run(scheduler, NOON + timedelta(minutes=22))
    assert hosts.put == []
    table.resume("five", hosts.now)
    hosts.run(scheduler, NOON + timedelta(minutes=26))
    assert hosts.due == ["12:25"]
    assert read_states(hosts.url)["five"].paused is None


def test_a_clock_that_was_wrong_for_a_while_stops_nothing(hosts: Hosts) -> None:
    scheduler = hosts.scheduler()
    hosts.now = NOON + timedelta(days=4000)
    scheduler.step()
    hosts.now = NOON
    hosts.run(scheduler, NOON + timedelta(minutes=6))
    assert hosts.due == ["12:05"]


def test_a_clock_that_is_put_back_repeats_nothing(hosts: Hosts) -> None:
    scheduler = hosts.scheduler()
    hosts.run(scheduler, NOON + timedelta(minutes=6))
    hosts.now = NOON + timedelta(minutes=3)
    hosts.run(scheduler, NOON + timedelta(minutes=11))
    assert hosts.due == ["12:05", "12:10"]


def test_a_ledger_that_cannot_be_written_delays_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    hosts = Hosts(f"sqlite:///{tmp_path}/file/ledger.db")
    assert hosts.scheduler().step() == AGAIN
    assert "schedules cannot be recorded" in caplog.text


def test_a_night_in_autumn_is_worked_once(hosts: Hosts) -> None:
    section = CronTimes.parse("30 2 * * *", "Europe/Berlin")
    hosts.now = datetime(2026, 10, 25, 0, 20, tzinfo=UTC)
    route = Route(source="schedule", handler=HandlerName("m:f"))
    night = ScheduleSettings(name="night", cron=section.expression, zone="Europe/Berlin")
    settings = Settings(schedule=(night,), routes=(route,), ledger=LedgerSettings(url=hosts.url))
    scheduler = Scheduler(schedules_of(settings), hosts.table(), hosts._put, "a", lambda: hosts.now)
    hosts.run(scheduler, datetime(2026, 10, 25, 1, 45, tzinfo=UTC))
    assert [delivery.labels["due"] for delivery in hosts.put] == ["2026-10-25T00:30:00Z"]
