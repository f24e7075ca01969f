"""The ledger's writing side, on real SQLite files."""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa
from msgspec.structs import replace

from glassq.database import engine, pruning
from glassq.errors import SettingsError
from glassq.ledger import Entry, open_ledger, sql
from glassq.ledger.reader import LedgerReader
from glassq.ledger.schema import OLDEST, VERSION, parse_url
from glassq.ledger.sql import SqlLedger
from glassq.settings import LedgerSettings
from glassq.values import Duration
from tests.conftest import ROOT, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NOW = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)


def settings_for(place: Path | str, retention: str = "36500d") -> LedgerSettings:
    # the times in these tests are long past, and nothing is to be pruned meanwhile
    url = place if isinstance(place, str) else f"sqlite:///{place}"
    return LedgerSettings(url=url, retention=Duration(retention))


def an_entry(
    delivery: str = "d-1", *, state: str = "done", minutes: float = 0, reason: str = "", job: str = ""
) -> Entry:
    updated = NOW + timedelta(minutes=minutes)
    return Entry(delivery, "mirror", NOW, state, 1, updated, 0.25, job=job, result="stored", reason=reason)


def stored(settings: LedgerSettings, delivery: str) -> Entry | None:
    with LedgerReader(settings) as reader:
        return reader.get(delivery)


def count(settings: LedgerSettings) -> int:
    with LedgerReader(settings) as reader:
        return sum(reader.counts().values())


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "state" / "database.db"


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trouble is noticed, and given up, in a tenth of the time."""
    for module, name in ((engine, "BUSY"), (sql, "RETRY"), (sql, "RETRY_CAP"), (sql, "LAST_TRY")):
        monkeypatch.setattr(module, name, getattr(module, name) / 10)


@pytest.fixture
def ledger(database_url: str) -> Iterator[SqlLedger]:
    opened = open_ledger(settings_for(database_url))
    yield opened
    opened.close()


def test_what_is_recorded_is_read_back_as_it_was(database_url: str, ledger: SqlLedger) -> None:
    entry = an_entry(state="buried", reason="no such user", job="17")
    ledger.record(entry)
    ledger.close()
    assert stored(settings_for(database_url), "d-1") == entry


def test_entries_are_written_without_being_asked(database_url: str, ledger: SqlLedger) -> None:
    ledger.record(an_entry())
    wait_for(lambda: count(settings_for(database_url)) == 1, "the entry to be written")


def test_nothing_is_made_before_the_first_entry(file: Path, ledger: SqlLedger) -> None:
    ledger.close()
    assert not file.parent.exists()


def test_only_the_owner_may_read_the_file_and_its_directory(file: Path, ledger: SqlLedger) -> None:
    ledger.record(an_entry())
    wait_for(lambda: (file.parent / "database.db-wal").exists(), "the write-ahead log")
    made = {path.name: path.stat().st_mode & 0o777 for path in [file.parent, *file.parent.iterdir()]}
    assert made == {"state": 0o700, "database.db": 0o600, "database.db-wal": 0o600, "database.db-shm": 0o600}


def test_one_delivery_keeps_one_row_with_what_came_last(database_url: str, ledger: SqlLedger) -> None:
    for minutes, state in enumerate(["retrying", "retrying", "done"]):
        ledger.record(an_entry(state=state, minutes=minutes))
    ledger.close()
    found = stored(settings_for(database_url), "d-1")
    assert found is not None
    assert (found.state, count(settings_for(database_url))) == ("done", 1)


@pytest.mark.parametrize("together", [True, False], ids=["in one batch", "from two processes"])
def test_an_entry_that_comes_late_does_not_turn_time_back(database_url: str, together: bool) -> None:
    newer, older = an_entry(state="done", minutes=2), an_entry(state="retrying", minutes=1)
    first = open_ledger(settings_for(database_url))
    second = first if together else open_ledger(settings_for(database_url))
    first.record(newer)
    if not together:
        first.close()
    second.record(older)
    second.close()
    assert stored(settings_for(database_url), "d-1") == newer


@pytest.mark.parametrize(
    "text", ["\ud800 half a pair", "a NUL \0 inside", "'); DROP TABLE deliveries; --", "☃" * 5_000]
)
def test_no_text_keeps_an_entry_or_its_neighbours_from_being_written(
    database_url: str, ledger: SqlLedger, text: str
) -> None:
    ledger.record(an_entry("strange", reason=text))
    ledger.record(an_entry("plain"))
    ledger.close()
    assert count(settings_for(database_url)) == 2


_WRITE = """
import sys, time
from datetime import UTC, datetime
from glassq.ledger import Entry, open_ledger, sql
from glassq.ledger.reader import LedgerReader
from glassq.settings import LedgerSettings
url, name, number = sys.argv[1], sys.argv[2], int(sys.argv[3])
ledger = open_ledger(LedgerSettings(url=url))
now = datetime.now(UTC)
for index in range(number):
    ledger.record(Entry(f"{name}-{index}", "mirror", now, "done", 1, now, 0.1))
    ledger.record(Entry(f"shared-{index}", "mirror", now, "done", 1, datetime.now(UTC), 0.1))
