"""Killed, EIO and ENOSPC at each step: what was acknowledged is moved on, and what is not kept is not acknowledged."""

from __future__ import annotations

import os
import re
import shutil
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from glassq.errors import JournalError
from glassq.journal import JournalRecord, mover
from glassq.journal.record import records as records_in
from glassq.journal.segment import segment_id, segments
from glassq.journal.supply import MIN_SEGMENT
from tests.journal.conftest import child, files
from tests.journal.faults import EIO, EIO_FOR_EVER, ENOSPC, KINDS, Forked
from tests.journal.made import Sink, opened, some
from tests.thorough import steps

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from glassq.errors import QueueError

BATCHES = 6
# Two batches fill a segment.
BODY = b"x" * (MIN_SEGMENT // 7)
LIMIT = 16 * MIN_SEGMENT


def write_batches(directory: Path) -> Callable[[Callable[[str], None]], None]:
    """Writes batches of three and says which are acknowledged; two of the third batch are retired."""

    def run(say: Callable[[str], None]) -> None:
        try:
            journal = opened(directory, max_size=LIMIT)
        except JournalError:
            return
        for number in range(BATCHES):
            records = [JournalRecord(f"{number}-{index}", b"%d %b" % (number, BODY)) for index in range(3)]
            try:
                journal.write(records)
            except JournalError:
                say(f"refused {number}")
            else:
                say(f"kept {number}")
            if number == 2:
                journal.retire(["2-0", "2-1"])
                say("retired 2")

    return run


def move_all(directory: Path) -> list[str]:
    """Moves on what is left, in this process; the keys."""
    sink, journal = Sink(), opened(directory, max_size=LIMIT)
    journal.move_on(sink.put)
    assert journal.look().count == 0
    assert journal.look().damaged == 0
    journal.close()
    for key, body in zip(sink.keys(), sink.bodies(), strict=True):
        assert body == b"%b %b" % (key.partition("-")[0].encode(), BODY)
    return sink.keys()


def keys_of(lines: list[str], word: str) -> set[str]:
    return {f"{line.split()[1]}-{index}" for line in lines if line.startswith(word) for index in range(3)}


@pytest.mark.parametrize("kind", KINDS)
def test_whatever_happens_at_any_step_of_writing_what_was_acknowledged_is_moved_on(tmp_path: Path, kind: str) -> None:
    count = Forked(write_batches(tmp_path / "0")).steps
    assert count is not None
    assert count > 40
    assert sorted(move_all(tmp_path / "0")) == sorted(
        key for key in keys_of([f"x {number}" for number in range(BATCHES)], "x") if key not in ("2-0", "2-1")
    )
    refused = 0
    for at in steps(1, count + 1):
        directory = tmp_path / str(at)
        ended = Forked(write_batches(directory), kind, at)
        acknowledged = keys_of(ended.lines, "kept")
        moved = move_all(directory)
        assert acknowledged - {"2-0", "2-1"} <= set(moved), (at, ended.lines)
        # a note that cannot be written, or not any more, has them moved on: no more than that
        assert max(Counter(moved).values(), default=1) == 1, (at, moved)
        refused += any(line.startswith("refused") for line in ended.lines)
        shutil.rmtree(directory)
    assert (refused > 0) == (kind in (EIO, ENOSPC, EIO_FOR_EVER))


def moving(directory: Path) -> Callable[[Callable[[str], None]], None]:
    """Moves everything on and says what was put, once the queue has proven it."""

    def run(say: Callable[[str], None]) -> None:
        def put(packet: Sequence[JournalRecord]) -> Mapping[str, QueueError]:
            for record in packet:
                say(record.key)
            return {}

        try:
            opened(directory, max_size=LIMIT).move_on(put)
        except JournalError:
            say("failed")

    return run


@pytest.mark.parametrize("kind", KINDS)
def test_whatever_happens_at_any_step_of_moving_on_nothing_is_lost_and_a_packet_is_repeated(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mover, "PACKET", 4)
    source = tmp_path / "source"
    journal = opened(source, max_size=LIMIT)
    for number in range(6):
        journal.write([JournalRecord(f"{number}-{index}", b"%d %b" % (number, BODY)) for index in range(3)])
    journal.close()
    everything = sorted(f"{number}-{index}" for number in range(6) for index in range(3))
    shutil.copytree(source, tmp_path / "0")
    count = Forked(moving(tmp_path / "0")).steps
    assert count is not None
    assert count > 20
    for at in steps(1, count + 1):
        directory = tmp_path / str(at)
        shutil.copytree(source, directory)
        put = [line for line in Forked(moving(directory), kind, at).lines if line != "failed"]
        moved = put + move_all(directory)
        assert sorted(set(moved)) == everything, at
        again = sum(many - 1 for many in Counter(moved).values())
        # killed: the packet in whose midst that was; no note can be written: all of a segment
        assert again <= (8 if kind == EIO_FOR_EVER else 4), (at, moved)
        shutil.rmtree(directory)


# -- a segment that is given up ---------------------------------------------------------------------------------------


class Disk:
    """The disk of this process: `fails` are the calls that fail now; what was called on which file is noted."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.fails: set[str] = set()
        self.failed: set[str] = set()
        self.touched_again: list[str] = []
        for name in ("pwrite", "fdatasync"):
            monkeypatch.setattr(os, name, self._wrapped(getattr(os, name), name))

    def _wrapped(self, call: Callable[..., int], name: str) -> Callable[..., int]:
        def wrapped(file: int, *args: object) -> int:
            path = Path(f"/proc/self/fd/{file}").readlink()
            if path.name.removesuffix(" (deleted)") in self.failed:
                self.touched_again.append(name)
            if name in self.fails and path.suffix == ".segment":
                self.failed.add(path.name)
                raise OSError(5, os.strerror(5))
            return call(file, *args)

        return wrapped


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


@pytest.mark.parametrize("call", ["pwrite", "fdatasync"])
def test_a_segment_that_fails_is_given_up_and_what_was_acknowledged_from_it_is_written_anew(
    directory: Path, disk: Disk, sink: Sink, call: str, caplog: pytest.LogCaptureFixture
) -> None:
    journal = opened(directory)
    first, lost, second = some(5), some(2), some(3)
    journal.write(first)
    (given_up,) = (directory / "segments").glob("*.segment")
    journal.retire([first[0].key])
    disk.fails = {call}
    with pytest.raises(JournalError, match="cannot be written: Input/output error"):
        journal.write(lost)
    assert "journal segment given up" in caplog.text
    disk.fails = set()
    journal.write(second)
    assert disk.touched_again == []
    assert not given_up.exists()
    journal.close()
    other = opened(directory)
    other.move_on(sink.put)
    assert sink.keys() == [record.key for record in (*first[1:], *second)]
    other.close()


def test_what_was_acknowledged_is_written_anew_at_once_and_not_by_the_next_ping(
    directory: Path, monkeypatch: pytest.MonkeyPatch, sink: Sink
) -> None:
    journal = opened(directory)
    records = some(3)
    journal.write(records)
    sync, failures = os.fdatasync, [OSError(5, "Input/output error")]
    monkeypatch.setattr(os, "fdatasync", lambda file: sync(file) if not failures else raise_(failures.pop()))
    with pytest.raises(JournalError):
        journal.write(some(1))
    # as if its process died now
    for segment in journal._writer._open():
        segment.close()
    other = opened(directory)
    other.move_on(sink.put)
    assert sink.keys() == [record.key for record in records]
    other.close()


def raise_(error: Exception) -> None:
    raise error


def test_at_its_end_a_process_writes_anew_what_only_its_memory_has(directory: Path, disk: Disk, sink: Sink) -> None:
    journal = opened(directory)
    records = some(3)
    journal.write(records)
    (given_up,) = (directory / "segments").glob("*.segment")
    disk.fails = {"pwrite", "fdatasync"}
    with pytest.raises(JournalError):
        journal.write(some(1))
    disk.fails = set()
    journal.close()
    assert not given_up.exists()
    assert disk.touched_again == []
    other = opened(directory)
    other.move_on(sink.put)
    assert sink.keys() == [record.key for record in records]
    other.close()


def test_on_a_disk_that_stays_broken_it_is_moved_on_out_of_memory(directory: Path, disk: Disk, sink: Sink) -> None:
    journal = opened(directory)
    records = some(3)
    journal.write(records)
    disk.fails = {"pwrite", "fdatasync"}
    for _ in range(3):
        with pytest.raises(JournalError):
            journal.write(some(1))
    assert journal.move_on(sink.put) == 3
    assert sink.keys() == [record.key for record in records]
    assert disk.touched_again == []
    disk.fails = set()
    assert journal.move_on(sink.put) == 0
    assert files(directory) == []
    journal.close()


def test_what_is_retired_while_its_segment_is_given_up_is_not_moved_on(directory: Path, disk: Disk, sink: Sink) -> None:
    journal = opened(directory)
    records = some(3)
    journal.write(records, hold=True)
    disk.fails = {"pwrite", "fdatasync"}
    with pytest.raises(JournalError):
        journal.write(some(1))
    journal.retire([records[0].key])
    assert journal.move_on(sink.put) == 0, "the others are held"
    journal.release([records[1].key])
    assert journal.move_on(sink.put) == 1
    disk.fails = set()
    journal.write(some(1))
    journal.release([records[2].key])
    journal.move_on(sink.put)
    assert sink.keys()[:2] == [records[1].key, records[2].key]
    journal.close()


# -- a directory that somebody removes --------------------------------------------------------------------------------


def on_disk(directory: Path) -> list[str]:
    """What another process would move on after this one was killed, as the locks end with it: the keys."""
    found = [(path, path.read_bytes()) for path in segments(directory / "segments")]
    return [each.key for path, data in found for each in records_in(data, segment_id(path))]


@pytest.mark.parametrize("ready", [True, False], ids=["one is prepared", "none is prepared"])
def test_a_directory_that_is_removed_is_made_anew_with_what_was_acknowledged(
    directory: Path, ready: bool, caplog: pytest.LogCaptureFixture
) -> None:
    journal = opened(directory)
    first, second = some(3), some(2)
    journal.write(first)
    if ready:
        journal._supply._prepare()
    shutil.rmtree(directory)
    journal.write(second)
    assert on_disk(directory) == [record.key for record in (*first, *second)]
    journal.write(some(1))
    (told,) = [record for record in caplog.records if record.levelname == "CRITICAL"]
    assert "journal segment given up" in told.getMessage()
    assert "acknowledged=3" in told.getMessage()
    journal.close()


def test_what_a_removed_segment_had_is_written_anew_without_another_ping(directory: Path) -> None:
    journal = opened(directory)
    records = some(3)
    journal.write(records)
    shutil.rmtree(directory)
    journal.check_room(1)
    assert on_disk(directory) == [record.key for record in records]
    journal.close()


def test_a_removed_segment_is_not_handed_over(directory: Path, sink: Sink) -> None:
    journal = opened(directory)
    records = some(3)
    journal.write(records)
    shutil.rmtree(directory)
    assert journal.move_on(sink.put) == 3
    assert sink.keys() == [record.key for record in records]
    journal.close()


def test_a_ping_whose_segment_is_removed_meanwhile_is_not_acknowledged(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = opened(directory)
    first, lost = some(2), some(1)
    journal.write(first)
    sync = os.fdatasync

    def removing(file: int) -> None:
        monkeypatch.setattr(os, "fdatasync", sync)
        sync(file)
        shutil.rmtree(directory)

    monkeypatch.setattr(os, "fdatasync", removing)
    with pytest.raises(JournalError, match="cannot be written: somebody has removed it"):
        journal.write(lost)
    assert on_disk(directory) == [record.key for record in first]
    journal.close()


def test_a_directory_that_is_moved_away_and_back_is_as_before(
    directory: Path, sink: Sink, caplog: pytest.LogCaptureFixture
) -> None:
    journal = opened(directory)
    journal._supply._prepare()
    records = some(3)
    away = directory.with_name("away")
    journal.write(records[:1])
    directory.rename(away)
    journal.write(records[1:2])
    journal.check_room(1)
    away.rename(directory)
    journal.write(records[2:])
    assert caplog.text == ""
    assert on_disk(directory) == [record.key for record in records]
    journal.move_on(sink.put)
    assert sink.keys() == [record.key for record in records]
    journal.close()


def test_where_the_directory_cannot_be_made_anew_what_is_lost_is_told_at_the_end(
    directory: Path, sink: Sink, caplog: pytest.LogCaptureFixture
) -> None:
    journal = opened(directory)
    records = some(3)
    journal.write(records, hold=True)
    shutil.rmtree(directory)
    directory.write_text("in its place")
    with pytest.raises(JournalError):
        journal.write(some(1))
    with pytest.raises(JournalError):
        journal.check_room(1)
    journal.release([records[0].key])
    with pytest.raises(JournalError):
        journal.move_on(sink.put)
    assert sink.keys() == [records[0].key]
    journal.close()
    assert "acknowledged deliveries may be lost: no segment takes them deliveries=2" in caplog.text


def test_what_is_held_in_a_full_segment_that_is_removed_is_told_once(
    directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    journal = opened(directory, max_size=LIMIT)
    body = b"x" * (MIN_SEGMENT // 2)
    for _ in range(2):
        journal.write(some(1, body), hold=True)
    assert len(journal._writer._full) == 1
    shutil.rmtree(directory)
    for _ in range(2):
        journal.check_room(1)
    lost = [record.getMessage() for record in caplog.records if "journal segment is lost" in record.getMessage()]
    assert len(lost) == 1
    assert "left=1" in lost[0]
    journal.close()


# -- real calls, by strace --------------------------------------------------------------------------------------------

needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
THREADS, EACH = 8, 40


@needs_strace
def test_threads_that_write_at_once_share_a_write_and_a_sync(directory: Path, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    # a disk whose sync takes 5 ms
    slow = ["-e", "inject=fdatasync:delay_enter=5000"]
    strace = ["strace", "-f", "-y", "-o", str(trace), "-e", "trace=pwrite64,fdatasync,fsync", *slow]
    writing = child(
        directory,
        "import threading",
        "journal = opened(directory)",
        f"def write(): [journal.write([each]) for each in some({EACH})]",
        f"threads = [threading.Thread(target=write) for _ in range({THREADS})]",
        "[thread.start() for thread in threads]",
        "[thread.join() for thread in threads]",
        "print(journal.look().count)",
        under=strace,
    )
    said, errors = writing.communicate(timeout=120)
    assert (said, errors) == (b"%d\n" % (THREADS * EACH), b"")
    calls = re.findall(r"(pwrite64|fdatasync)\(\d+<[^>]*\.segment>", trace.read_text())
    commits = calls.count("fdatasync")
    assert calls == ["pwrite64", "fdatasync"] * commits, "one write, one sync, and the next begins when it has ended"
    assert commits <= THREADS * EACH / 2


@needs_strace
@pytest.mark.parametrize("call", ["pwrite64", "fdatasync"])
@pytest.mark.parametrize("when", ["1", "2", "3", "2+"])
def test_a_call_that_really_fails_acknowledges_nothing(
    directory: Path, tmp_path: Path, sink: Sink, call: str, when: str
) -> None:
    strace = ["strace", "-f", "-o", "/dev/null", "-e", f"trace={call}", "-e", f"inject={call}:error=EIO:when={when}"]
    writing = child(
        directory,
        "from glassq.errors import JournalError",
        "journal = opened(directory)",
        "for record in some(6):",
        "    try: journal.write([record])",
        "    except JournalError: print('refused', flush=True)",
        "    else: print(record.key, flush=True)",
        "    time.sleep(0.05)",
        "os._exit(0)",
        under=strace,
    )
    said, _ = writing.communicate(timeout=120)
    lines = said.decode().split()
    assert len(lines) == 6
    assert "refused" in lines
    journal = opened(directory)
    journal.move_on(sink.put)
    assert {line for line in lines if line != "refused"} <= set(sink.keys())
    assert len(set(sink.keys())) == len(sink.keys())
    journal.close()
