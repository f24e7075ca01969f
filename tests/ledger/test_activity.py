"""Who did what, in a ledger of each kind; and the failures of a delivery that is over."""

from __future__ import annotations

import contextlib
import sqlite3
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa
from msgspec.structs import replace

from glassq.database import pruning
from glassq.delivery import MAX_EVIDENCE, MAX_JOB, MAX_TRACEBACK, Evidence
from glassq.errors import LedgerError
from glassq.ledger import Entry, open_ledger
from glassq.ledger.activity import Activity
from glassq.ledger.activity_writer import ActivityWriter
from glassq.ledger.corrections import Corrections
from glassq.ledger.reader import LedgerReader
from glassq.ledger.schema import VERSION, deliveries, parse_url
from glassq.settings import LedgerSettings
from glassq.values import Duration
from tests.conftest import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NOW = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
NASTY = "a\0b \ud800 'c' \x1b[2J"


def an_activity(name: str = "a-1", *, minutes: float = 0, **fields: str | int) -> Activity:
    about = {"actor": "anna", "via": "cli", "did": "kick", **fields}
    return Activity(id=name, at=NOW + timedelta(minutes=minutes), **about)  # type: ignore[arg-type]


def an_entry(state: str = "done", *, minutes: float = 0, story: tuple[Evidence, ...] = ()) -> Entry:
    updated = NOW + timedelta(minutes=minutes)
    return Entry("d-1", "mirror", NOW, state, 2, updated, 0.25, body=b"x", labels={}, story=story)


def evidence(attempt: int = 1, *, size: int = 10) -> Evidence:
    trace = "x" * size
    return Evidence(attempt, "retry", "ValueError", "no such user", NOW, 0.5, "host-a", trace, detail={"status": 404})


@pytest.fixture(params=["by sqlite3", "by SQLAlchemy", "in PostgreSQL"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> LedgerSettings:
    # the times in these tests are long past, and nothing is to be pruned meanwhile
    url = f"sqlite:///{tmp_path}/100% #1/ledger.db{'' if request.param == 'by sqlite3' else '?timeout=5'}"
    if request.param == "in PostgreSQL":
        server = request.getfixturevalue("postgres")
        url = server.url(server.database()).whole
    return LedgerSettings(url=url, retention=Duration("36500d"))


@pytest.fixture
def written(settings: LedgerSettings) -> LedgerSettings:
    ledger = open_ledger(settings)
    ledger.record(an_entry())
    ledger.close()
    return settings


def listed(settings: LedgerSettings, **wanted: str) -> list[Activity]:
    with LedgerReader(settings) as reader:
        return reader.activities(**wanted)


def test_an_activity_is_read_back_as_it_was_and_changes(written: LedgerSettings) -> None:
    writer = ActivityWriter(written)
    whole = an_activity(
        command="glassq kick --all", filter="all", chosen=9, left=9, run="7", state="running", cause="c"
    )
    writer.add(whole)
    assert (writer.absent(), listed(written)) == ("", [whole])
    writer.change("a-1", {"state": "done", "done": 8, "left": 1, "note": "canary", "ended": NOW})
    assert listed(written) == [replace(whole, state="done", done=8, left=1, note="canary", ended=NOW)]
    # what no database takes, and what is too long
    writer.add(an_activity("a-2", actor=NASTY, note=NASTY + "x" * 5_000, did="d" * 99))
    (odd,) = listed(written, id="a-2")
    assert (odd.actor, odd.did, len(odd.note)) == ("a\\0b \\ud800 'c' \x1b[2J", "d" * 32, 2_000)


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({}, ["n-2", "n-1", "k-2", "k-1"]),
        ({"who": "anna"}, ["n-2", "k-1"]),
        ({"who": "ann_"}, []),
        ({"did": "note"}, ["n-2", "n-1"]),
        ({"did": "note", "cause": "c-1"}, ["n-1"]),
        ({"state": "running"}, ["k-2"]),
        ({"who": ""}, ["n-2", "n-1", "k-2", "k-1"]),
    ],
)
def test_activities_come_newest_first_and_are_filtered(
    written: LedgerSettings, wanted: dict[str, str], expected: list[str]
) -> None:
    writer = ActivityWriter(written)
    writer.add(an_activity("k-1", actor="anna (as root)"))
    writer.add(an_activity("k-2", minutes=1, actor="annabel", state="running"))
    writer.add(an_activity("n-1", minutes=2, actor="bert", did="note", cause="c-1"))
    writer.add(an_activity("n-2", minutes=3, did="note", cause="c-2"))
    assert [each.id for each in listed(written, **wanted)] == expected
    with LedgerReader(written) as reader:
        since = NOW + timedelta(minutes=2)
        assert [each.id for each in reader.activities(since=since, limit=1, **wanted)] == [
            name for name in expected if name.startswith("n")
        ][:1]


