"""What is done before each start of beanstalkd, and when."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from glassq.errors import PrepareError
from glassq.queues.beanstalk.syncer.prepare import prepare, seal
from glassq.queues.beanstalk.syncer.records import JobState, records
from glassq.queues.beanstalk.syncer.regular import numbered
from tests.conftest import program
from tests.queues.syncer.made import BORN, LAYOUT, fields, file_with, full, short
from tests.queues.syncer.plain import jobs_on, ping, plain_beanstalkd

if TYPE_CHECKING:
    from collections.abc import Callable

    import greenstalk

BODY = ping(1) + b"\r\n"
RELEASES = sorted((Path(__file__).parents[2] / "upgrade").glob("*.tar.xz"))


def content(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(directory.glob("*.[0-9]*"))}


def torn(directory: Path) -> Path:
    """A job, and a file with its bury, of which the end is lost."""
    (directory / "binlog.1").write_bytes(LAYOUT.length.pack(7) + full(fields(1), BODY))
    bury = file_with(short(fields(1, JobState.BURIED, len(BODY), buries=1)), 40, 100)
    path = directory / "binlog.2"
    path.write_bytes(bury.torn(bury.holes()[-1]))
    # as beanstalkd makes them
    path.chmod(0o400)
    return path


def live(client: greenstalk.Client, number: int, dice: random.Random) -> None:
    client.put(ping(number, dice.randrange(20, 1500)), delay=dice.choice((0, 0, 3600)))
    if dice.random() < 0.7:
        client.put(ping(number))
        job = client.reserve(timeout=5)
        end = dice.choice((client.delete, client.delete, client.bury, lambda job: client.release(job, delay=3600)))
        end(job)
    if dice.random() < 0.1:
        client.kick(1)


def test_files_of_a_healthy_server_are_never_changed(tmp_path: Path) -> None:
    binlog = tmp_path / "binlog"
    binlog.mkdir()
    dice = random.Random(7)
    for _ in range(3):
        with plain_beanstalkd(binlog, size=16384) as (_, client):
            for number in range(300):
                live(client, number, dice)
    before, jobs = content(binlog), jobs_on(binlog)
    assert len(before) > 5
    list(prepare(binlog, "boot"))
    after = content(binlog)
    assert after.keys() == before.keys()
    for name, data in after.items():
        if data != before[name]:
            # where a file ends with a delete, its last bytes may be the lost end of a bury
            last = list(records(before[name], LAYOUT))[-1]
            assert len(data) == last.start
            assert last.named().state == JobState.DELETED
    assert jobs.items() <= jobs_on(binlog).items()


@pytest.mark.parametrize("release", RELEASES, ids=lambda path: path.name)
def test_the_files_of_the_last_release_are_left_as_they_are(tmp_path: Path, release: Path) -> None:
    with tarfile.open(release) as archive:
        archive.extractall(tmp_path, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    binlog = tmp_path / "binlog"
    before = content(binlog)
    assert before
    assert list(prepare(binlog, "boot")) == []
    assert content(binlog) == before


def test_torn_ends_are_looked_for_once_a_boot(tmp_path: Path) -> None:
    path = torn(tmp_path)
    whole = path.read_bytes()
    assert [line for line in prepare(tmp_path, "first") if f"{path}: " in line]
    cut = path.read_bytes()
    assert len(cut) < len(whole)
    assert path.stat().st_mode & 0o777 == 0o400
    path.chmod(0o600)
    path.write_bytes(whole)
    assert list(prepare(tmp_path, "first")) == []
    assert path.read_bytes() == whole
    # systemd writes it without hyphens
    assert list(prepare(tmp_path, "fi-rst")) == []
    assert list(prepare(tmp_path, "second"))
    assert path.read_bytes() == cut


def test_a_copy_of_the_directory_is_looked_at_again(tmp_path: Path) -> None:
    there, restored = tmp_path / "there", tmp_path / "restored"
    there.mkdir()
    assert list(prepare(there, "boot")) == []
    there.rename(tmp_path / "away")
    restored.mkdir()
    torn(restored)
    (restored / "syncer.boot").write_bytes((tmp_path / "away" / "syncer.boot").read_bytes())
    assert list(prepare(restored, "boot"))


def test_sealed_files_need_no_look_after_a_boot(tmp_path: Path) -> None:
    path = torn(tmp_path)
    whole = path.read_bytes()
    # not prepared in this boot: whatever is there may be torn
    seal(tmp_path, "first")
    assert list(prepare(tmp_path, "first"))
    path.chmod(0o600)
    path.write_bytes(whole)
    seal(tmp_path, "first")
    assert list(prepare(tmp_path, "second")) == []
    assert path.read_bytes() == whole
    # beanstalkd has been there since, and nobody sealed what it wrote
    (tmp_path / "binlog.3").write_bytes(LAYOUT.length.pack(7))
    assert list(prepare(tmp_path, "third"))


def test_a_file_whose_sync_failed_is_written_anew(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        (tmp_path / f"binlog.{number}").write_bytes(LAYOUT.length.pack(7) + full(fields(number), BODY))
        os.link(tmp_path / f"binlog.{number}", tmp_path / f"kept.{number}")
    (tmp_path / "binlog.1").unlink()
    before = {number: path.stat().st_ino for number, path in numbered(tmp_path, "kept").items()}
    text = content(tmp_path)
    (tmp_path / "syncer.state").write_text(json.dumps({"server": "x", "reason": "y", "files": [1, 2, 99]}))
    lines = list(prepare(tmp_path, "boot"))
    assert lines == ["written anew, as they could not be synced: binlog.1, binlog.2", "put back: binlog.1"]
    after = {number: path.stat().st_ino for number, path in numbered(tmp_path, "kept").items()}
    assert [number for number in before if before[number] != after[number]] == [1, 2]
    assert content(tmp_path) == {"binlog.1": text["kept.1"], **text}
    for number in (1, 2, 3):
        assert (tmp_path / f"kept.{number}").samefile(tmp_path / f"binlog.{number}")


def test_a_file_whose_sync_fails_at_the_end_is_written_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in (1, 2, 3):
        (tmp_path / f"binlog.{number}").write_bytes(LAYOUT.length.pack(7) + full(fields(number), BODY))
        os.link(tmp_path / f"binlog.{number}", tmp_path / f"kept.{number}")
    assert list(prepare(tmp_path, "boot")) == []
    sync = os.fsync

    def fails_once(descriptor: int) -> None:
        if os.fstat(descriptor).st_ino == (tmp_path / "binlog.2").stat().st_ino:
            monkeypatch.setattr(os, "fsync", sync)
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", fails_once)
    with pytest.raises(PrepareError, match="Input/output error"):
        seal(tmp_path, "boot")
    # the kernel has forgotten it, and what was not synced after it may have failed as well
    seal(tmp_path, "boot")
    assert list(prepare(tmp_path, "boot")) == ["written anew, as they could not be synced: binlog.2, binlog.3"]
    assert list(prepare(tmp_path, "boot")) == []


@pytest.mark.parametrize(
    "text", [b"", b"{", b"[]", b"\xff", b'{"files": 3}', b'{"files": ["1", null]}', b"[" * 100_000]
)
def test_a_damaged_state_is_none(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "binlog.1").write_bytes(LAYOUT.length.pack(7) + full(fields(1), BODY))
    (tmp_path / "syncer.state").write_bytes(text)
    assert list(prepare(tmp_path, "boot")) == []


def test_of_a_huge_state_no_more_is_read_than_is_the_syncers(tmp_path: Path) -> None:
    (tmp_path / "binlog.1").write_bytes(LAYOUT.length.pack(7) + full(fields(1), BODY))
    state = tmp_path / "syncer.state"
    state.write_bytes(json.dumps({"files": [1]}).encode().ljust(512))
    os.truncate(state, 20 << 30)
    assert list(prepare(tmp_path, "boot")) == ["written anew, as they could not be synced: binlog.1"]


def a_fifo(path: Path) -> None:
    os.mkfifo(path)


def a_dangling_link(path: Path) -> None:
    path.symlink_to("nowhere")


def a_link(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(LAYOUT.length.pack(7) + full(fields(1), BODY))
    path.symlink_to(other)


ODD = pytest.mark.parametrize("make", [Path.mkdir, a_fifo, a_dangling_link, a_link])


@ODD
@pytest.mark.parametrize("name", ["binlog.99", "syncer.state", "lock"])
def test_where_beanstalkd_would_meet_what_is_no_file_it_is_not_started(
    tmp_path: Path, make: Callable[[Path], None], name: str
) -> None:
    make(tmp_path / name)
    before = sorted(tmp_path.iterdir())
    done = syncer("--binlog", str(tmp_path), "--prepare", "--boot", "boot")
    told = f"glassq-syncer: {tmp_path / name} is no regular file: move it away\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", told)
    assert sorted(tmp_path.iterdir()) == before


@ODD
def test_a_second_name_that_is_no_file_is_left_alone(tmp_path: Path, make: Callable[[Path], None]) -> None:
    kept(tmp_path, 2, 2)
    make(tmp_path / "kept.1")
    done = syncer("--binlog", str(tmp_path), "--prepare", "--boot", "boot")
    told = f"{tmp_path / 'kept.1'} is no regular file: left alone\nput back: binlog.2\n"
    assert (done.returncode, done.stdout, done.stderr) == (0, told, "")
    assert numbered(tmp_path, "binlog").keys() == {2}
    seal(tmp_path, "boot")
    assert list(prepare(tmp_path, "boot")) == [told.splitlines()[0]]


@ODD
@pytest.mark.parametrize("name", ["syncer.boot", "syncer.seal", "kept.9999999999"])
def test_what_does_not_matter_hinders_nobody(tmp_path: Path, make: Callable[[Path], None], name: str) -> None:
    kept(tmp_path, 2, 2)
    make(tmp_path / name)
    done = syncer("--binlog", str(tmp_path), "--prepare", "--boot", "boot")
    assert (done.returncode, done.stderr) == (0, "")
    assert numbered(tmp_path, "binlog").keys() == {2}


def kept(directory: Path, number: int, *jobs: int, born: int = BORN) -> None:
    puts = b"".join(full(fields(job, created=born + job), BODY) for job in jobs)
    (directory / f"kept.{number}").write_bytes(LAYOUT.length.pack(7) + puts)


def test_a_gap_is_told_and_what_stands_before_it_put_back(tmp_path: Path) -> None:
    kept(tmp_path, 3, 1, 2)
    (tmp_path / "binlog.6").write_bytes(LAYOUT.length.pack(7) + short(fields(2, JobState.DELETED, len(BODY))))
    told = "binlog.4 to binlog.5 are missing: jobs of older files that are done may be worked again"
    assert list(prepare(tmp_path, "boot")) == ["put back: binlog.3", told]
    assert jobs_on(tmp_path).keys() == {1}


def test_a_file_of_another_queue_is_not_put_back(tmp_path: Path) -> None:
    # somebody has moved the files away, and beanstalkd began anew
    kept(tmp_path, 1, 1, born=BORN - 10**12)
    kept(tmp_path, 2, 2, born=BORN - 10**12)
    (tmp_path / "binlog.1").write_bytes(LAYOUT.length.pack(7) + full(fields(1), BODY) + full(fields(2), BODY))
    first, second = prepare(tmp_path, "boot")
    assert first.endswith("kept.1 is not binlog.1: beanstalkd ran without --prepare. Left alone")
    assert second.endswith("kept.2 is not put back: it has jobs of another queue, whose ids are in use again")
    assert numbered(tmp_path, "binlog").keys() == {1}


def test_a_directory_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    with pytest.raises(PrepareError, match="/gone is missing"):
        list(prepare(tmp_path / "gone", "boot"))
    (tmp_path / "file").touch()
    with pytest.raises(PrepareError, match="/file is no directory"):
        list(prepare(tmp_path / "file", "boot"))


def syncer(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*program("glassq-syncer"), *options], capture_output=True, text=True, timeout=60)


def test_the_command_says_what_it_did_and_refuses_where_beanstalkd_runs(tmp_path: Path) -> None:
    binlog = tmp_path / "binlog"
    binlog.mkdir()
    path = torn(binlog)
    done = syncer("--prepare", "--binlog", str(binlog), "--boot", "1")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{path}: the power failed while a record was written; cut off at byte ")
    sealed = syncer("--seal", "--binlog", str(binlog), "--boot", "1")
    assert (sealed.returncode, sealed.stdout + sealed.stderr) == (0, "")
    assert (binlog / "syncer.seal").exists()
    with plain_beanstalkd(binlog):
        for option in ("--prepare", "--seal"):
            done = syncer(option, "--binlog", str(binlog))
            assert done.returncode == 1
            assert done.stderr == f"glassq-syncer: {binlog}: beanstalkd is running on it; stop it first\n"


def everything_to_do(directory: Path) -> None:
    """A torn file, one that is only kept, and one whose sync failed."""
    directory.mkdir()
    torn(directory)
    for number in (3, 4):
        content = LAYOUT.length.pack(7) + full(fields(number), BODY)
        (directory / f"kept.{number}").write_bytes(content)
    os.link(directory / "kept.4", directory / "binlog.4")
    (directory / "syncer.state").write_text('{"files": [4]}')


@pytest.mark.skipif(not shutil.which("strace"), reason="strace is missing")
@pytest.mark.parametrize("calls", ["link,linkat", "rename,renameat", "ftruncate", "fsync", "chmod,fchmodat"])
def test_killed_at_any_step_it_does_the_rest_the_next_time(tmp_path: Path, calls: str) -> None:
    everything_to_do(tmp_path / "at once")
    list(prepare(tmp_path / "at once", "boot"))
    expected = content(tmp_path / "at once")
    for step in range(1, 20):
        directory = tmp_path / str(step)
        everything_to_do(directory)
        kill = ["-e", f"trace={calls}", "-e", f"inject={calls}:signal=KILL:when={step}"]
        options = ["--prepare", "--binlog", str(directory), "--boot", "boot"]
        command = ["strace", "-qq", "-o", "/dev/null", *kill, *program("glassq-syncer"), *options]
        done = subprocess.run(command, capture_output=True, timeout=60)
        list(prepare(directory, "boot"))
        assert content(directory) == expected, step
        for number in (3, 4):
            assert (directory / f"kept.{number}").samefile(directory / f"binlog.{number}"), step
        if done.returncode == 0:
            break
    else:
        pytest.fail("it was killed each time")
    assert step > 1, "it was never killed"