# entries are written in their order; close() waits for them no longer than a stop may take
def written(delivery):
    with LedgerReader(LedgerSettings(url=url)) as reader:
        return reader.get(delivery) is not None
while not written(f"{name}-{number - 1}"):
    time.sleep(0.05)
ledger.close()
"""


def test_processes_that_start_and_write_at_once_lose_nothing(database_url: str) -> None:
    url = settings_for(database_url).url
    writers = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", _WRITE, url, f"p{number}", "300"], stderr=subprocess.PIPE, text=True
        )
        for number in range(3)
    ]
    said = [writer.communicate(timeout=60)[1] for writer in writers]
    assert [writer.returncode for writer in writers] == [0] * 3, said
    # logging without set-up prints errors; there must be none
    assert said == [""] * 3
    assert count(settings_for(database_url)) == 3 * 300 + 300


@pytest.mark.usefixtures("impatient")
def test_a_lock_that_others_hold_for_long_is_waited_for(
    file: Path, ledger: SqlLedger, caplog: pytest.LogCaptureFixture
) -> None:
    ledger.record(an_entry("first"))
    wait_for(lambda: count(settings_for(file)) == 1, "the first entry")
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        ledger.record(an_entry("second"))
        wait_for(lambda: "cannot be written" in caplog.text, "the trouble to be told")
        other.execute("ROLLBACK")
    wait_for(lambda: count(settings_for(file)) == 2, "the second entry")
    assert "locked" in caplog.text


@pytest.mark.usefixtures("impatient")
def test_a_ledger_that_cannot_be_written_is_told_once_and_its_recovery_too(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "glassq.ledger")
    in_the_way = tmp_path / "state"
    in_the_way.write_text("a file where the directory should be")
    settings = settings_for(in_the_way / "ledger.db")
    ledger = open_ledger(settings)
    for index in range(500):
        ledger.record(an_entry(f"d-{index}"))
    wait_for(lambda: "cannot be written" in caplog.text, "the trouble to be told")
    in_the_way.unlink()
    wait_for(lambda: "written again" in caplog.text, "the recovery to be told")
    ledger.close()
    assert count(settings) == 500
    assert [record.levelname for record in caplog.records] == ["ERROR", "INFO"]


@pytest.mark.usefixtures("impatient")
def test_what_waits_is_bounded_and_the_oldest_go_first(
    file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "glassq.ledger")
    file.mkdir(parents=True)
    ledger = SqlLedger(sa.make_url(f"sqlite:///{file}"), retention=1e9, bound=300)
    for index in range(1_000):
        ledger.record(an_entry(f"d-{index:04}"))
    wait_for(lambda: "cannot be written" in caplog.text, "the trouble to be told")
    file.rmdir()
    wait_for(lambda: "written again" in caplog.text, "the recovery to be told")
    ledger.close()
    with LedgerReader(settings_for(file)) as reader:
        kept = sorted(entry.delivery for entry in reader.recent(1_000))
    assert kept == [f"d-{index:04}" for index in range(700, 1_000)]
    assert "dropped=700" in caplog.text


@pytest.mark.usefixtures("impatient")
def test_bodies_that_wait_are_bounded_and_the_record_is_whole_all_the_same(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "glassq.ledger")
    file.mkdir(parents=True)
    ledger = SqlLedger(sa.make_url(f"sqlite:///{file}"), retention=1e9, bodies=50_000)
    for index in range(20):
        ledger.record(replace(an_entry(f"a-{index:02}"), body=b"x" * 10_000, labels={}))
    wait_for(lambda: "cannot be written" in caplog.text, "the trouble to be told")
    file.rmdir()
    wait_for(lambda: "written again" in caplog.text, "the recovery to be told")
    # there is room again
    ledger.record(replace(an_entry("b"), body=b"x" * 45_000, labels={"a": "b"}))
    ledger.close()
    with LedgerReader(settings_for(file)) as reader:
        kept = {each.delivery for each in reader.finished("done") if each.kept}
        assert sum(reader.counts().values()) == 21
    assert kept == {"a-00", "a-01", "a-02", "a-03", "a-04", "b"}
    assert caplog.text.count("bodies are not kept") == 1
    assert "without_body=15" in caplog.text


def test_a_ledger_that_keeps_no_bodies_writes_none(file: Path) -> None:
    ledger = open_ledger(LedgerSettings(url=f"sqlite:///{file}", retention=Duration("36500d"), keep_bodies=False))
    ledger.record(replace(an_entry(), body=b"a token", labels={"collection": "timeline"}))
    ledger.close()
    assert stored(settings_for(file), "d-1") == an_entry()
    assert not any(b"a token" in path.read_bytes() for path in file.parent.iterdir())


@pytest.mark.usefixtures("impatient")
def test_closing_a_ledger_that_cannot_be_written_says_what_is_lost(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file.mkdir(parents=True)
    ledger = open_ledger(settings_for(file))
    for index in range(3):
        ledger.record(an_entry(f"d-{index}"))
    ledger.close()
    assert "ledger closed with entries unwritten entries=3" in caplog.text


def test_a_file_that_is_removed_while_it_is_written_is_begun_anew(
    file: Path, ledger: SqlLedger, caplog: pytest.LogCaptureFixture
) -> None:
    ledger.record(an_entry("before"))
    wait_for(lambda: count(settings_for(file)) == 1, "the first entry")
    for path in file.parent.iterdir():
        path.unlink()
    file.parent.rmdir()
    ledger.record(an_entry("after"))
    wait_for(lambda: stored(settings_for(file), "after") is not None, "the entry in the new file")
    assert caplog.text.count("moved or removed") == 1


def test_what_is_past_retention_is_pruned_and_the_rest_is_kept(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # the time of the first pruning is drawn at random; here it is now
    monkeypatch.setattr(pruning, "PRUNE_SOON", 0.0)
    before = open_ledger(settings_for(database_url, "100000d"))
    now = datetime.now(UTC)
    for index in range(1_200):
        before.record(Entry(f"old-{index}", "mirror", now, "done", 1, now - timedelta(days=31), 0.1))
    before.record(Entry("young", "mirror", now, "done", 1, now - timedelta(days=29), 0.1))
    before.close()
    assert count(settings_for(database_url)) == 1_201
    after = open_ledger(settings_for(database_url, "30d"))
    after.record(Entry("new", "mirror", now, "done", 1, now, 0.1))
    wait_for(lambda: count(settings_for(database_url)) == 2, "old rows to be pruned")
    after.close()
    with LedgerReader(settings_for(database_url)) as reader:
        assert [entry.delivery for entry in reader.recent(9)] == ["new", "young"]


@pytest.mark.usefixtures("impatient")
def test_a_schema_of_the_future_is_left_alone(file: Path, ledger: SqlLedger, caplog: pytest.LogCaptureFixture) -> None:
    ledger.record(an_entry("old"))
    ledger.close()
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as future:
        future.execute("UPDATE meta SET value = 99 WHERE name IN ('schema', 'schema:oldest')")
    other = open_ledger(settings_for(file))
    other.record(an_entry("new"))
    wait_for(lambda: "cannot be written" in caplog.text, "the trouble to be told")
    other.close()
    assert f"its schema is version 99, this glassq knows {VERSION}" in caplog.text
    with contextlib.closing(sqlite3.connect(file)) as future:
        assert future.execute("SELECT delivery FROM deliveries").fetchall() == [("old",)]


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("/var/lib/ledger.db", "expected a database URL"),
        ("nosuch://host/db", "knows no nosuch database"),
        ("postgresql+asyncpg://ada:hunter2@host/db", "its Python driver is missing"),
    ],
)
def test_a_url_that_cannot_be_used_is_refused_at_once(url: str, expected: str) -> None:
    with pytest.raises(SettingsError, match=expected) as refused:
        open_ledger(LedgerSettings(url=url))
    assert "hunter2" not in str(refused.value)


def test_importing_the_ledger_starts_and_opens_nothing(tmp_path: Path) -> None:
    code = "import threading; import glassq.ledger; print(threading.active_count())"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert (said.stdout, list(tmp_path.iterdir())) == ("1\n", [])


# The schema of version 1, as SQLite has it.
_FIRST = """
CREATE TABLE deliveries (delivery VARCHAR(64) NOT NULL PRIMARY KEY, source VARCHAR(64) NOT NULL,
    received VARCHAR(27) NOT NULL, state VARCHAR(16) NOT NULL, attempts INTEGER NOT NULL, updated VARCHAR(27) NOT NULL,
    duration FLOAT NOT NULL, job BIGINT NOT NULL, result TEXT NOT NULL, reason TEXT NOT NULL);