def test_a_ledger_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    writer = ActivityWriter(LedgerSettings(url=f"sqlite:///{tmp_path}/ledger.db"))
    assert writer.absent() == f"no ledger at {tmp_path}/ledger.db yet"
    with pytest.raises(LedgerError, match="cannot be written"):
        writer._into_file(tmp_path / "ledger.db", "SELECT 1", {})
    assert list(tmp_path.iterdir()) == []


def test_what_the_pool_did_is_written_once_whoever_of_its_children_says_so(written: LedgerSettings) -> None:
    children = [open_ledger(written) for _ in range(2)]
    for number, child in enumerate(children):
        child.mark(an_activity("generation", via="pool", did="started", note=f"by {number}"))
        wait_for(lambda: [each.did for each in listed(written)] == ["started"], "the pool's activity")
        child.record(an_entry(minutes=number))
        child.close()
    assert [each.note for each in listed(written)] == ["by 0"]
    with LedgerReader(written) as reader:
        assert reader.counts() == {"done": 1}


def test_activities_past_retention_are_pruned(settings: LedgerSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pruning, "PRUNE_SOON", 0.0)
    ledger, now = open_ledger(replace(settings, retention=Duration("30d"))), datetime.now(UTC)
    ledger.mark(replace(an_activity("young"), at=now))
    ledger.mark(replace(an_activity("old"), at=now - timedelta(days=31)))
    wait_for(lambda: [each.id for each in listed(settings)] == ["young"], "the old one to be pruned")
    ledger.close()


def story_of(settings: LedgerSettings) -> tuple[Evidence, ...]:
    with LedgerReader(settings) as reader:
        return reader.story("d-1")


def test_the_failures_of_a_delivery_are_kept_with_it_until_it_is_deleted(written: LedgerSettings) -> None:
    assert story_of(written) == ()
    told = (evidence(1), evidence(2))
    ledger = open_ledger(written)
    ledger.record(an_entry("buried", minutes=1, story=told))
    ledger.close()
    assert story_of(written) == told
    with LedgerReader(written) as reader:
        # no list carries them
        assert [each.story for each in reader.recent(1)] == [()]
    with Corrections(written) as corrections:
        corrections.deleted([("d-1", "by anna")])
    assert story_of(written) == ()


def test_a_story_is_cut_as_a_job_is_and_never_refused(settings: LedgerSettings) -> None:
    huge = tuple(replace(evidence(number, size=9_000), message="\ud800") for number in range(1, 40))
    detail = {"body": "y" * 8_000}
    ledger = open_ledger(settings)
    ledger.record(an_entry(story=huge))
    ledger.record(replace(an_entry(story=tuple(replace(each, detail=detail) for each in huge)), delivery="d-2"))
    # no JSON has these
    ledger.record(replace(an_entry(story=(replace(evidence(), detail={"a": "\ud800"}),)), delivery="d-3"))
    ledger.close()
    told = story_of(settings)
    assert [each.attempt for each in told] == [1, *range(29, 40)]
    assert (len(told), len(told[0].traceback), told[0].message) == (MAX_EVIDENCE, MAX_TRACEBACK, "\\ud800")
    with LedgerReader(settings) as reader:
        assert [each.detail == detail for each in reader.story("d-2")] == [*[False] * 11, True]
        assert (reader.story("d-3"), reader.counts()) == ((), {"done": 3})
        _, rows = reader._database.rows("SELECT max(length(story)) FROM deliveries", {}, None)  # type: ignore[union-attr]
    assert rows[0][0] <= MAX_JOB


