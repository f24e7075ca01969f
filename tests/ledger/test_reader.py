"""The ledger's reading side: it changes and creates nothing."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from glassq.errors import LedgerError
from glassq.ledger import Entry, open_ledger
from glassq.ledger.corrections import Corrections
from glassq.ledger.figures import CONTENTS, MINUTES, TIMINGS
from glassq.ledger.reader import LedgerReader, _SqliteReader
from glassq.settings import LedgerSettings
from glassq.values import QueueUrl
from tests.conftest import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.postgres import PostgresServer

NOW = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)


@pytest.fixture(params=["", "?timeout=5"], ids=["by sqlite3", "by SQLAlchemy"])
def in_a_file(request: pytest.FixtureRequest, tmp_path: Path) -> LedgerSettings:
    # names that mean something in a URI
    return LedgerSettings(url=f"sqlite:///{tmp_path}/100% #1/ledger.db{request.param}")


@pytest.fixture(params=["by sqlite3", "by SQLAlchemy", "in PostgreSQL"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> LedgerSettings:
    if request.param == "in PostgreSQL":
        server: PostgresServer = request.getfixturevalue("postgres")
        return LedgerSettings(url=server.url(server.database()).whole)
    return LedgerSettings(url=f"sqlite:///{tmp_path}/ledger.db{'' if request.param == 'by sqlite3' else '?timeout=5'}")


@pytest.fixture
def written(settings: LedgerSettings) -> LedgerSettings:
    ledger = open_ledger(settings)
    for index, state in enumerate(["done", "done", "buried", "retrying", "done"]):
        updated = NOW + timedelta(hours=index)
        ledger.record(Entry(f"0199-{index}", "mirror", NOW, state, index + 1, updated, 0.5, job=str(index or "")))
    ledger.record(Entry("0199-4-and-more", "mirror", NOW, "dropped", 1, NOW - timedelta(days=2), 0.5))
    ledger.close()
    return settings


@pytest.fixture
def user_without_rights() -> Iterator[None]:
    # root may do everything
    user = os.geteuid()
    os.seteuid(user or 65_534)
    yield
    os.seteuid(user)


def test_a_ledger_that_nobody_wrote_is_empty_says_so_and_is_not_created(
    in_a_file: LedgerSettings, tmp_path: Path
) -> None:
    with LedgerReader(in_a_file) as reader:
        assert reader.absent in (
            f"no ledger at {tmp_path}/100% #1/ledger.db yet",
            f"the ledger at {in_a_file.url} is still empty",
        )
        assert (reader.get("0199"), reader.find("0199"), reader.recent(5), reader.counts()) == (None, [], [], {})
    assert list(tmp_path.iterdir()) == []


def test_a_prefix_finds_what_it_fits_and_an_exact_id_comes_alone(written: LedgerSettings) -> None:
    with LedgerReader(written) as reader:
        assert [entry.delivery for entry in reader.find("0199-4")] == ["0199-4"]
        assert [entry.delivery for entry in reader.find("0199-4-")] == ["0199-4-and-more"]
        assert len(reader.find("0199")) == 6
        assert reader.get("0199") is None
        assert reader.get("0199-4-a") is not None


@pytest.mark.parametrize("prefix", ["%", "0199_", "0199-%"])
def test_wildcards_of_sql_are_letters_here(written: LedgerSettings, prefix: str) -> None:
    with LedgerReader(written) as reader:
        assert reader.find(prefix) == []


def test_recent_entries_come_newest_first_and_by_state(written: LedgerSettings) -> None:
    with LedgerReader(written) as reader:
        assert [entry.delivery for entry in reader.recent(2)] == ["0199-4", "0199-3"]
        assert [entry.delivery for entry in reader.recent(2, "done")] == ["0199-4", "0199-1"]


def test_an_entry_comes_back_as_it_was_recorded(settings: LedgerSettings) -> None:
    entry = Entry(
        "0199", "push", NOW, "done", 2, NOW, 0.5, "7", "a", "b", started=NOW, fingerprint="f", event="e", tube="t"
    )
    ledger = open_ledger(settings)
    ledger.record(entry)
    ledger.close()
    with LedgerReader(settings) as reader:
        assert reader.get("0199") == entry


def test_what_a_delivery_is_made_of_is_asked_for_apart(settings: LedgerSettings) -> None:
    body, labels = bytes(range(256)) * 100, {"collection": "time\0line", "ü": "\x1b[2J"}
    ledger = open_ledger(settings)
    ledger.record(Entry("0199", "mirror", NOW, "done", 1, NOW, 0.5, body=body, labels=labels))
    ledger.record(Entry("019a", "mirror", NOW, "done", 1, NOW, 0.5))
    ledger.close()
    with LedgerReader(settings) as reader:
        assert reader.get("0199") == reader.exactly("0199") == Entry("0199", "mirror", NOW, "done", 1, NOW, 0.5)
        content = reader.recorded_ping("0199")
        assert content is not None
        assert (content.source, content.labels, content.body) == ("mirror", labels, body)
        assert (reader.recorded_ping("019a"), reader.recorded_ping("01"), reader.exactly("01")) == (None, None, None)


def test_what_is_over_comes_oldest_first_and_says_whether_its_body_is_kept(settings: LedgerSettings) -> None:
    ledger = open_ledger(settings)
    for index, hours in enumerate([3, 1, 2]):
        received = NOW + timedelta(hours=hours)
        body = b"kept" if index else None
        ledger.record(Entry(f"0199-{index}", "mirror", received, "done", 1, NOW, 0.5, body=body, result=str(index)))
    ledger.record(Entry("0199-9", "mirror", NOW, "dropped", 1, NOW, 0.5))
    ledger.close()
    with LedgerReader(settings) as reader:
        assert [(each.delivery, each.kept) for each in reader.finished("done")] == [
            ("0199-1", True),
            ("0199-2", True),
            ("0199-0", False),
        ]
        since, before = NOW + timedelta(hours=1), NOW + timedelta(hours=3)
        assert [each.result for each in reader.finished("done", since=since, before=before)] == ["1", "2"]
        assert [each.delivery for each in reader.finished("dropped")] == ["0199-9"]
        # left before its end, as with a limit
        assert next(reader.finished("done")).received == since


def test_what_was_put_again_is_marked(settings: LedgerSettings) -> None:
    ledger = open_ledger(settings)
    ledger.record(Entry("0199-0", "mirror", NOW, "done", 1, NOW, 0.5, body=b"x"))
    ledger.close()
    with Corrections(settings) as replays:
        assert replays.replayed([("0199-0", "019a-0", ""), ("nobody", "019a-1", "")]) == [True, False]
        # somebody else was first
        assert replays.replayed([("0199-0", "019a-2", "")]) == [False]
    # a twin that is done later changes nothing about that
    ledger = open_ledger(settings)
    ledger.record(Entry("0199-0", "mirror", NOW, "done", 1, NOW + timedelta(seconds=1), 0.5, body=b"x"))
    ledger.close()
    with LedgerReader(settings) as reader:
        entry = reader.get("0199-0")
        assert entry is not None
        assert (entry.replayed, next(reader.finished("done")).replayed) == ("019a-0", "019a-0")
        assert sum(reader.counts().values()) == 1


def test_a_mark_that_cannot_be_written_is_told_in_words(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").mkdir()
    settings = LedgerSettings(url=f"sqlite:///{tmp_path}/ledger.db")
    with Corrections(settings) as replays, pytest.raises(LedgerError, match="cannot be written: unable to open"):
        replays.replayed([("0199-0", "019a-0", "")])


def test_reading_needs_no_sql_library(tmp_path: Path) -> None:
    # it takes longer to load than most commands run
    program = (
        "import sys; from glassq.ledger.reader import LedgerReader; from glassq.settings import LedgerSettings; "
        f"print(LedgerReader(LedgerSettings(url='sqlite:///{tmp_path}/ledger.db')).absent, 'sqlalchemy' in sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert said.stdout == f"no ledger at {tmp_path}/ledger.db yet False\n"


def test_the_jobs_of_a_state_are_those_that_hold_its_deliveries(written: LedgerSettings) -> None:
    with LedgerReader(written) as reader:
        assert reader.jobs("buried") == ["2"]
        # the first of the done ones is recorded without a job
        assert sorted(reader.jobs("done")) == ["1", "4"]


def test_counts_are_by_state_and_since_when_asked(written: LedgerSettings) -> None:
    with LedgerReader(written) as reader:
        assert reader.counts() == {"done": 3, "buried": 1, "retrying": 1, "dropped": 1}
        assert reader.counts(NOW + timedelta(hours=3)) == {"retrying": 1, "done": 1}


def test_reading_leaves_the_file_as_it_was(in_a_file: LedgerSettings, tmp_path: Path) -> None:
    ledger = open_ledger(in_a_file)
    ledger.record(Entry("0199-0", "mirror", NOW, "done", 1, NOW, 0.5))
    ledger.close()
    file = tmp_path / "100% #1" / "ledger.db"
    before = file.read_bytes()
    with LedgerReader(in_a_file) as reader:
        assert reader.counts()
    assert file.read_bytes() == before


def test_a_database_of_the_queue_that_has_no_ledger_yet_is_an_empty_one(postgres: PostgresServer) -> None:
    url = QueueUrl(postgres.url(postgres.database()).replace("glassq@", "glassq:s3cret@"))
    postgres.execute("CREATE TABLE glassq_jobs (id int)", url.rpartition("/")[2])
    with LedgerReader(LedgerSettings(url=url.whole)) as reader:
        assert reader.absent == f"the ledger at {url} is still empty"
        assert (reader.counts(), reader.open_counts()) == ({}, {})


@pytest.mark.parametrize("content", ["not a database at all, but text" * 100, None], ids=["text", "another database"])
def test_a_file_that_is_no_ledger_is_refused_in_words(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "ledger.db"
    if content is None:
        connection = sqlite3.connect(file)
        connection.execute("CREATE TABLE other (id)")
        connection.close()
    else:
        file.write_text(content)
    with pytest.raises(LedgerError, match=r"\[ledger\] url = .*ledger\.db\": cannot be read"):
        LedgerReader(LedgerSettings(url=f"sqlite:///{file}"))


def test_a_ledger_in_a_directory_that_may_not_be_entered_is_refused_in_words(user_without_rights: None) -> None:
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0)
        with pytest.raises(LedgerError, match=r"ledger\.db\": cannot be read: Permission denied"):
            LedgerReader(LedgerSettings(url=f"sqlite:///{place}/ledger.db"))


def test_a_ledger_in_the_making_is_empty(tmp_path: Path) -> None:
    file = tmp_path / "ledger.db"
    file.touch()
    with LedgerReader(LedgerSettings(url=f"sqlite:///{file}")) as reader:
        assert "still empty" in reader.absent
        assert reader.counts() == {}


def test_it_counts_by_the_minute_and_tells_how_long_it_took(written: LedgerSettings) -> None:
    with LedgerReader(written) as reader:
        assert reader.minutes(NOW + timedelta(hours=3)) == [
            (NOW + timedelta(hours=3), "retrying", 1),
            (NOW + timedelta(hours=4), "done", 1),
        ]
        timings = reader.timings(NOW, 2)
        assert [(each.received, each.started, each.duration, each.first) for each in timings] == [
            (NOW, None, 0.5, False),
            (NOW, None, 0.5, False),
        ]
        found = list(reader.contents(NOW + timedelta(hours=1), NOW + timedelta(hours=3)))
        assert [(each.delivery, each.state, each.labels, each.body) for each in found] == [
            ("0199-2", "buried", "", b""),
            ("0199-1", "done", "", b""),
        ]


def test_figures_read_the_rows_of_their_time_alone(tmp_path: Path) -> None:
    settings = LedgerSettings(url=f"sqlite:///{tmp_path}/ledger.db")
    ledger = open_ledger(settings)
    ledger.record(Entry("0199", "mirror", NOW, "done", 1, NOW, 0.5))
    ledger.close()
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as database:
        for query in (MINUTES, TIMINGS, CONTENTS):
            names = {"since": "2026", "before": "9"}
            plan = [row[3] for row in database.execute(f"EXPLAIN QUERY PLAN {query}", names)]
            assert "USING INDEX ix_deliveries_updated (updated>?" in plan[0], plan


def test_what_pages_ask_reads_rows_by_an_index(written: LedgerSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many rows there are: nothing reads all of them but what is asked for all."""
    id_, plans = "01990000-aaaa-7000-8000-000000000001", []
    with LedgerReader(written) as reader:
        database = reader._database
        assert database is not None
        file = isinstance(database, _SqliteReader)
        rows = database.rows

        def explained(query: str, values: dict[str, Any], limit: int | None) -> tuple[Sequence[str], list[Any]]:
            if file or "sqlite" in written.url:
                found = rows(f"EXPLAIN QUERY PLAN {query}", values, None)[1]
                plans.append((query, " ".join(row[-1] for row in found)))
            else:
                with database._engine.connect() as connection:  # type: ignore[attr-defined]
                    # so few rows are read the quickest one after the other
                    connection.exec_driver_sql("SET enable_seqscan = off")
                    found = connection.execute(sa.text(f"EXPLAIN {query}"), values).all()
                plans.append((query, " ".join(row[0] for row in found)))
            return rows(query, values, limit)

        def iterated(query: str, values: dict[str, Any]) -> Iterator[Any]:
            return iter(explained(query, values, None)[1])

        monkeypatch.setattr(database, "rows", explained)
        monkeypatch.setattr(database, "iterate", iterated)
        for ask in (
            lambda: reader.find(id_[:8]),
            lambda: reader.find(id_),
            lambda: reader.since(NOW, {"state": "buried"}, 10),
            lambda: reader.since(NOW, {"source": "mirror", "tube": "glassq"}, 10),
            lambda: reader.since(None, {}, 10),
            lambda: reader.latest_since(2),
            lambda: reader.counts(NOW),
            reader.open_counts,
            lambda: list(reader.open_ones()),
            lambda: reader.jobs("buried"),
            lambda: reader.minutes(NOW),
            lambda: reader.timings(NOW, 10),
            lambda: list(reader.contents(NOW)),
            lambda: reader.recorded_ping(id_),
            lambda: reader.story(id_),
            lambda: reader.activities(limit=10),
            lambda: reader.activities(id="x"),
        ):
            ask()
    assert len(plans) >= 17
    for query, plan in plans:
        assert "INDEX" in plan.upper(), query
        assert "Seq Scan" not in plan, query