CREATE INDEX ix_deliveries_updated ON deliveries (updated);
CREATE TABLE meta (name VARCHAR(16) NOT NULL PRIMARY KEY, value INTEGER NOT NULL);
INSERT INTO meta VALUES ('schema', 1);
INSERT INTO deliveries VALUES ('old', 'mirror', '2026-01-30T12:00:00.000000Z', 'done', 2,
    '2026-01-30T12:00:05.000000Z', 0.5, 0, 'stored', '');
"""


@pytest.fixture
def first_version(file: Path) -> Path:
    file.parent.mkdir()
    with contextlib.closing(sqlite3.connect(file)) as made:
        made.executescript(_FIRST)
    return file


def test_a_ledger_of_the_first_version_is_read_as_it_is(first_version: Path) -> None:
    found = stored(settings_for(first_version), "old")
    assert found is not None
    assert (found.state, found.result, found.started, found.fingerprint) == ("done", "stored", None, "")


def test_a_ledger_of_the_first_version_is_brought_to_ours_and_keeps_its_rows(first_version: Path) -> None:
    writers = [open_ledger(settings_for(first_version)) for _ in range(3)]
    for number, writer in enumerate(writers):
        writer.record(an_entry(f"new-{number}"))
    for writer in writers:
        writer.close()
    assert count(settings_for(first_version)) == 4
    fresh = first_version.parent / "fresh.db"
    ledger = open_ledger(settings_for(fresh))
    ledger.record(an_entry())
    ledger.close()
    shapes = []
    for each in (first_version, fresh):
        with contextlib.closing(sqlite3.connect(each)) as database:
            columns = database.execute("SELECT name, \"notnull\" FROM pragma_table_info('deliveries')").fetchall()
            indexes = database.execute("SELECT name FROM pragma_index_list('deliveries')").fetchall()
            version = database.execute("SELECT value FROM meta").fetchall()
            shapes.append((columns, {name for (name,) in indexes if name.startswith("ix_")}, version))
    assert shapes[0] == shapes[1]


def test_numbers_of_jobs_in_a_ledger_before_version_5_are_references_from_then_on(first_version: Path) -> None:
    with contextlib.closing(sqlite3.connect(first_version)) as database:
        database.execute("UPDATE deliveries SET job = 17, state = 'buried'")
        database.commit()
    before = stored(settings_for(first_version), "old")
    writer = open_ledger(settings_for(first_version))
    # a row that a pool of the version before still writes
    with contextlib.closing(sqlite3.connect(first_version)) as database:
        database.execute(
            "INSERT INTO deliveries (delivery, source, received, state, attempts, updated, duration, job, result,"
            " reason) SELECT 'older', source, received, state, attempts, updated, duration, 0, result, reason"
            " FROM deliveries"
        )
        database.commit()
    writer.record(an_entry("new", state="buried", job="0199-text"))
    writer.close()
    with LedgerReader(settings_for(first_version)) as reader:
        assert sorted(reader.jobs("buried")) == ["0199-text", "17"]
        found = [reader.exactly(name) for name in ("old", "older", "new")]
    assert before is not None
    assert [each and each.job for each in (before, *found)] == ["17", "17", "", "0199-text"]


def test_a_first_version_that_is_asked_for_duplicates_knows_none(
    first_version: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ledger = open_ledger(settings_for(first_version))
    assert ledger.done_since("f", NOW, but="x") == ledger.event_done("e", NOW, but="x") == ""
    assert caplog.text.count("cannot be asked for duplicates") == 1
    ledger.record(an_entry("new"))
    wait_for(lambda: count(settings_for(first_version)) == 2, "the schema to be brought to ours")
    assert ledger.done_since("f", NOW, but="x") == ""
    assert caplog.text.count("cannot be asked for duplicates") == 1
    ledger.close()


def test_what_was_done_is_found_by_fingerprint_and_by_event(database_url: str, ledger: SqlLedger) -> None:
    now = datetime.now(UTC)
    started = now - timedelta(seconds=10)
    for name, state in (("done", "done"), ("failed", "retrying")):
        ledger.record(
            Entry(name, "mirror", NOW, state, 1, now, 0.1, started=started, fingerprint=f"f-{name}", event=f"e-{name}")
        )
    assert ledger.done_since("f-done", started - timedelta(seconds=1), but="x") == ""
    wait_for(lambda: count(settings_for(database_url)) == 2, "the entries")
    assert ledger.done_since("f-done", started - timedelta(microseconds=1), but="x") == "done"
    assert ledger.done_since("f-done", started, but="x") == ""
    assert ledger.done_since("f-done", started - timedelta(seconds=1), but="done") == ""
    assert ledger.done_since("f-failed", started - timedelta(seconds=1), but="x") == ""
    assert ledger.event_done("e-done", now, but="x") == "done"
    assert ledger.event_done("e-done", now + timedelta(microseconds=1), but="x") == ""
    assert ledger.event_done("e-failed", NOW, but="x") == ""


def test_a_process_that_ends_takes_no_entries_of_the_others_with_it(file: Path, ledger: SqlLedger) -> None:
    """Whoever closes a descriptor of the file loses SQLite's locks on it; another process deletes the -wal then."""
    program = """
import sys
from glassq.ledger import open_ledger
from glassq.settings import LedgerSettings
from tests.ledger.test_sql import an_entry
ledger = open_ledger(LedgerSettings(url=sys.argv[1]))
ledger.record(an_entry(sys.argv[2]))
ledger.close()
"""

    def another(name: str) -> None:
        subprocess.run([sys.executable, "-c", program, settings_for(file).url, name], check=True, cwd=ROOT)

    def seen_from_outside() -> set[str]:
        read = "import sqlite3, sys; print(*(row[0] for row in sqlite3.connect(sys.argv[1]).execute(sys.argv[2])))"
        arguments = [sys.executable, "-c", read, str(file), "SELECT delivery FROM deliveries"]
        return set(subprocess.run(arguments, check=True, capture_output=True, text=True).stdout.split())

    another("first")
    # a look before the first entry: the database is open already when the writer opens it
    assert ledger.done_since("f", NOW, but="x") == ""
    ledger.record(an_entry("ours-1"))
    wait_for(lambda: "ours-1" in seen_from_outside(), "our first entry")
    another("second")
    ledger.record(an_entry("ours-2"))
    wait_for(lambda: "ours-2" in seen_from_outside(), "what we write after the other has ended", 10)
    assert seen_from_outside() >= {"first", "second", "ours-1", "ours-2"}


