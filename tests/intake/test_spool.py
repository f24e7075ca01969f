from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from glassq import delivery as envelope
from glassq.errors import JobTooBig, QueueUnavailable, SpoolError
from glassq.intake.spool import STALE, Spool
from tests.conftest import ROOT, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Sink:
    """A queue that remembers what was put, and fails when it is told to."""

    def __init__(self) -> None:
        self.jobs: list[bytes] = []
        self.fails: dict[int, Exception] = {}

    def put(self, delivery_id: str, job: bytes) -> None:
        assert envelope.decode(job).id == delivery_id
        error = self.fails.pop(len(self.jobs), None)
        if error is not None:
            raise error
        self.jobs.append(job)

    def ids(self) -> list[str]:
        return [envelope.decode(job).id for job in self.jobs]


@pytest.fixture
def sink() -> Sink:
    return Sink()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "spool"


@pytest.fixture
def spool(directory: Path) -> Spool:
    return made(directory)


def made(directory: Path, max_size: int = 1 << 30, min_free: int = 0) -> Spool:
    return Spool(directory, max_size=max_size, min_free=min_free)


def write(spool: Spool, body: bytes = b"{}") -> str:
    """Spools a delivery; its id."""
    delivery = envelope.new("mirror", body, {})
    spool.write(delivery.id, envelope.encode(delivery))
    return delivery.id


def files(directory: Path) -> list[str]:
    """All files but the lock, those below included."""
    found = (path for path in directory.rglob("*") if path.is_file() and path.name != ".lock")
    return sorted(str(path.relative_to(directory)) for path in found)


# -- what is written ------------------------------------------------------------------------------------------------


def test_a_delivery_is_one_file_that_holds_the_job_as_it_will_be_put(spool: Spool, directory: Path) -> None:
    delivery = envelope.new("mirror", b'{"a":1}', {"collection": "timeline"})
    spool.write(delivery.id, envelope.encode(delivery))
    assert files(directory) == [f"{delivery.id}.job"]
    assert envelope.decode((directory / f"{delivery.id}.job").read_bytes()) == delivery


def test_nobody_else_may_read_what_lies_in_the_spool(spool: Spool, directory: Path) -> None:
    name = write(spool)
    spool.drain(lambda _id, job: None)
    write(spool)
    assert directory.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o077 for path in directory.rglob("*")} == {0}
    assert name not in str(files(directory))


