"""`glassq archive` and `glassq restore`: out of the queue into a file, and back. A delivery is never in neither."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from glassq import files as durable
from glassq.cli import main as cli_main
from glassq.delivery import decode, encode
from glassq.ledger.reader import LedgerReader
from glassq.operations import archive_file, pace
from glassq.operations.words import deliveries
from glassq.queues.beanstalk.connection import BeanstalkConnection
from glassq.queues.beanstalk.protocol import JobStats
from tests.cli.conftest import EACH_ENGINE, NASTY, a_delivery, put
from tests.conftest import program, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from glassq.delivery import Delivery
    from tests.cli.conftest import Cli
    from tests.conftest import Beanstalkd
    from tests.queues.raw import Queue

MAIL = "glassq.push.mail"
EVERY = frozenset({"ready", "reserved", "delayed", "buried"})


def bury(queue: Queue, data: bytes, tube: str) -> int:
    job = queue.put(data, tube=tube)
    queue.reserve_job(job)
    queue.bury(job)
    return job


def a_few(queue: Queue) -> set[tuple[str, bytes]]:
    """A ping, a task and a damaged job, buried."""
    told = [
        ("glassq", encode(a_delivery(buried="404 from the API", attempt=8))),
        (MAIL, encode(a_delivery(bytes(range(256)), buried="no such target"))),
        ("glassq", b"\x00damaged\xff\n"),
    ]
    for tube, data in told:
        bury(queue, data, tube)
    return set(told)


def lying(queue: Queue, state: str = "buried") -> list[tuple[str, bytes]]:
    found = [each for each in queue.scan(EVERY, "glassq", MAIL) if isinstance(each, JobStats)]
    return [(each.tube, queue.peek(each.id).body) for each in found if each.state == state]


def files(cli: Cli) -> list[Path]:
    return sorted((cli.directory / "archive").iterdir()) if (cli.directory / "archive").exists() else []


def archived(cli: Cli) -> Path:
    """Archives all that lies buried; the file."""
    said = cli("archive", "--all", "--yes", "--json")
    assert said.code == 0, said.err
    return Path(said.json["file"])


def run(cli: Cli, *arguments: str) -> int:
    return cli_main.main(["--config", str(cli.file), *arguments])


@EACH_ENGINE
def test_what_is_archived_leaves_the_queue_and_comes_back_as_it_was(queue: Queue, cli: Cli) -> None:
    told = a_few(queue)
    waiting = put(queue, a_delivery())
    said = cli("archive", "--all", "--yes")
    assert said.code == 0
    assert lying(queue) == []
    [file] = files(cli)
    assert f"3 deliveries archived in {file}" in said.out
    assert f"`glassq --config {cli.file} restore {file}` puts them back" in said.out
    said = cli("restore", str(file), "--yes")
    assert (said.code, sorted(lying(queue))) == (0, sorted(told))
    assert "3 deliveries restored, buried" in said.out
    assert "kick ID" in said.out
    assert queue.stats_job(waiting).state == "ready"
    assert file.exists()


def test_the_file_is_for_its_owner_alone_and_can_be_checked_without_glassq(queue: Queue, cli: Cli) -> None:
    told = a_few(queue)
    file = archived(cli)
    assert file.parent.stat().st_mode & 0o777 == 0o700
    assert file.stat().st_mode & 0o777 == 0o600
    first, *lines, last = map(json.loads, file.read_text("ascii").splitlines())
    assert (first["format"], first["version"], first["tube"]) == ("glassq-archive", 2, "glassq")
    assert {(each["tube"], base64.b64decode(each["base64"])) for each in lines} == told
    summed = subprocess.run(
        f"head -n -1 {file} | sha256sum", shell=True, capture_output=True, text=True, check=True
    ).stdout
    assert last == {"jobs": 3, "sha256": summed.split()[0]}
    ping = next(each for each in lines if each["reason"] == "404 from the API")
    assert (ping["source"], ping["delivery"]) == ("mirror", decode(base64.b64decode(ping["base64"])).id)


def test_the_ledger_says_where_an_archived_delivery_is_and_which_job_has_it_after_a_restore(
    queue: Queue, cli: Cli
) -> None:
    told = a_delivery(buried="404 from the API")
    job = put(queue, told, "buried")
    cli.record(told, "buried", job=job)
    file = archived(cli)
    said = cli("show", told.id)
    assert said.code == 0
    assert "archived at" in said.out
    assert str(file) in said.out
    assert cli("show", told.id, "--json").json["ledger"]["state"] == "archived"
    assert (
        f"it is archived in {file}, and `glassq --config {cli.file} restore {file}` puts it back"
        in cli("kick", told.id).out
    )
    assert cli("restore", str(file), "--yes").code == 0
    shown = cli("show", told.id, "--json").json
    assert (shown["ledger"]["state"], shown["ledger"]["job"]) == ("buried", shown["job"]["id"])
    assert shown["ledger"]["reason"] == "404 from the API"


def test_a_ledger_that_cannot_be_written_is_said_and_is_not_made(queue: Queue, cli: Cli) -> None:
    put(queue, a_delivery(), "buried")
    said = cli("archive", "--all", "--yes")
    assert (said.code, lying(queue)) == (0, [])
    assert [
        f"{command}` will not know of this" in line
        for command, line in zip(("activity", "show"), said.err.splitlines(), strict=True)
    ] == [True, True]
    assert not (cli.directory / "ledger.db").exists()


def test_only_what_fits_is_archived_and_the_oldest_first(queue: Queue, cli: Cli) -> None:
    older, newer, other = a_delivery(buried="busy"), a_delivery(buried="busy"), a_delivery(buried="gone")
    jobs = [put(queue, each, "buried") for each in (older, newer, other)]
    said = cli("archive", "--where", "error~busy", "--limit", "1", "--yes", "--json")
    assert [(each["delivery"], each["did"]) for each in said.json["results"]] == [(older.id, "archived")]
    said = cli("archive", newer.id, str(jobs[2]), "--json")
    assert said.code == 0
    assert {each["delivery"] for each in said.json["results"]} == {newer.id, other.id}
    assert lying(queue) == []
    assert len(files(cli)) == 2


def test_what_is_not_buried_or_not_there_stays_and_is_said(queue: Queue, cli: Cli) -> None:
    told = a_delivery()
    ready, buried = put(queue, told), put(queue, a_delivery(), "buried")
    said = cli("archive", str(ready), str(buried), "4711")
    assert said.code == 1
    assert f"delivery {told.id}: not done: it is ready, not buried" in said.out
    assert "4711: not done: there is no job 4711" in said.out
    assert "1 delivery archived in" in said.out
    assert queue.stats_job(ready).state == "ready"


@pytest.mark.parametrize("more", ["--yes", "--dry-run"])
def test_an_id_that_is_not_there_does_not_mean_that_nothing_is_buried(queue: Queue, cli: Cli, more: str) -> None:
    a_few(queue)
    said = cli("archive", "4711", more)
    assert (said.code, files(cli)) == (1, [])
    assert said.out.startswith("4711: not done: there is no job 4711")
    assert "nothing" not in said.out


def test_nothing_to_archive_makes_no_file(cli: Cli) -> None:
    said = cli("archive", "--all")
    assert (said.code, said.out, files(cli)) == (0, "nothing is buried\n", [])


def test_a_dry_run_changes_nothing(queue: Queue, cli: Cli) -> None:
    told = a_few(queue)
    said = cli("archive", "--all", "--dry-run")
    assert (said.code, sorted(lying(queue)), files(cli)) == (0, sorted(told), [])
    assert said.out.count(": would be archived") == 3
    file = archived(cli)
    said = cli("restore", "--dry-run", str(file))
    assert (said.code, lying(queue)) == (0, [])
    assert "3 deliveries would be restored" in said.out
    assert cli("restore", "--yes", str(file)).code == 0
    assert "0 deliveries would be restored" in cli("restore", "--dry-run", str(file)).out


@pytest.mark.parametrize("command", ["archive", "restore"])
def test_an_operator_is_asked_and_nobody_to_ask_is_a_refusal(queue: Queue, cli: Cli, command: str) -> None:
    put(queue, a_delivery(), "buried")
    arguments = ["archive", "--all"] if command == "archive" else ["restore", str(archived(cli))]
    before = lying(queue)
    assert cli(*arguments, answer="y\n").code == 2
    assert cli.at_terminal(*arguments, answer="n\n").code == 1
    assert lying(queue) == before
    said = cli.at_terminal(*arguments, answer="y\n")
    assert (said.code, len(lying(queue))) == (0, 0 if command == "archive" else 1)
    assert "1 delivery" in said.err


def test_a_ledger_that_is_no_file_needs_a_directory(queue: Queue, cli: Cli) -> None:
    put(queue, a_delivery(), "buried")
    cli.file.write_text(cli.file.read_text().replace(cli.ledger.url, "sqlite://"))
    said = cli("archive", "--all", "--yes")
    assert (said.code, len(lying(queue))) == (2, 1)
    assert "--to: expected a directory" in said.err
    assert cli("archive", "--all", "--yes", "--to", str(cli.directory / "nowhere")).code == 2
    for how in ("--yes", "--dry-run"):
        said = cli("archive", "--all", how, "--to", "/dev/null")
        assert (said.code, said.out, "'/dev/null' is not a directory" in said.err) == (2, "", True)
    said = cli("archive", "--all", "--yes", "--json", "--to", str(cli.directory))
    assert said.code == 0
    assert Path(said.json["file"]).parent == cli.directory


@EACH_ENGINE
def test_restoring_the_same_file_twice_makes_no_duplicates(queue: Queue, cli: Cli) -> None:
    told = a_few(queue)
    file = archived(cli)
    assert cli("restore", str(file), str(file), "--yes").code == 0
    said = cli("restore", str(file), "--yes")
    assert (said.code, sorted(lying(queue))) == (0, sorted(told))
    assert "3 left out: the queue holds it already" in said.out
    assert "0 deliveries restored" in said.out


def test_what_was_worked_since_is_left_out_unless_it_is_asked_for(queue: Queue, cli: Cli) -> None:
    done, pending = a_delivery(buried="busy"), a_delivery(buried="busy")
    for each in (done, pending):
        put(queue, each, "buried")
    file = archived(cli)
    cli.record(done, "done")
    said = cli("restore", str(file), "--yes")
    assert said.code == 0
    assert "1 left out: the ledger has it as done (--again restores it all the same)" in said.out
    assert [decode(data).id for _, data in lying(queue)] == [pending.id]
    assert cli("restore", str(file), "--yes", "--again").code == 0
    assert {decode(data).id for _, data in lying(queue)} == {done.id, pending.id}


def test_one_that_was_kicked_meanwhile_is_in_the_queue_already(queue: Queue, cli: Cli) -> None:
    told = a_delivery(buried="busy")
    put(queue, told, "buried")
    file = archived(cli)
    assert cli("restore", str(file), "--yes").code == 0
    assert cli("kick", "--all", "--yes").code == 0
    said = cli("restore", str(file), "--yes")
    assert "1 left out" in said.out
    assert (lying(queue), len(lying(queue, "ready"))) == ([], 1)


def test_a_tube_that_nobody_works_is_said(queue: Queue, cli: Cli) -> None:
    bury(queue, encode(a_delivery(buried="busy")), MAIL)
    file = archived(cli)
    cli.file.write_text(cli.file.read_text().replace("[queue]", '[queue]\ntube = "other"'))
    said = cli("restore", str(file), "--yes")
    assert (said.code, len(lying(queue))) == (0, 1)
    assert "no pool with these settings works tube glassq.push.mail" in said.err
    assert "move --from glassq.push.mail --to other" in said.err


def _flip(text: bytes) -> bytes:
    lines = text.splitlines(keepends=True)
    at = lines[2].index(b'"base64":"') + 30
    lines[2] = lines[2][:at] + (b"A" if lines[2][at : at + 1] != b"A" else b"B") + lines[2][at + 1 :]
    return b"".join(lines)


DAMAGE = {
    "a bit": (_flip, "line 3: its sha256 is not that of its"),
    "cut off": (lambda text: text[:-20], "line 5: is not a line of an archive"),
    "the end is missing": (lambda text: text[: text.rindex(b'{"jobs"')], "line 5: is missing: the file is cut off"),
    "a line is missing": (lambda text: b"".join(text.splitlines(keepends=True)[::2]), "says that there are 3 jobs"),
    "a reason": (lambda text: text.replace(b"404 from", b"405 from"), "not that of the lines before it"),
    "a line more": (lambda text: text + b"{}\n", "line 6: stands after the last line"),
    "another file": (lambda _: b"\x00\xff\n" * 50, "line 1: is not a line of an archive"),
    "a later version": (lambda text: text.replace(b'"version":2', b'"version":9'), "is of version 9"),
    "a tube's name": (lambda text: text.replace(MAIL.encode(), b"a\\nput"), "its tube: expected a tube name"),
    "another encoding": (lambda text: text.decode().encode("utf-16"), "is not UTF-8 text but UTF-16: save it as UTF-8"),
    "empty": (lambda _: b"", "the file is empty"),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_nothing_is_restored_from_a_file_that_is_damaged(queue: Queue, cli: Cli, what: str) -> None:
    spoil, says = DAMAGE[what]
    a_few(queue)
    file = archived(cli)
    file.write_bytes(spoil(file.read_bytes()))
    said = cli("restore", str(file), "--yes")
    assert (said.code, lying(queue)) == (1, [])
    assert f"{file}: " in said.err
    assert says in said.err
    assert "Traceback" not in said.err
    assert "--skip-damaged restores the jobs that are whole" in said.err


def test_what_an_editor_on_windows_adds_is_no_damage(queue: Queue, cli: Cli) -> None:
    a_few(queue)
    file = archived(cli)
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes().replace(b"\n", b"\r\n"))
    said = cli("restore", str(file), "--yes")
    assert said.code == 0, said.err
    assert len(lying(queue)) == 3


def test_the_jobs_of_a_damaged_file_that_are_whole_can_be_restored(queue: Queue, cli: Cli) -> None:
    a_few(queue)
    file = archived(cli)
    file.write_bytes(_flip(file.read_bytes()))
    said = cli("restore", str(file), "--yes", "--skip-damaged")
    assert (said.code, len(lying(queue))) == (1, 2)
    assert "left out: " in said.err
    assert "line 3: its sha256" in said.err
    assert "2 deliveries restored" in said.out


def test_a_full_disk_leaves_the_queue_as_it_was(
    queue: Queue, cli: Cli, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    told = a_few(queue)
    for _ in range(3):
        # larger than what the file may be
        bury(queue, encode(a_delivery(os.urandom(30_000), buried="large")), "glassq")
    limit = ["sh", "-c", 'trap "" XFSZ; ulimit -f 64; exec "$@"', "sh"]
    arguments = [*program("glassq"), "--config", str(cli.file), "archive", "--all", "--yes"]
    done = subprocess.run([*limit, *arguments], capture_output=True, text=True)
    assert done.returncode == 1
    assert "cannot be written: File too large; nothing was archived, the queue is as it was" in done.stderr
    assert "nothing was archived" not in done.stdout
    assert "Traceback" not in done.stderr
    assert (len(lying(queue)), files(cli)) == (len(told) + 3, [])


@contextmanager
def dying(monkeypatch: pytest.MonkeyPatch, what: object, name: str, after: int, *, times: int = 1) -> Iterator[None]:
    """Ctrl-C is pressed once `what.name` has been called so many times: once, or twice, which ends it there."""
    called, real = 0, getattr(what, name)

    def interrupted(*arguments: Any, **named: Any) -> Any:
        nonlocal called
        called += 1
        if called > after and times == 2:
            raise KeyboardInterrupt
        if called == after + 1:
            signal.raise_signal(signal.SIGINT)
        return real(*arguments, **named)

    with monkeypatch.context() as patched:
        patched.setattr(what, name, interrupted)
        yield


# Of packets of one job: four for the plan, three for the file, and then three for each job that is looked at, compared
# and deleted.
STEPS = [
    (os, "fsync", 0),
    (Path, "rename", 0),
    (durable, "sync_directory", 0),
    (archive_file, "read", 0),
    *((BeanstalkConnection, "pipeline", after) for after in range(13)),
]


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize(("what", "name", "after"), STEPS, ids=[f"{name} {after}" for _, name, after in STEPS])
def test_an_interrupt_anywhere_leaves_each_delivery_in_the_queue_or_in_a_whole_file(
    queue: Queue,
    cli: Cli,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    what: object,
    name: str,
    after: int,
    times: int,
) -> None:
    told = a_few(queue)
    monkeypatch.setattr(pace, "PACKET", 1)
    with dying(monkeypatch, what, name, after, times=times):
        code = run(cli, "archive", "--all", "--yes")
    kept = set(lying(queue))
    for file in files(cli):
        mistakes: list[str] = []
        kept |= {(item.tube, item.data) for item in archive_file.read(file, mistakes)}
        assert mistakes == []
    assert (code, kept) == (130, told)
    assert len([file for file in files(cli) if file.name.startswith(".")]) == 0
    if name == "pipeline" and after >= 7:
        if times == 1:
            # The packet at hand is deleted before the signal is obeyed.
            left = deliveries(3 - (after - 4) // 3)
            assert f"interrupted: {left} in the file are not deleted" in capfd.readouterr().out
        # going on is the same command, and what is in two files comes back once
        assert run(cli, "archive", "--all", "--yes") == 0
        assert run(cli, "restore", *map(str, files(cli)), "--yes") == 0
        assert sorted(lying(queue)) == sorted(told)


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("step", ["put", "bury"])
def test_a_restore_that_is_interrupted_goes_on_with_the_same_command(
    queue: Queue, cli: Cli, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], step: str, times: int
) -> None:
    told = a_few(queue)
    file = archived(cli)
    monkeypatch.setattr(pace, "PACKET", 1)
    with dying(monkeypatch, BeanstalkConnection, "pipeline", 2 + (step == "bury"), times=times):
        assert run(cli, "restore", str(file), "--yes") == 130
    if times == 1:
        # The packet at hand is restored before the signal is obeyed.
        assert "interrupted: 2 of 3 are restored" in capfd.readouterr().out
    assert run(cli, "restore", str(file), "--yes") == 0
    found = sorted(lying(queue) + lying(queue, "delayed") + lying(queue, "ready"))
    assert found == sorted(told)


def test_killed_between_two_deletes_each_delivery_is_somewhere(beanstalkd: Beanstalkd, queue: Queue, cli: Cli) -> None:
    told = {encode(a_delivery(buried="busy")) for _ in range(300)}
    for data in told:
        bury(queue, data, "glassq")
    arguments = [*program("glassq"), "--config", str(cli.file), "archive", "--all", "--yes"]
    running = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: queue.stats_tube().buried < 300, "the first to be deleted")
    finally:
        running.kill()
        running.wait()
    [file] = files(cli)
    mistakes: list[str] = []
    kept = {item.data for item in archive_file.read(file, mistakes)}
    assert (kept, mistakes) == (told, [])
    assert cli("restore", str(file), "--yes").code == 0
    assert sorted(data for _, data in lying(queue)) == sorted(told)


def test_one_that_is_worked_or_changed_while_the_file_is_written_is_not_deleted(
    queue: Queue, cli: Cli, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    jobs = [put(queue, a_delivery(buried="busy"), "buried") for _ in range(3)]
    write = archive_file.write

    def meanwhile(*arguments: Any) -> int:
        written = write(*arguments)
        queue.kick(jobs[0])
        queue.delete(jobs[1])
        return written

    monkeypatch.setattr(archive_file, "write", meanwhile)
    assert run(cli, "archive", "--all", "--yes") == 1
    out = capfd.readouterr().out
    assert "it is ready by now; a copy of it is in the file" in out
    assert "it was worked or removed meanwhile; a copy of it is in the file" in out
    assert "1 delivery archived in" in out
    assert queue.stats_job(jobs[0]).state == "ready"


def test_a_queue_that_takes_no_jobs_restores_nothing_and_is_exit_75(
    beanstalkd: Beanstalkd, queue: Queue, cli: Cli
) -> None:
    put(queue, a_delivery(), "buried")
    file = archived(cli)
    beanstalkd.send(signal.SIGUSR1)
    wait_for(lambda: queue.stats().draining, "beanstalkd to drain")
    said = cli("restore", str(file), "--yes")
    assert (said.code, lying(queue)) == (75, [])
    assert "draining" in said.err


def test_what_a_sender_wrote_moves_no_cursor(queue: Queue, cli: Cli) -> None:
    told: Delivery = a_delivery(NASTY.encode(), buried=NASTY)
    put(queue, told, "buried")
    said = cli("archive", "--all", "--yes")
    [file] = files(cli)
    for text in (said.out, said.err, file.read_text("utf-8"), cli("restore", str(file), "--yes").out):
        assert text.isascii()
        assert not any(ord(each) < 32 and each != "\n" for each in text)
    assert [decode(data) for _, data in lying(queue)] == [told]


def test_a_thousand_are_archived_and_restored_in_their_order(queue: Queue, cli: Cli) -> None:
    told = [a_delivery(buried="busy") for _ in range(1_000)]
    for each in told:
        cli_job = put(queue, each, "buried")
    cli.record(told[-1], "buried", job=cli_job)
    file = archived(cli)
    assert cli("restore", str(file), "--yes").code == 0
    assert [decode(data).id for _, data in lying(queue)][::-1] == [each.id for each in told]
    with LedgerReader(cli.ledger) as ledger:
        assert ledger.counts() == {"buried": 1_000}


def test_an_archive_command_line_says_which_ones(cli: Cli) -> None:
    assert cli("archive").code == 2
    assert cli("archive", "--all", "7").code == 2
    assert cli("archive", "7", "--limit", "1").code == 2
    assert cli("restore").code == 2
    assert cli("restore", "no-such-file").code == 2
