"""The record of task names, on real databases."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from glassq.database import pruning
from glassq.database.engine import parse_url
from glassq.errors import Interrupted, NamesUnavailable, SettingsError
from glassq.push import names as module
from glassq.push.names import Names, open_names
from glassq.push.names_table import NameRequest
from glassq.settings import PushSettings
from tests.conftest import ROOT, wait_for
from tests.postgres import ROLE, PostgresServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# Seconds after which a claim is taken over in these tests.
CONFIRM = 0.6


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "state" / "database.db"


def a_names(place: Path | str, confirm: float = CONFIRM) -> Names:
    url = place if isinstance(place, str) else f"sqlite:///{place}"
    return Names(parse_url(url, "[push] names"), confirm=confirm)


@pytest.fixture
def names(database_url: str) -> Iterator[Names]:
    opened = a_names(database_url)
    yield opened
    opened.close()


def wanted(*found: str, delivery: str = "d", eta: datetime | None = None) -> list[NameRequest]:
    return [NameRequest(name, f"{delivery}-{name}", eta or datetime.now(UTC)) for name in found]


def change(file: Path, sql: str, *values: object) -> None:
    with contextlib.closing(sqlite3.connect(file)) as connection, connection:
        connection.execute(sql, values)


def rows(file: Path) -> dict[str, str]:
    with contextlib.closing(sqlite3.connect(file)) as connection:
        return dict(connection.execute("SELECT name, state FROM task_names ORDER BY name").fetchall())


def text(when: datetime) -> str:
    return when.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def put(names: Names, name: str = "a", eta: datetime | None = None) -> None:
    assert names.claim("q", wanted(name, eta=eta)).taken == {}
    assert names.confirm("q", {name: f"d-{name}"}) == set()


def taken(names: Names, name: str = "a") -> str | None:
    """What a claim by somebody else comes to; it is withdrawn where it is had."""
    found = names.claim("q", wanted(name, delivery="other")).taken
    if not found:
        names.release("q", {name: f"other-{name}"})
    return found.get(name)


def test_a_name_goes_from_free_to_put_to_gone(names: Names, database_url: str) -> None:
    put(names)
    assert taken(names) == "put"
    names.mark_finished("q", "a")
    assert taken(names) == "gone"
    names.touch("q", "a")
    assert taken(names) == "gone", "a task that runs twice does not rise from its tombstone"


def test_a_name_is_its_queues_own_and_capitals_count(names: Names, database_url: str) -> None:
    put(names)
    assert names.claim("r", wanted("a")).taken == {}
    assert names.claim("q", wanted("A")).taken == {}


def test_a_withdrawn_name_is_free_at_once(names: Names, database_url: str) -> None:
    names.claim("q", wanted("a", "b"))
    names.release("q", {"a": "d-a", "b": "d-b"})
    assert names.claim("q", wanted("a", "b", delivery="e")).taken == {}


def test_what_was_put_cannot_be_withdrawn(names: Names, database_url: str) -> None:
    put(names)
    names.release("q", {"a": "d-a"})
    assert taken(names) == "put"


def test_of_a_list_the_free_ones_are_claimed_and_the_others_named(names: Names, database_url: str) -> None:
    put(names, "a")
    put(names, "b")
    names.mark_finished("q", "b")
    assert names.claim("q", wanted("a", "b", "c", delivery="e")).taken == {"a": "put", "b": "gone"}
    assert names.confirm("q", {"c": "e-c"}) == set()
    assert taken(names, "c") == "put"


def test_puts_of_a_claim_must_be_over_well_before_it_is_taken_over(names: Names) -> None:
    before = time.monotonic()
    claimed = names.claim("q", wanted("a"))
    assert before < claimed.until < time.monotonic() + CONFIRM


def test_a_claim_that_stands_still_is_taken_over_and_its_maker_is_told(database_url: str, names: Names) -> None:
    other = a_names(database_url)
    assert names.claim("q", wanted("a")).taken == {}
    assert other.claim("q", wanted("a", delivery="e")).taken == {}
    assert names.confirm("q", {"a": "d-a"}) == {"a"}
    names.release("q", {"a": "d-a"})
    assert other.confirm("q", {"a": "e-a"}) == set()
    assert taken(names) == "put"
    other.close()


@pytest.mark.parametrize("step", [timedelta(days=365), timedelta(days=-365)], ids=["ahead", "back"])
def test_a_claim_made_under_another_clock_is_taken_over_neither_earlier_nor_never(
    file: Path, names: Names, step: timedelta
) -> None:
    names.claim("q", wanted("a"))
    change(file, "UPDATE task_names SET since = ?", text(datetime.now(UTC) + step))
    other = a_names(file, confirm=60)
    found: list[object] = []
    thread = threading.Thread(target=lambda: found.append(other.claim("q", wanted("a", delivery="e")).taken))
    thread.start()
    assert taken(names) is None, "taken over after its time"
    thread.join()
    assert found == [{}]
    other.close()


def test_one_that_waits_has_the_name_as_soon_as_it_is_withdrawn(database_url: str, names: Names) -> None:
    other = a_names(database_url, confirm=60)
    names.claim("q", wanted("a"))
    found: list[object] = []
    thread = threading.Thread(target=lambda: found.append(other.claim("q", wanted("a", "b", delivery="e")).taken))
    thread.start()
    # whoever waits holds nothing himself
    assert names.claim("q", wanted("b")).taken == {}
    names.release("q", {"a": "d-a", "b": "d-b"})
    thread.join()
    assert found == [{}]
    other.close()


def test_a_name_claimed_by_others_again_and_again_is_given_up(file: Path, names: Names) -> None:
    ended = threading.Event()
    other = a_names(file)
    other.claim("q", wanted("a", delivery="0"))

    def keep_claiming() -> None:
        number = 0
        while not ended.is_set():
            number += 1
            change(file, "UPDATE task_names SET delivery = ?", str(number))
            ended.wait(CONFIRM / 6)

    thread = threading.Thread(target=keep_claiming)
    thread.start()
    try:
        with pytest.raises(NamesUnavailable, match="again and again: a"):
            names.claim("q", wanted("a"))
    finally:
        ended.set()
        thread.join()
        other.close()


def test_a_tombstone_lasts_nine_days(file: Path, names: Names) -> None:
    put(names)
    names.mark_finished("q", "a")
    before = datetime.now(UTC)
    with contextlib.closing(sqlite3.connect(file)) as connection:
        free = datetime.fromisoformat(connection.execute("SELECT free FROM task_names").fetchone()[0])
    assert timedelta(days=9) - timedelta(minutes=5) < free - before <= timedelta(days=9)
    change(file, "UPDATE task_names SET free = ?", text(datetime.now(UTC) - timedelta(seconds=1)))
    assert taken(names) is None


def test_a_name_nobody_touched_is_free_nine_days_after_its_eta_and_not_before(file: Path, names: Names) -> None:
    eta = datetime.now(UTC) + timedelta(days=20)
    put(names, eta=eta)
    with contextlib.closing(sqlite3.connect(file)) as connection:
        free = datetime.fromisoformat(connection.execute("SELECT free FROM task_names").fetchone()[0])
    assert free == eta + timedelta(days=9)


def test_an_attempt_keeps_the_name_for_longer(file: Path, names: Names) -> None:
    put(names)
    soon = datetime.now(UTC) + timedelta(seconds=0.5)
    change(file, "UPDATE task_names SET free = ?", text(soon))
    names.touch("q", "a")
    wait_for(lambda: datetime.now(UTC) > soon, "the old end to pass")
    assert taken(names) == "put"


def test_an_attempt_confirms_a_claim_whose_maker_died(names: Names, database_url: str) -> None:
    names.claim("q", wanted("a"))
    names.touch("q", "a")
    assert taken(names) == "put"


def test_a_name_that_is_not_known_any_more_is_recorded_by_its_attempts(names: Names, database_url: str) -> None:
    names.touch("q", "a")
    names.mark_finished("q", "b")
    assert (taken(names, "a"), taken(names, "b")) == ("put", "gone")


def test_a_task_that_was_done_before_its_put_was_confirmed_stays_gone(names: Names) -> None:
    names.claim("q", wanted("a"))
    names.mark_finished("q", "a")
    assert names.confirm("q", {"a": "d-a"}) == set()
    assert taken(names) == "gone"


def test_free_rows_are_pruned_and_those_of_a_wrong_clock_brought_back(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PRUNE_SOON", "PRUNE_EVERY", "PRUNE_AGAIN"):
        monkeypatch.setattr(pruning, name, 0.0)
    monkeypatch.setattr(pruning, "PRUNE_ROWS", 2)
    names = a_names(file)
    for name in "abcd":
        put(names, name)
    change(file, "UPDATE task_names SET free = ? WHERE name != 'd'", text(datetime.now(UTC) - timedelta(days=1)))
    change(file, "UPDATE task_names SET free = ? WHERE name = 'd'", text(datetime.now(UTC) + timedelta(days=3650)))
    names.touch("q", "x")
    assert len(rows(file)) == 3
    names.touch("q", "x")
    assert rows(file) == {"d": "put", "x": "put"}
    with contextlib.closing(sqlite3.connect(file)) as connection:
        free = connection.execute("SELECT free FROM task_names WHERE name = 'd'").fetchone()[0]
    assert datetime.fromisoformat(free) <= datetime.now(UTC) + timedelta(days=39)
    names.close()


def test_touch_and_gone_never_raise_and_say_the_trouble_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    names = open_names(PushSettings(names=f"sqlite:///{tmp_path}/file/names.db"))
    for _ in range(3):
        names.touch("q", "a")
        names.mark_finished("q", "a")
    assert [record.message for record in caplog.records if "task names" in record.message] == [
        caplog.records[0].message
    ]
    with pytest.raises(NamesUnavailable):
        names.claim("q", wanted("a"))


@pytest.mark.parametrize("damage", ["all", "page", "row"])
def test_a_damaged_database_stops_adds_and_not_the_work(
    file: Path, names: Names, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    put(names)
    names.close()
    if damage == "row":
        change(file, "UPDATE task_names SET free = 'soon'")
    else:
        size = file.stat().st_size
        with file.open("r+b") as opened:
            opened.seek(0 if damage == "all" else 100)
            opened.write(b"\xff" * (size if damage == "all" else size - 100))
    names.touch("q", "a")
    names.mark_finished("q", "a")
    assert "task names cannot be written" in caplog.text
    with pytest.raises(NamesUnavailable):
        names.claim("q", wanted("a"))


# Adds a name, as another program does, and ends: SQLite closes the database there.
ANOTHER = """
import sys
from glassq.push.names import Names
from glassq.database.engine import parse_url
names = Names(parse_url(sys.argv[1], "[push] names"))
names.mark_finished("q", sys.argv[2])
names.close()
"""


def another_adds(file: Path, name: str) -> None:
    subprocess.run([sys.executable, "-c", ANOTHER, f"sqlite:///{file}", name], check=True, cwd=ROOT)


def seen_from_outside(file: Path) -> list[str]:
    """The names that another process finds."""
    read = "import sqlite3, sys; print(*(row[0] for row in sqlite3.connect(sys.argv[1]).execute(sys.argv[2])))"
    arguments = [sys.executable, "-c", read, str(file), "SELECT name FROM task_names ORDER BY name"]
    return subprocess.run(arguments, check=True, capture_output=True, text=True).stdout.split()


def test_a_second_one_in_a_process_costs_the_first_nothing_when_another_process_ends(file: Path, names: Names) -> None:
    """Whoever closes a descriptor of the file loses SQLite's locks on it; another process deletes the -wal then."""
    put(names, "a")
    second = a_names(file)
    put(second, "b")
    second.close()
    another_adds(file, "c")
    put(names, "d")
    assert seen_from_outside(file) == ["a", "b", "c", "d"]
    assert taken(names, "c") == "gone"