def test_what_is_not_over_is_written_before_its_process_may_die(file: Path) -> None:
    pid = os.fork()
    if not pid:
        ledger = open_ledger(settings_for(file))
        for number in range(3):
            ledger.record(an_entry(f"d-{number}", state="buried"))
            ledger.settle(60.0)
        os._exit(0)
    os.waitpid(pid, 0)
    assert all(stored(settings_for(file), f"d-{number}") for number in range(3))


@pytest.mark.usefixtures("impatient")
def test_a_ledger_that_cannot_be_written_holds_nobody_up(tmp_path: Path) -> None:
    (tmp_path / "state").touch()
    ledger = open_ledger(settings_for(tmp_path / "state" / "ledger.db"))
    ledger.record(an_entry(state="buried"))
    # else the test hangs
    ledger.settle(600.0)
    ledger.close()


def test_pools_of_both_versions_write_while_a_database_is_upgraded(database_url: str) -> None:
    """What the version before writes and reads, word for word, on the tables as they are now; and ours on its rows."""
    new = open_ledger(settings_for(database_url))
    new.record(replace(an_entry("new"), kept={"content_type": "text/plain"}))
    new.close()
    engine = sa.create_engine(parse_url(database_url))
    columns = "delivery, source, received, state, attempts, updated, duration, job, result, reason, started,"
    columns += " fingerprint, event, tube, body, labels, replayed"
    values = ", ".join(f":{name.strip()}" for name in columns.split(","))
    row = dict.fromkeys(("result", "reason", "fingerprint", "event", "tube", "labels", "replayed"), "")
    moments = dict.fromkeys(("received", "updated", "started"), "2026-01-31T12:00:00.000000Z")
    with engine.begin() as old:
        old.execute(
            sa.text(f"INSERT INTO deliveries ({columns}) VALUES ({values})"),
            {**row, **moments, "delivery": "old", "source": "s", "state": "done", "attempts": 1, "duration": 0.5}
            | {"job": "1", "body": None},
        )
        # it is let in: its version is not older than the oldest one that may use these tables
        assert old.execute(sa.text("SELECT value FROM meta WHERE name = 'schema:oldest'")).scalar() == OLDEST
    engine.dispose()
    assert {name: stored(settings_for(database_url), name) is not None for name in ("old", "new")} == {
        "old": True,
        "new": True,
    }


def test_a_schema_of_the_next_version_is_used_if_it_says_so(database_url: str, ledger: SqlLedger) -> None:
    ledger.record(an_entry("before"))
    ledger.close()
    engine = sa.create_engine(parse_url(database_url))
    with engine.begin() as next_version:
        for statement in (
            f"UPDATE meta SET value = {VERSION + 1} WHERE name = 'schema'",
            f"UPDATE meta SET value = {VERSION} WHERE name = 'schema:oldest'",
            "ALTER TABLE deliveries ADD COLUMN something VARCHAR(9)",
        ):
            next_version.exec_driver_sql(statement)
    again = open_ledger(settings_for(database_url))
    again.record(an_entry("after"))
    again.close()
    assert count(settings_for(database_url)) == 2
    with engine.connect() as connection:
        assert connection.execute(sa.text("SELECT value FROM meta WHERE name = 'schema'")).scalar() == VERSION + 1
    engine.dispose()
