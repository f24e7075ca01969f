"""`glassq journal`."""

from __future__ import annotations

import fcntl
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

from glassq import delivery as envelope
from glassq.journal.record import JournalRecord
from tests.cli.conftest import a_delivery
from tests.journal.conftest import files
from tests.journal.made import opened

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Cli
    from tests.conftest import Beanstalkd
    from tests.queues.raw import Queue


@pytest.fixture
def directory(cli: Cli) -> Path:
    """The journal that the settings of `cli` name."""
    return name_journal(cli)


def name_journal(cli: Cli) -> Path:
    directory = cli.directory / "journal"
    cli.configure(f'[intake]\njournal = "{directory}"\n')
    return directory


def keep(directory: Path, number: int) -> list[str]:
    """So many deliveries in the journal, a commit each; their ids, oldest first. Their process is gone."""
    made = sorted((a_delivery() for _ in range(number)), key=lambda delivery: delivery.id)
    journal = opened(directory)
    for delivery in made:
        journal.write([JournalRecord(delivery.id, envelope.encode(delivery))])
    journal.close()
    return [delivery.id for delivery in made]


def damage(directory: Path) -> None:
    (segment,) = (directory / "segments").glob("*.segment")
    data = bytearray(segment.read_bytes())
    data[100] ^= 1
    segment.write_bytes(data)


def count(cli: Cli) -> int:
    found: int = cli("journal", "--json").json["count"]
    return found


def test_what_is_in_the_journal_is_counted_and_the_oldest_named(cli: Cli, directory: Path) -> None:
    keep(directory, 3)
    found = cli("journal", "--json").json
    assert (found["count"], found["damaged"], found["refused"], found["exists"]) == (3, 0, 0, True)
    assert found["size"] == sum(path.stat().st_blocks * 512 for path in directory.rglob("*") if path.is_file())
    assert 0 <= found["oldest"] < 3600
    said = cli("journal").out
    assert str(directory) in said
    assert f"`glassq --config {cli.file} journal move-on`" in said


def test_a_journal_that_was_never_used_is_said_and_not_made(cli: Cli) -> None:
    cli.configure(f'[intake]\njournal = "{cli.directory}/never"\n')
    said = cli("journal")
    assert (said.code, "nothing was ever kept there" in said.out) == (0, True)
    assert cli("journal", "--json").json["exists"] is False
    assert cli("journal", "move-on").out == "the journal is empty\n"
    assert cli("journal", "check").out == "the journal has no files\n"
    assert not (cli.directory / "never").exists()


def test_moving_on_puts_everything_into_the_queue_oldest_first(cli: Cli, directory: Path, queue: Queue) -> None:
    ids = keep(directory, 5)
    said = cli("journal", "move-on")
    assert (said.code, said.out) == (0, "5 put into the queue, 0 left, 0 damaged and 0 refused in all\n")
    assert files(directory) == []
    jobs = [queue.reserve(0) for _ in ids]
    assert [envelope.decode(job.body).id for job in jobs if job] == ids


def test_the_names_of_the_last_release_work_and_say_the_new_one(cli: Cli, directory: Path, queue: Queue) -> None:
    keep(directory, 2)
    listed = cli("spool", "--json")
    assert (listed.json["count"], listed.err) == (2, "glassq: spool is `glassq journal` here\n")
    assert cli("spool", "drain", "--json").json["drained"] == 2
    assert queue.stats_tube().ready == 2
    assert "drain" not in cli("journal", "--help").out


def test_what_is_damaged_is_set_aside_and_the_rest_is_put(cli: Cli, directory: Path, queue: Queue) -> None:
    keep(directory, 3)
    damage(directory)
    assert (cli("journal", "check").code, cli("journal", "check", "--json").json["damaged"]) == (1, 1)
    said = cli("journal", "move-on", "--json").json
    assert (said["moved"], said["left"], said["damaged"], said["refused"]) == (2, 0, 1, 0)
    assert queue.stats_tube().ready == 2
    assert "1 set aside in" in cli("journal").out
    (file,) = cli("journal", "check", "--json").json["files"]
    assert (file["deliveries"], file["left"], file["damage"]) == (
        2, 0, "no good record at 0, though there are later ones"
    )  # fmt: skip