def test_the_latest_are_counted_from_the_end(written: LedgerSettings) -> None:
    with LedgerReader(written) as reader:
        assert reader.latest_since(0) == NOW + timedelta(hours=4)
        assert reader.latest_since(3) == NOW + timedelta(hours=1)
        assert reader.latest_since(6) is None


def test_a_prefix_of_a_uuid_is_found_in_the_order_of_any_language(settings: LedgerSettings) -> None:
    ids = [f"01990000-{part}-7000-8000-{number:012x}" for part in ("0000", "aaaa", "ffff") for number in (0, 1 << 47)]
    ledger = open_ledger(settings)
    for id_ in (*ids, "01989999-ffff-7000-8000-000000000000", "01990001-0000-7000-8000-000000000000"):
        ledger.record(Entry(id_, "mirror", NOW, "done", 1, NOW, 0.5))
    ledger.close()
    with LedgerReader(settings) as reader:
        assert [entry.delivery for entry in reader.find("01990000")] == ids
        assert [entry.delivery for entry in reader.find("01990000-aaaa-")] == ids[2:4]
        assert [entry.delivery for entry in reader.find("01990000-ffff-7000-8000-8")] == ids[5:]
        assert reader.find("01990000-b") == reader.find("01990000_") == reader.find("nosuchtask") == []