def test_after_a_failure_the_work_does_not_wait_for_the_names_until_some_time_has_passed(
    file: Path, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(names)
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        names.mark_finished("q", "a")
        connection.execute("ROLLBACK")
    names.touch("q", "b")
    assert rows(file) == {"a": "put"}
    monkeypatch.setattr(module, "SKIP", 0.0)
    monkeypatch.setattr(names, "_skip_until", time.monotonic() + 0.3)
    wait_for(lambda: names.mark_finished("q", "a") or rows(file) == {"a": "gone"}, "the name to be written again")


def test_many_names_are_gone_in_one_call(file: Path, names: Names) -> None:
    put(names, "a")
    names.mark_finished("q", "a", "b", "a")
    assert rows(file) == {"a": "gone", "b": "gone"}


class Struck:
    """A lock; once, an interrupt comes when it has just been taken and nobody knows yet."""

    def __init__(self, lock: threading.RLock) -> None:
        self._lock = lock
        self._strike = True

    def acquire(self, timeout: float) -> bool:
        taken = self._lock.acquire(timeout=timeout)
        if self._strike:
            self._strike = False
            signal.raise_signal(signal.SIGUSR1)
        return taken

    def release(self) -> None:
        self._lock.release()


@pytest.mark.parametrize("use", ["touch", "close"])
def test_an_interrupt_when_the_connection_was_just_taken_leaves_it_to_the_other_threads(
    file: Path, names: Names, use: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise Interrupted

    put(names)
    monkeypatch.setattr(names, "_lock", Struck(names._lock))
    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        with pytest.raises(Interrupted):
            names.touch("q", "a") if use == "touch" else names.close()
    finally:
        signal.signal(signal.SIGUSR1, before)
    found: list[object] = []
    thread = threading.Thread(target=lambda: found.append(taken(names)))
    thread.start()
    thread.join()
    assert found == ["put"]


def test_a_database_that_others_hold_is_given_up_in_time(file: Path, names: Names) -> None:
    put(names)
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        with pytest.raises(NamesUnavailable, match="locked"):
            names.claim("q", wanted("b"))
        connection.execute("ROLLBACK")
    assert names.claim("q", wanted("b")).taken == {}


def test_a_file_that_was_removed_is_begun_anew(file: Path, names: Names) -> None:
    put(names)
    for each in file.parent.iterdir():
        each.unlink()
    put(names)
    assert taken(names) == "put"


def test_the_file_is_for_its_owner_alone_and_shares_a_database_with_a_ledger(file: Path, names: Names) -> None:
    from glassq.ledger import schema

    schema.open_for_writing(parse_url(f"sqlite:///{file}", "[push] names")).dispose()
    put(names)
    assert taken(names) == "put"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_schema_of_a_newer_version_is_refused(file: Path, names: Names) -> None:
    put(names)
    names.close()
    change(file, "UPDATE meta SET value = 99 WHERE name = 'names'")
    with pytest.raises(SettingsError, match=r"\[push\] names.*version 99"):
        names.claim("q", wanted("b"))
    names.mark_finished("q", "a")


@pytest.mark.parametrize("url", ["no url", "nosuch://x"])
def test_a_url_that_cannot_be_used_is_refused_with_its_key(url: str) -> None:
    with pytest.raises(SettingsError, match=r"\[push\] names"):
        open_names(PushSettings(names=url))


def test_threads_and_forked_processes_share_the_database(file: Path, names: Names) -> None:
    ended = threading.Event()

    def run() -> None:
        number = 0
        while not ended.is_set():
            number += 1
            put(names, f"thread-{number}")

    thread = threading.Thread(target=run)
    thread.start()
    children = []
    try:
        for number in range(4):
            child = os.fork()
            if child == 0:
                code = 1
                try:
                    for each in range(10):
                        put(names, f"child-{number}-{each}")
                    code = 0
                finally:
                    os._exit(code)
            children.append(child)
        assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * 4
    finally:
        ended.set()
        thread.join()
    found = rows(file)
    assert set(found.values()) == {"put"}
    assert sum(name.startswith("child-") for name in found) == 40
    with contextlib.closing(sqlite3.connect(file)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_of_threads_that_want_one_name_one_has_it(database_url: str) -> None:
    opened = [a_names(database_url, confirm=30) for _ in range(6)]
    found: list[str | None] = []

    def run(number: int) -> None:
        claimed = opened[number].claim("q", wanted("a", delivery=str(number)))
        if not claimed.taken:
            opened[number].confirm("q", {"a": f"{number}-a"})
        found.append(claimed.taken.get("a"))

    threads = [threading.Thread(target=run, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found, key=str) == [None, "put", "put", "put", "put", "put"]
    for each in opened:
        each.close()


def test_a_name_that_somebody_takes_between_our_look_and_our_claim_is_taken(postgres: PostgresServer) -> None:
    database = postgres.database()
    names = a_names(postgres.url(database).whole)
    put(names, "before")
    found: list[str | None] = []
    claims = threading.Thread(target=lambda: found.append(taken(names)))
    with postgres.connect(database, user=ROLE) as other:
        with other.transaction():
            other.execute("INSERT INTO task_names SELECT queue, 'a', 'other-a', state, since, free FROM task_names")
            claims.start()
            waiting = f"SELECT pid FROM pg_stat_activity WHERE datname = '{database}' AND wait_event_type = 'Lock'"
            wait_for(lambda: postgres.execute(waiting), "our claim to wait for the other one")
        claims.join()
    assert found == ["put"]
    names.close()