def test_the_names_of_its_directories_are_on_disk_before_it_takes_anything(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced, sync = [], os.fsync

    def watched(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", watched)
    made(directory)
    assert synced == [tmp_path, tmp_path / "deep", directory]


def test_names_sort_by_the_time_the_pings_came_in(spool: Spool, directory: Path) -> None:
    ids = []
    for _ in range(20):
        ids.append(write(spool))
        # two within a millisecond are in no order
        time.sleep(0.002)
    assert files(directory) == [f"{name}.job" for name in ids]


def test_a_look_tells_what_lies_there(spool: Spool, directory: Path) -> None:
    assert (spool.look().count, spool.look().size, spool.look().oldest, spool.empty()) == (0, 0, 0.0, True)
    old = envelope.encode(envelope.new("mirror", b"x" * 100, {}))
    an_hour_ago = f"{int((time.time() - 3600) * 1000):012x}"
    spool.write(f"{an_hour_ago[:8]}-{an_hour_ago[8:]}-7abc-8abc-0123456789ab", old)
    write(spool)
    (directory / "damaged" / "some.job").write_bytes(b"?")
    (directory / ".half.new").write_bytes(b"?")
    found = spool.look()
    assert (found.count, found.damaged, spool.empty()) == (2, 1, False)
    assert found.size == sum(path.stat().st_size for path in directory.glob("*-*.job"))
    assert 3600 <= found.oldest < 3700


def test_a_name_that_is_no_delivery_id_does_not_hinder_a_look(spool: Spool, directory: Path) -> None:
    (directory / "by hand.job").write_bytes(b"?")
    assert (spool.look().count, spool.look().oldest) == (1, 0.0)


# -- its bounds -----------------------------------------------------------------------------------------------------


def test_it_takes_no_more_bytes_than_it_may_and_again_when_there_is_room(directory: Path, sink: Sink) -> None:
    size = len(envelope.encode(envelope.new("mirror", b"x" * 1000, {})))
    spool = made(directory, max_size=3 * size)
    for _ in range(3):
        write(spool, b"x" * 1000)
    with pytest.raises(SpoolError, match=r"spool .*: is full"):
        write(spool, b"x" * 1000)
    assert len(files(directory)) == 3
    assert spool.drain(sink.put) == 3
    wait_for(lambda: has_room(spool, size), "the size to be counted again")
    write(spool, b"x" * 1000)


def has_room(spool: Spool, size: int) -> bool:
    try:
        spool.check_room(size)
    except SpoolError:
        return False
    return True


def test_what_other_processes_spool_counts_too(directory: Path) -> None:
    size = len(envelope.encode(envelope.new("mirror", b"x" * 1000, {})))
    first, second = (made(directory, max_size=3 * size) for _ in range(2))
    for _ in range(3):
        write(second, b"x" * 1000)
    with pytest.raises(SpoolError, match="is full"):
        write(first, b"x" * 1000)


def test_it_leaves_of_its_disk_what_it_shall_leave(directory: Path) -> None:
    disk = shutil.disk_usage("/")
    with pytest.raises(SpoolError, match="its disk is almost full"):
        write(made(directory, min_free=disk.total * 2))
    assert files(directory) == []


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    place = tmp_path / "tiny"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("a small file system can be mounted by root only")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_on_a_full_disk_nothing_is_promised_and_no_half_file_stays(tiny_disk: Path, sink: Sink) -> None:
    # as if somebody else had filled the disk after we looked
    spool = made(tiny_disk / "spool", min_free=-(1 << 20))
    kept = {write(spool, b"x" * 20_000)}
    with pytest.raises(SpoolError, match="cannot be written: No space left on device"):
        kept |= {write(spool, b"x" * 20_000) for _ in range(9)}
    assert 1 <= len(files(tiny_disk / "spool")) < 9
    assert spool.drain(sink.put) == len(sink.jobs) >= 1
    assert spool.look().damaged == 0
    write(spool, b"x" * 20_000)


def test_a_write_that_fails_half_way_leaves_nothing(spool: Spool, directory: Path) -> None:
    # run by another process: its limit for the size of files is not ours
    ended = child(directory, "import resource, signal", "resource.setrlimit(resource.RLIMIT_FSIZE, (50, 50))",
                  "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)", "write(spool, b'x' * 1000)")  # fmt: skip
    _, errors = ended.communicate(timeout=60)
    assert b"cannot be written: File too large" in errors
    assert files(directory) == []


def test_a_directory_that_cannot_be_made_is_said_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(SpoolError, match=f"spool {tmp_path}/file/spool: cannot be made: Not a directory"):
        made(tmp_path / "file" / "spool")


def test_a_directory_that_vanished_is_an_error_in_words_and_not_a_bug(spool: Spool, directory: Path) -> None:
    shutil.rmtree(directory)
    for act in (lambda: write(spool), spool.empty, spool.look, lambda: spool.drain(lambda _id, job: None)):
        with pytest.raises(SpoolError, match="No such file or directory"):
            act()


# -- what is drained ------------------------------------------------------------------------------------------------


def test_it_is_drained_oldest_first_and_then_empty(spool: Spool, directory: Path, sink: Sink) -> None:
    ids = [write(spool) for _ in range(20)]
    assert spool.drain(sink.put) == 20
    assert sink.ids() == sorted(ids)
    assert files(directory) == []
    assert spool.empty()


def test_what_the_queue_does_not_take_stays_and_is_put_first_the_next_time(spool: Spool, sink: Sink) -> None:
    ids = sorted(write(spool) for _ in range(5))
    sink.fails[2] = QueueUnavailable("gone")
    with pytest.raises(QueueUnavailable):
        spool.drain(sink.put)
    assert spool.look().count == 3
    assert spool.drain(sink.put) == 3
    assert sink.ids() == ids


def test_what_is_too_big_for_the_queue_is_set_aside_and_nobody_waits_for_it(
    spool: Spool, directory: Path, sink: Sink
) -> None:
    ids = sorted(write(spool) for _ in range(3))
    sink.fails[1] = JobTooBig("too big")
    assert spool.drain(sink.put) == 2
    assert sink.ids() == [ids[0], ids[2]]
    assert files(directory) == [f"damaged/{ids[1]}.job"]


def test_a_drain_ends_after_its_time_and_goes_on_the_next_time(spool: Spool, sink: Sink) -> None:
    ids = sorted(write(spool) for _ in range(3))
    assert spool.drain(sink.put, seconds=-1) == 0
    assert sink.jobs == []
    assert spool.drain(sink.put, seconds=60) == 3
    assert sink.ids() == ids


@pytest.mark.parametrize(
    "damage",
    [lambda data: b"", lambda data: data[:-1], lambda data: data[:60], lambda data: b"\0" * len(data),
     lambda data: data + b"x", lambda data: data[:50] + bytes([data[50] ^ 1]) + data[51:], lambda data: b"\xff" * 9],
    ids=["empty", "one byte short", "cut off", "zeroed", "one byte more", "a bit flipped", "not ours"],
)  # fmt: skip
def test_what_is_damaged_is_set_aside_as_it_is_and_the_rest_follows(
    spool: Spool, directory: Path, sink: Sink, damage: Callable[[bytes], bytes]
) -> None:
    ids = sorted(write(spool) for _ in range(3))
    path = directory / f"{ids[1]}.job"
    path.write_bytes(damage(path.read_bytes()))
    damaged = path.read_bytes()
    assert spool.drain(sink.put) == 2
    assert sink.ids() == [ids[0], ids[2]]
    assert (directory / "damaged" / path.name).read_bytes() == damaged
    assert (spool.look().count, spool.look().damaged) == (0, 1)


def test_what_is_no_spooled_delivery_is_never_put(spool: Spool, directory: Path, sink: Sink) -> None:
    job = envelope.encode(envelope.new("mirror", b"{}", {}))
    for name in (".hidden.job", ".019a.new", "README", "019a.job.bak"):
        (directory / name).write_bytes(job)
    assert spool.drain(sink.put) == 0
    assert sink.jobs == []


def test_half_written_files_of_dead_processes_are_removed_and_those_of_living_ones_are_not(
    spool: Spool, directory: Path, sink: Sink
) -> None:
    old, new = directory / ".old.new", directory / ".new.new"
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 2 * STALE,) * 2)
    spool.drain(sink.put)
    assert files(directory) == [".new.new"]
    os.utime(new, (time.time() - 2 * STALE,) * 2)
    made(directory)
    assert files(directory) == []