def test_a_ledger_that_keeps_no_bodies_keeps_why_attempts_failed(settings: LedgerSettings) -> None:
    ledger = open_ledger(replace(settings, keep_bodies=False))
    ledger.record(an_entry(story=(evidence(),)))
    ledger.close()
    assert story_of(settings) == (evidence(),)


@pytest.fixture
def sixth(database_url: str) -> Iterator[LedgerSettings]:
    """A ledger as version 6 left it, with a row in it."""
    settings = LedgerSettings(url=database_url, retention=Duration("36500d"))
    ledger = open_ledger(settings)
    ledger.record(replace(an_entry("buried"), kept={"content_type": "text/plain"}))
    ledger.close()
    engine = sa.create_engine(parse_url(database_url))
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE glassq_activity")
        connection.exec_driver_sql("ALTER TABLE deliveries DROP COLUMN story")
        connection.exec_driver_sql("UPDATE meta SET value = 6 WHERE name = 'schema'")
    engine.dispose()
    yield settings


@pytest.mark.parametrize("by", ["the pool", "an operator"])
def test_a_ledger_of_version_6_is_brought_to_ours_and_loses_nothing(sixth: LedgerSettings, by: str) -> None:
    before = LedgerReader(sixth)
    assert (before.version, before.story("d-1"), before.activities()) == (6, (), [])
    entry, ping = before.get("d-1"), before.recorded_ping("d-1")
    before.close()
    if by == "the pool":
        ledger = open_ledger(sixth)
        ledger.mark(an_activity())
        ledger.close()
    else:
        ActivityWriter(sixth).add(an_activity())
    with LedgerReader(sixth) as reader:
        assert (reader.version, reader.get("d-1"), reader.recorded_ping("d-1")) == (VERSION, entry, ping)
        assert reader.activities() == [an_activity()]
        assert [each.delivery for each in reader.recent(9, "buried")] == ["d-1"]
    engine = sa.create_engine(parse_url(sixth.url))
    # word for word what version 6 writes
    names = [column.name for column in deliveries.columns if column.name != "story"]
    listed_, marks = ", ".join(names), ", ".join(f":{name}" for name in names)
    changes = ", ".join(f"{name} = excluded.{name}" for name in names if name not in ("delivery", "replayed"))
    statement = (
        f"INSERT INTO deliveries ({listed_}) VALUES ({marks}) "
        f"ON CONFLICT (delivery) DO UPDATE SET {changes} WHERE deliveries.updated <= excluded.updated"
    )
    row = dict.fromkeys(names) | dict.fromkeys(("job", "result", "reason", "fingerprint", "event", "tube"), "")
    row |= {"delivery": "d-1", "source": "mirror", "received": "2026-01-31T12:00:00.000000Z", "state": "done"}
    row |= {"attempts": 3, "updated": "2026-02-01T12:00:00.000000Z", "duration": 0.5, "replayed": ""}
    with engine.begin() as old:
        old.execute(sa.text(statement), row)
        # it is let in
        assert old.execute(sa.text("SELECT value FROM meta WHERE name = 'schema:oldest'")).scalar() == 5
    engine.dispose()
    with LedgerReader(sixth) as reader:
        assert reader.counts() == {"done": 1}


@pytest.mark.parametrize("query", ["recent", "jobs", "open_counts"])
def test_what_lies_buried_is_found_without_reading_every_row(tmp_path: Path, query: str) -> None:
    settings = LedgerSettings(url=f"sqlite:///{tmp_path}/ledger.db")
    ledger = open_ledger(settings)
    ledger.record(an_entry("buried"))
    ledger.close()
    asked: list[str] = []
    with LedgerReader(settings) as reader:
        reader._database._connection.set_trace_callback(asked.append)  # type: ignore[union-attr]
        {"recent": lambda: reader.recent(5, "buried"), "jobs": lambda: reader.jobs("buried")}.get(
            query, reader.open_counts
        )()
    with contextlib.closing(sqlite3.connect(tmp_path / "ledger.db")) as database:
        (plan,) = database.execute(f"EXPLAIN QUERY PLAN {asked[0]}").fetchall()[:1]
    assert "deliveries_open" in plan[3]
