"""`glassq tail`, on a ledger that others write meanwhile."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Self

import pytest

from glassq.cli.app import App
from glassq.ledger import Entry, open_ledger
from glassq.operations.filters import Filter
from glassq.operations.follow import LATE, Follower
from glassq.operations.progress import Silent
from tests.cli.conftest import NASTY, Cli
from tests.conftest import program, wait_for

if TYPE_CHECKING:
    from pathlib import Path

NOW = datetime.now(UTC)


def entry(number: int, state: str = "done", **fields: Any) -> Entry:
    """What the delivery with this number came to, so many seconds ago."""
    values = {"source": "mirror", "received": NOW, "attempts": 1, "updated": NOW - timedelta(seconds=100 - number)}
    return Entry(delivery=name(number), state=state, duration=0.25, **{**values, **fields})


def name(number: int) -> str:
    return f"01990000-0000-7000-8000-{number:012}"


def record(cli: Cli, *entries: Entry) -> None:
    """As one process of the pool writes them."""
    ledger = open_ledger(cli.ledger)
    for each in entries:
        ledger.record(each)
    ledger.close()


def follower_of(cli: Cli, state: str | None = None) -> Follower:
    return Follower(App(str(cli.file), {}).operations, Filter(), state, Silent())


class Tail:
    """`glassq tail` as a process, and what it has said so far."""

    def __init__(self, cli: Cli, *arguments: str) -> None:
        self._files = [(cli.directory / name).open("w+") for name in ("tail.out", "tail.err")]
        self._process = subprocess.Popen(
            [*program("glassq"), "--config", str(cli.file), "tail", *arguments],
            stdout=self._files[0],
            stderr=self._files[1],
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        for each in self._files:
            each.close()

    def said(self, which: int = 0) -> str:
        return os.pread(self._files[which].fileno(), 1_000_000, 0).decode()

    def names(self) -> list[str]:
        return [line.split()[2] for line in self.said().splitlines()]

    def end(self, number: signal.Signals) -> int:
        self._process.send_signal(number)
        return self._process.wait(20)


@pytest.fixture
def ledgered(database_url: str, tmp_path: Path) -> Cli:
    """Without a queue, and with a ledger on either kind of database."""
    made = Cli(tmp_path, f"beanstalk://{tmp_path}/nobody.sock", ledger_url=database_url)
    made.configure()
    return made


def test_the_latest_come_first_and_what_happens_then_follows_until_ctrl_c(ledgered: Cli, database_url: str) -> None:
    record(ledgered, *map(entry, range(1, 6)))
    with Tail(ledgered, "-n", "2") as tail:
        wait_for(lambda: len(tail.names()) == 2, "the latest two")
        record(ledgered, entry(6, "buried", attempts=8, reason="503 from the API"), entry(7, updated=NOW))
        wait_for(lambda: len(tail.names()) == 4, "what was written meanwhile")
        assert tail.names() == [name(4), name(5), name(6), name(7)]
        line = tail.said().splitlines()[2]
        assert line.split()[1:] == ["buried", name(6), "mirror", "8", "attempts", "0.2s", "503", "from", "the", "API"]
        # the same delivery comes to something else
        record(ledgered, entry(6, "done", attempts=9, result="stored", updated=NOW + timedelta(seconds=1)))
        wait_for(lambda: len(tail.names()) == 5, "the delivery that was buried, worked")
        assert tail.end(signal.SIGINT) == 130
        assert tail.said().splitlines()[4].endswith("9 attempts    0.2s  stored")
        assert tail.said(1).strip() == ""


def test_what_another_process_writes_late_is_shown_and_nothing_twice(ledgered: Cli, database_url: str) -> None:
    record(ledgered, entry(50), entry(100))
    follower = follower_of(ledgered)
    assert [each.delivery for each in follower.before(10)] == [name(50), name(100)]
    record(ledgered, entry(97), entry(99))
    assert [each.delivery for each in follower.news()] == [name(97), name(99)]
    record(ledgered, entry(98))
    assert [each.delivery for each in follower.news()] == [name(98)]
    assert follower.news() == []


def test_a_clock_that_is_behind_or_ahead_hides_nothing(offline: Cli) -> None:
    hour = timedelta(hours=1)
    record(offline, entry(1, updated=NOW - hour))
    behind = follower_of(offline)
    behind.before(0)
    record(offline, entry(2, updated=NOW - hour + timedelta(seconds=1)))
    assert [each.delivery for each in behind.news()] == [name(2)]
    record(offline, entry(3, updated=NOW + hour))
    assert [each.delivery for each in behind.news()] == [name(3)]
    record(offline, entry(4, updated=datetime.now(UTC)))
    assert [each.delivery for each in behind.news()] == [name(4)]


def test_after_a_long_time_without_a_look_all_that_came_is_shown(offline: Cli) -> None:
    record(offline, entry(0, updated=NOW - 9 * LATE))
    follower = follower_of(offline, "done")
    follower.before(0)
    record(offline, *(entry(number, updated=NOW - number * LATE) for number in range(1, 8)))
    assert [each.delivery for each in follower.news()] == [name(number) for number in range(7, 0, -1)]


def test_only_what_is_asked_for_is_shown(ledgered: Cli, database_url: str) -> None:
    record(
        ledgered,
        entry(1, tube="glassq"),
        entry(2, "buried", tube="glassq"),
        entry(3, tube="glassq.push.mail", source="push"),
        *(entry(number, "retrying") for number in range(4, 40)),
    )

    def names(*arguments: str) -> list[str]:
        said = ledgered("tail", "--once", "--json", *arguments)
        assert said.code == 0
        return [json.loads(line)["delivery"] for line in said.out.splitlines()]

    assert names("--state", "buried") == [name(2)]
    assert names("--source", "push") == names("--tube", "glassq.push.mail") == [name(3)]
    assert names("--tube", "glassq", "--state", "done") == [name(1)]
    assert names("--state", "dropped") == names("-n", "0") == []
    assert len(names()) == 10
    assert ledgered("tail", "--state", "lost").code == 2


def test_programs_read_one_json_object_a_line(offline: Cli) -> None:
    record(offline, entry(1, "retrying", job="7", tube="glassq", reason="two\nlines", result=""))
    with Tail(offline, "--json") as tail:
        wait_for(lambda: tail.said().count("\n") == 1, "the line of before")
        record(offline, entry(2, "done", updated=NOW, result='{"photo": "a.jpg", "token": "abc"}'))
        wait_for(lambda: tail.said().count("\n") == 2, "the line of now")
        assert tail.end(signal.SIGINT) == 130
        before, told = map(json.loads, tail.said().splitlines())
    assert (before["reason"], before["job"], before["tube"]) == ("two\nlines", "7", "glassq")
    assert told == {
        "time": NOW.isoformat().replace("+00:00", "Z"), "state": "done", "delivery": name(2), "source": "mirror",
        "tube": "", "received": NOW.isoformat().replace("+00:00", "Z"), "attempts": 1, "duration": 0.25, "job": None,
        "result": '{"photo": "a.jpg", "token": ***}', "reason": "",
    }  # fmt: skip


def test_what_a_stranger_sent_stays_on_its_line_and_shows_no_secret(offline: Cli) -> None:
    record(offline, entry(1, "buried", reason=f"{NASTY}\nforged line verifyToken=s3cret"))
    said = offline("tail", "--once")
    assert said.out.count("\n") == 1
    assert not {"\x1b", "\x07", "\u202e"} & set(said.out)
    assert "s3cret" not in said.out
    assert "[red]bold[/red]" in said.out


def test_a_ledger_that_is_not_there_yet_is_waited_for(offline: Cli) -> None:
    with Tail(offline) as tail:
        wait_for(lambda: "no ledger at" in tail.said(1), "the word that there is none")
        record(offline, entry(1))
        wait_for(lambda: tail.names() == [name(1)], "the first outcome")
        assert tail.said(1).count("\n") == 2
    assert offline("tail", "--once").code == 0


def test_who_looks_once_does_not_wait_for_a_ledger(offline: Cli) -> None:
    said = offline("tail", "--once")
    assert (said.code, said.out, said.err) == (0, "", f"glassq: no ledger at {offline.directory}/ledger.db yet\n")


def test_a_ledger_that_is_moved_and_begun_anew_is_followed(offline: Cli) -> None:
    record(offline, entry(1))
    with Tail(offline) as tail:
        wait_for(lambda: tail.names() == [name(1)], "the latest")
        for file in offline.directory.glob("ledger.db*"):
            file.rename(file.with_name(file.name.replace("ledger", "moved")))
        record(offline, entry(2))
        wait_for(lambda: tail.names() == [name(1), name(2)], "what the new one says")


def test_trouble_with_the_ledger_is_said_once_and_it_goes_on(offline: Cli) -> None:
    record(offline, entry(1))
    with Tail(offline) as tail:
        wait_for(lambda: tail.names() == [name(1)], "the latest")
        broken(offline.directory)
        wait_for(lambda: "cannot be read" in tail.said(1), "the trouble")
        mended(offline.directory)
        record(offline, entry(2))
        wait_for(lambda: tail.names() == [name(1), name(2)], "what follows")
        assert tail.said(1).count("cannot be read") == 1
    broken(offline.directory)
    said = offline("tail")
    assert (said.code, said.out) == (74, "")


def broken(directory: Path) -> None:
    for file in directory.glob("ledger.db*"):
        file.rename(file.with_name(file.name.replace("ledger", "good")))
    (directory / "ledger.db").write_text("not a database, but long enough to be looked at as one" * 20)


def mended(directory: Path) -> None:
    for file in directory.glob("good.db*"):
        file.rename(file.with_name(file.name.replace("good", "ledger")))


def test_it_ends_when_nobody_reads_on_though_nothing_happens(offline: Cli) -> None:
    record(offline, *map(entry, range(20)))
    done = subprocess.run(
        ["sh", "-c", '"$@" | head -1', "sh", *program("glassq"), "--config", str(offline.file), "tail", "-n", "20"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.stdout.split()[2], done.stderr) == (name(0), "")


@pytest.mark.parametrize("version", [1, 2, 3])
def test_a_ledger_of_an_older_version_is_read_as_far_as_it_goes(offline: Cli, version: int) -> None:
    record(offline, entry(1, tube="glassq"))
    added = {3: ("replayed", "labels", "body"), 2: ("tube",), 1: ("started", "fingerprint", "event")}
    with sqlite3.connect(offline.directory / "ledger.db") as old:
        for column in ("fingerprint", "event"):
            old.execute(f"DROP INDEX ix_deliveries_{column}")
        for since, names in added.items():
            for column in names if since >= version else ():
                old.execute(f"ALTER TABLE deliveries DROP COLUMN {column}")
        old.execute("UPDATE meta SET value = ? WHERE name = 'schema'", (version,))
    old.close()
    assert offline("tail", "--once").out.split()[2] == name(1)
    assert bool(offline("tail", "--once", "--tube", "glassq").out) == (version >= 3)