# -- with other processes -------------------------------------------------------------------------------------------


def child(directory: Path, *lines: str) -> subprocess.Popen[bytes]:
    """Another process with the same spool."""
    start = [
        "import os, sys, time",
        "from pathlib import Path",
        "from tests.intake.test_spool import made, write",
        f"directory = Path({str(directory)!r})",
        "spool = made(directory)",
    ]
    return subprocess.Popen(
        [sys.executable, "-c", "\n".join([*start, *lines])],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
    )


def kill(process: subprocess.Popen[bytes]) -> bytes:
    """Kills it; what it had said."""
    process.send_signal(signal.SIGKILL)
    said, _ = process.communicate(timeout=60)
    return said


def test_a_process_killed_between_put_and_remove_makes_a_duplicate_and_never_a_loss(
    spool: Spool, directory: Path, tmp_path: Path, sink: Sink
) -> None:
    ids = sorted(write(spool) for _ in range(3))
    put = tmp_path / "put"
    dying = child(
        directory,
        "def put(_id, job):",
        f"    with open({str(put)!r}, 'ab') as file: file.write(job[:0] + b'put ')",
        f"    if os.path.getsize({str(put)!r}) == 8: os.kill(os.getpid(), 9)",
        "spool.drain(put)",
    )
    assert dying.wait(60) == -signal.SIGKILL
    dying.communicate()
    assert put.read_bytes() == b"put put "
    # the first is put and gone, the second is put and still here: it is put once more
    assert spool.drain(sink.put) == 2
    assert sink.ids() == ids[1:]


def test_a_process_killed_while_it_writes_leaves_only_whole_deliveries(directory: Path, sink: Sink) -> None:
    spool = made(directory)
    drained = 0
    for _ in range(5):
        before = len(files(directory))
        writing = child(directory, "while True: write(spool, b'x' * 30_000)")
        wait_for(lambda before=before: len(files(directory)) > before + 20, "it to write")  # type: ignore[misc]
        kill(writing)
        drained += spool.drain(sink.put)
    assert drained == len(sink.jobs) > 100
    # all of them can be decoded, and none was damaged
    assert len(set(sink.ids())) == drained
    assert spool.look().damaged == 0


def test_a_process_that_dies_with_the_lock_hinders_nobody(spool: Spool, directory: Path, sink: Sink) -> None:
    write(spool)
    holding = child(directory, "spool.drain(lambda _id, job: (print('held', flush=True), time.sleep(600)))")
    assert holding.stdout is not None
    assert holding.stdout.readline() == b"held\n"
    assert spool.drain(sink.put) == 0
    assert sink.jobs == []
    kill(holding)
    assert spool.drain(sink.put) == 1


def test_two_processes_that_drain_at_once_put_nothing_twice(directory: Path, tmp_path: Path) -> None:
    spool = made(directory)
    ids = sorted(write(spool) for _ in range(300))
    put = tmp_path / "put"
    lines = [
        f"out = open({str(put)!r}, 'a', buffering=1)",
        "def put(delivery_id, job): out.write(delivery_id + '\\n')",
        "while not spool.empty(): spool.drain(put)",
    ]
    both = [child(directory, *lines) for _ in range(2)]
    for process in both:
        _, errors = process.communicate(timeout=60)
        assert (process.returncode, errors) == (0, b"")
    assert sorted(put.read_text().split()) == ids


def test_what_is_written_while_another_one_drains_is_drained_too(directory: Path, sink: Sink) -> None:
    spool = made(directory)
    writing = child(directory, "for _ in range(200): print(write(spool), flush=True)")
    while writing.poll() is None:
        spool.drain(sink.put)
    said, _ = writing.communicate(timeout=60)
    spool.drain(sink.put)
    assert sorted(sink.ids()) == sorted(said.decode().split())