def test_a_segment_that_is_written_now_is_counted_and_not_checked(cli: Cli, directory: Path) -> None:
    journal = opened(directory)
    journal.write([JournalRecord("019a", b"x")])
    said = cli("journal", "check")
    assert (said.code, "in use, not checked" in said.out) == (0, True)
    moved = cli("journal", "move-on")
    assert moved.code == 1
    assert "another process moves it on at this moment, or still writes it" in moved.err
    journal.close()


def test_what_glassq_web_holds_back_as_the_queue_takes_nothing_is_said_with_the_queues_error(
    cli: Cli, directory: Path, beanstalkd: Beanstalkd
) -> None:
    journal = opened(directory)
    journal.write([JournalRecord("019a", b"x")])
    beanstalkd.stop()
    said = cli("journal", "move-on")
    assert (said.code, "another process" in said.err) == (69, False)
    assert "Connection refused" in said.err
    beanstalkd.start(durable=False)
    said = cli("journal", "move-on")
    assert (said.code, "writes nothing to disk" in said.err) == (75, True)
    journal.close()


@pytest.mark.parametrize("answer", ["200 OK", "503 Service Unavailable"])
def test_a_directory_that_is_missing_while_intake_runs_is_gone(cli: Cli, answer: str) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), type("Ready", (_Ready,), {"answer": answer})) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        bind = f"127.0.0.1:{server.server_address[1]}"
        cli.configure(f'[intake]\nbind = "{bind}"\njournal = "{cli.directory}/gone"\n')
        words = f"the journal's directory {cli.directory}/gone is gone"
        assert words in cli("journal").out.replace("\n", " ")
        status = cli("status", "--json").json
        assert any(words in hint for hint in status["hints"])
        (cli.directory / "gone").mkdir()
        assert "is gone" not in cli("journal").out
        server.shutdown()
        thread.join()


class _Ready(BaseHTTPRequestHandler):
    """A running intake."""

    answer = ""

    def do_GET(self) -> None:
        status = int(self.answer[:3])
        self.send_response(status)
        self.end_headers()
        self.wfile.write(b"ready\n" if status == 200 else b"{}")

    def log_message(self, *_: object) -> None:
        """Says nothing."""


def test_without_a_queue_nothing_is_taken_out_of_the_journal(offline: Cli) -> None:
    keep(name_journal(offline), 2)
    assert offline("journal", "move-on").code == 69
    assert count(offline) == 2


def test_a_queue_in_memory_only_gets_nothing_out_of_the_journal(
    cli: Cli, directory: Path, beanstalkd: Beanstalkd
) -> None:
    keep(directory, 2)
    beanstalkd.stop()
    beanstalkd.start(durable=False)
    said = cli("journal", "move-on")
    assert (said.code, count(cli)) == (75, 2)
    assert "writes nothing to disk" in said.err


def test_while_another_process_moves_on_it_is_said_so(cli: Cli, directory: Path) -> None:
    keep(directory, 1)
    with (directory / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        said = cli("journal", "move-on")
    assert (said.code, count(cli)) == (1, 1)
    assert "another process moves it on at this moment" in said.err


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_root_leaves_nothing_behind_that_intake_could_not_open(cli: Cli, directory: Path) -> None:
    keep(directory, 1)
    damage(directory)
    keep(directory, 1)
    for path in [directory, *directory.rglob("*")]:
        os.chown(path, 65534, 65534)
    for notes in directory.rglob("*.notes"):
        notes.unlink()
    assert cli("journal", "move-on").code == 0
    assert {path.stat().st_uid for path in directory.rglob("*")} == {65534}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_root_makes_what_an_older_version_lacks_for_its_owner(cli: Cli, directory: Path) -> None:
    directory.mkdir()
    os.chown(directory, 65534, 65534)
    assert cli("journal").code == 0
    assert {path.stat().st_uid for path in [directory, *directory.rglob("*")]} == {65534}


def test_moving_on_at_a_terminal_ends_with_the_same_words(cli: Cli, directory: Path) -> None:
    keep(directory, 2)
    said = cli.at_terminal("journal", "move-on", answer="").out
    assert said == "2 put into the queue, 0 left, 0 damaged and 0 refused in all\n"
