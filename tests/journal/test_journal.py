"""What is written, what is told of it, its bounds, and how it is moved on."""

from __future__ import annotations

import math
import os
import shutil
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from glassq import delivery as envelope
from glassq.errors import JobTooBig, JournalError, QueueUnavailable
from glassq.journal import JournalRecord, supply, writer
from glassq.journal.mover import PACKET
from glassq.journal.segment import make_segment
from glassq.journal.supply import MIN_SEGMENT
from glassq.journal.writer import MAX_RECORDS
from tests.conftest import wait_for
from tests.journal.conftest import files
from tests.journal.made import opened, some

if TYPE_CHECKING:
    from collections.abc import Callable

    from glassq.journal import Journal
    from glassq.journal.segment import OwnSegment
    from tests.journal.made import Sink

SMALL = 2 * MIN_SEGMENT


# -- what is written --------------------------------------------------------------------------------------------------


def test_what_was_written_is_moved_on_as_it_is_and_oldest_first(journal: Journal, directory: Path, sink: Sink) -> None:
    records = some(1000)
    for at in range(0, 1000, 10):
        journal.write(records[at : at + 10])
    assert journal.move_on(sink.put) == 1000
    assert [record for packet in sink.packets for record in packet] == records
    assert files(directory) == []
    assert journal.move_on(sink.put) == 0


def test_nobody_else_may_read_what_is_in_the_journal(journal: Journal, directory: Path, sink: Sink) -> None:
    records = some(1)
    journal.write(records)
    sink.refuses[records[0].body] = JobTooBig("too big")
    journal.move_on(sink.put)
    journal.write(some(1))
    assert directory.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o077 for path in directory.rglob("*")} == {0}


def test_the_names_of_its_directories_are_on_disk_before_it_takes_anything(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced, sync = [], os.fsync

    def watched(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        sync(descriptor)

    # as by a process that was killed before it synced the name
    directory.mkdir(parents=True)
    (directory / "segments").mkdir()
    monkeypatch.setattr(os, "fsync", watched)
    journal = opened(directory)
    synced.clear()
    journal.write(some(1))
    segment = next((directory / "segments").glob("*.segment"))
    hidden = segment.with_name(f".{segment.name}.new")
    assert synced == [directory, tmp_path / "deep", hidden, directory / "segments"]
    journal.close()


def test_a_segment_is_ready_before_the_first_ping_needs_it(journal: Journal, directory: Path) -> None:
    journal.start()
    wait_for(lambda: len(files(directory)) == 1, "a segment to be made ahead")
    (ahead,) = (directory / "segments").glob("*.segment")
    assert ahead.stat().st_blocks * 512 >= ahead.stat().st_size > 0
    journal.write(some(1))
    wait_for(lambda: len(files(directory)) == 2, "the next segment to be made ahead")
    assert journal.look().count == 1


def test_no_ping_waits_for_a_segment_because_another_one_is_moved_on(
    journal: Journal, directory: Path, sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "MAX_WAIT", 60)
    making, go_on = threading.Event(), threading.Event()
    journal.start()
    wait_for(lambda: len(files(directory)) == 1, "a segment to be made ahead")

    def make(place: Path, size: int) -> OwnSegment:
        making.set()
        assert go_on.wait(60)
        return make_segment(place, size)

    monkeypatch.setattr(supply, "make_segment", make)
    journal.write(some(1))
    assert making.wait(20)
    moved: list[int] = []
    mover = threading.Thread(target=lambda: moved.append(journal.move_on(sink.put)))
    mover.start()
    # time for what it must not do
    mover.join(0.2)
    ping = threading.Thread(target=lambda: journal.write(some(1)))
    ping.start()
    ping.join(20)
    assert not ping.is_alive()
    go_on.set()
    mover.join()
    assert moved == [2]


def test_threads_that_write_at_once_are_all_served(journal: Journal, sink: Sink) -> None:
    written = [some(20) for _ in range(16)]
    threads = [threading.Thread(target=lambda mine=mine: [journal.write([each]) for each in mine]) for mine in written]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert journal.look().count == 320
    assert journal.move_on(sink.put) == 320
    assert sorted(sink.keys()) == sorted(record.key for mine in written for record in mine)


def test_more_than_one_segment_holds_goes_into_several(journals: Callable[..., Journal], sink: Sink) -> None:
    journal = journals(max_size=16 * MIN_SEGMENT)
    records = some(9, b"x" * (MIN_SEGMENT // 3))
    journal.write(records)
    assert journal.look().count == 9
    assert journal.move_on(sink.put) == 9
    assert sorted(sink.keys()) == [record.key for record in records]


def test_no_segment_holds_more_records_than_memory_may(journal: Journal, directory: Path) -> None:
    journal.write(some(MAX_RECORDS + 1))
    assert len(files(directory)) == 2


def test_a_job_larger_than_a_segment_gets_one_of_its_own(journals: Callable[..., Journal], sink: Sink) -> None:
    journal = journals(max_size=16 * MIN_SEGMENT)
    records = [JournalRecord("019a", b"x" * (3 * MIN_SEGMENT))]
    journal.write(records)
    journal.write(some(1))
    journal.move_on(sink.put)
    assert sink.keys()[0] == "019a"
    assert len(sink.bodies()[0]) == 3 * MIN_SEGMENT


# -- what is told -----------------------------------------------------------------------------------------------------


def test_a_look_tells_what_is_there(journal: Journal, directory: Path, sink: Sink) -> None:
    found = journal.look()
    assert (found.count, found.size, found.oldest, found.damaged, found.refused) == (0, 0, 0.0, 0, 0)
    an_hour_ago = f"{int((time.time() - 3600) * 1000):012x}"
    old = JournalRecord(f"{an_hour_ago[:8]}-{an_hour_ago[8:]}-7abc-8abc-0123456789ab", b"x")
    journal.write([old])
    journal.write(some(2))
    (directory / "damaged" / "some.segment").write_bytes(b"?")
    found = journal.look()
    assert (found.count, found.damaged) == (3, 1)
    assert found.size == sum(path.stat().st_blocks * 512 for path in directory.rglob("*") if path.is_file())
    assert 3600 <= found.oldest < 3700
    journal.retire([old.key])
    assert journal.look().count == 2
    assert journal.look().oldest < 3600
    journal.move_on(sink.put)
    assert journal.look().count == 0


def test_it_is_counted_without_notes_too(journals: Callable[..., Journal], directory: Path) -> None:
    journal, other = journals(), journals()
    journal.write(some(5))
    (notes,) = (directory / "segments").glob("*.notes")
    early = notes.read_bytes()
    journal.write(some(5))
    notes.write_bytes(early)
    assert other.look().count == 10
    notes.unlink()
    assert other.look().count == 10
    assert 0 < other.look().oldest < 3600


# -- its bounds -------------------------------------------------------------------------------------------------------


def test_it_allocates_no_more_than_it_may_and_again_when_there_is_room(
    journals: Callable[..., Journal], sink: Sink
) -> None:
    journal = journals(max_size=SMALL + (64 << 10))
    records = some(20, b"x" * (64 << 10))
    with pytest.raises(JournalError, match=r"journal .*: is full"):
        for record in records:
            journal.write([record])
    assert journal.look().size <= SMALL + (64 << 10)
    kept = journal.look().count
    assert 4 <= kept < 20
    with pytest.raises(JournalError, match="is full"):
        journal.check_room(64 << 10)
    assert journal.move_on(sink.put) == kept
    assert sink.keys() == [record.key for record in records[:kept]]
    wait_for(lambda: has_room(journal), "room to be found")
    journal.write(some(1))


def has_room(journal: Journal) -> bool:
    try:
        journal.check_room(1000)
    except JournalError:
        return False
    return True


def test_what_other_processes_allocate_counts_too(journals: Callable[..., Journal]) -> None:
    first, second = (journals(max_size=MIN_SEGMENT + (64 << 10)) for _ in range(2))
    second.write(some(1))
    with pytest.raises(JournalError, match="is full"):
        first.write(some(1))
    with pytest.raises(JournalError, match="is full"):
        first.check_room(1)
    second.check_room(1)


def test_it_leaves_of_its_disk_what_it_shall_leave(journals: Callable[..., Journal], directory: Path) -> None:
    disk = shutil.disk_usage("/")
    with pytest.raises(JournalError, match="its disk is almost full"):
        journals(min_free=disk.total * 2).write(some(1))
    assert files(directory) == []


def test_a_directory_that_cannot_be_made_is_said_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(JournalError, match=f"journal {tmp_path}/file/journal: cannot be made: Not a directory"):
        opened(tmp_path / "file" / "journal")


def test_a_directory_that_vanished_is_an_error_in_words_and_not_a_bug(
    journal: Journal, directory: Path, sink: Sink
) -> None:
    shutil.rmtree(directory)
    for act in (journal.look, lambda: journal.move_on(sink.put)):
        with pytest.raises(JournalError, match="No such file or directory"):
            act()
    directory.write_text("so that it cannot be made anew")
    for act in (lambda: journal.write(some(1)), journal.look, lambda: journal.move_on(sink.put)):
        with pytest.raises(JournalError, match="Not a directory"):
            act()


# -- what is moved on -------------------------------------------------------------------------------------------------


def test_a_packet_shares_one_proof(journal: Journal, sink: Sink) -> None:
    journal.write(some(2 * PACKET + 1))
    journal.move_on(sink.put)
    assert [len(packet) for packet in sink.packets] == [PACKET, PACKET, 1]


def test_what_the_queue_does_not_take_stays_and_is_put_first_the_next_time(journal: Journal, sink: Sink) -> None:
    records = some(PACKET + 5)
    journal.write(records)
    put = sink.put

    def fail_at_the_second(packet: list[JournalRecord]) -> dict[str, object]:
        if sink.packets:
            raise QueueUnavailable("gone")
        return put(packet)  # type: ignore[return-value]

    with pytest.raises(QueueUnavailable):
        journal.move_on(fail_at_the_second)  # type: ignore[arg-type]
    assert journal.look().count == 5
    assert journal.move_on(sink.put) == 5
    assert sink.keys() == [record.key for record in records]


def test_what_is_too_big_for_the_queue_is_set_aside_and_the_others_go_on(
    journal: Journal, directory: Path, sink: Sink
) -> None:
    records = some(3)
    journal.write(records)
    sink.refuses[records[1].body] = JobTooBig("too big")
    assert journal.move_on(sink.put) == 3
    assert sink.keys() == [records[0].key, records[2].key]
    assert files(directory) == [f"refused/{records[1].key}.job"]
    assert (directory / files(directory)[0]).read_bytes() == records[1].body
    assert (journal.look().count, journal.look().refused) == (0, 1)


def test_what_cannot_be_set_aside_stays_and_the_others_are_not_put_again(
    journal: Journal, directory: Path, sink: Sink
) -> None:
    records = some(3)
    journal.write(records)
    sink.refuses[records[1].body] = JobTooBig("too big")
    in_the_way = directory / "refused" / f".{records[1].key}.job.new"
    in_the_way.mkdir()
    assert journal.move_on(sink.put) == 2
    assert journal.look().count == 1
    in_the_way.rmdir()
    shutil.rmtree(directory / "refused")
    assert journal.move_on(sink.put) == 1
    assert sink.keys() == [records[0].key, records[2].key]
    assert files(directory) == [f"refused/{records[1].key}.job"]


def test_it_ends_after_its_time_and_goes_on_the_next_time(journal: Journal, sink: Sink) -> None:
    records = some(3)
    journal.write(records)
    assert journal.move_on(sink.put, seconds=-1) == 0
    assert sink.keys() == []
    assert journal.move_on(sink.put, seconds=60) == 3
    assert sink.keys() == [record.key for record in records]


def test_what_is_written_while_it_is_moved_on_is_moved_on_the_next_time(journal: Journal, sink: Sink) -> None:
    first, second = some(2), some(2)
    journal.write(first)

    def put(packet: list[JournalRecord]) -> dict[str, object]:
        journal.write(second)
        return sink.put(packet)  # type: ignore[return-value]

    assert journal.move_on(put) == 2  # type: ignore[arg-type]
    assert journal.look().count == 2
    assert journal.move_on(sink.put) == 2
    assert sink.keys() == [record.key for record in (*first, *second)]


# -- late proofs ------------------------------------------------------------------------------------------------------


def test_what_is_retired_is_not_moved_on(journal: Journal, directory: Path, sink: Sink) -> None:
    records = some(5)
    journal.write(records)
    journal.retire([records[1].key, records[2].key, "unknown"])
    assert journal.look().count == 3
    assert journal.move_on(sink.put) == 3
    assert sink.keys() == [records[0].key, records[3].key, records[4].key]
    assert files(directory) == []


def test_what_was_retired_stays_so_when_its_process_has_died(directory: Path, sink: Sink) -> None:
    dying = opened(directory)
    records = some(4)
    dying.write(records, hold=True)
    dying.retire([records[0].key, records[3].key])
    # as the end of the process does
    dying._writer._current.close()  # type: ignore[union-attr]
    other = opened(directory)
    assert other.look().count == 2
    assert other.move_on(sink.put) == 2
    assert sink.keys() == [records[1].key, records[2].key]
    other.close()


def test_what_is_held_is_moved_on_by_nobody_until_it_is_released(journals: Callable[..., Journal], sink: Sink) -> None:
    journal, other = journals(max_size=64 * MIN_SEGMENT), journals()
    # more than a segment: the first ones are full, and held all the same
    records = some(12, b"x" * (MIN_SEGMENT // 3))
    journal.write(records, hold=True)
    for mover in (journal, other):
        assert mover.move_on(sink.put) == 0
    journal.retire([record.key for record in records[:6]])
    journal.release([record.key for record in records[6:9]])
    moved = other.move_on(sink.put) + journal.move_on(sink.put)
    assert set(sink.keys()) <= {record.key for record in records[6:9]}
    assert len(sink.keys()) == moved
    journal.release([record.key for record in records[9:]])
    journal.move_on(sink.put)
    assert sink.keys() == [record.key for record in records[6:]]


def test_a_segment_whose_records_are_all_retired_goes_without_being_moved_on(
    journals: Callable[..., Journal], directory: Path
) -> None:
    journal = journals(max_size=16 * MIN_SEGMENT)
    for _ in range(8):
        records = some(3, b"x" * (MIN_SEGMENT // 4))
        journal.write(records, hold=True)
        journal.retire([record.key for record in records])
    assert len(files(directory)) == 1
    assert journal.look().count == 0


# -- its end ----------------------------------------------------------------------------------------------------------


def test_its_end_leaves_what_is_needed_and_removes_what_is_not(directory: Path, sink: Sink) -> None:
    idle, busy = opened(directory), opened(directory)
    idle.start()
    busy.start()
    records = some(3)
    busy.write(records)
    wait_for(lambda: len(files(directory)) == 3, "segments to be made ahead")
    for journal in (idle, busy):
        journal.close()
    assert len(files(directory)) == 1
    with pytest.raises(JournalError, match="is closed"):
        busy.write(records)
    after = opened(directory)
    assert after.move_on(sink.put, seconds=math.inf) == 3
    after.close()


# -- an older version's spool -----------------------------------------------------------------------------------------


def spooled(directory: Path, number: int) -> list[str]:
    """So many deliveries as the last release has kept them; their ids, oldest first."""
    directory.mkdir(parents=True, exist_ok=True)
    ids = []
    for _ in range(number):
        delivery = envelope.new("mirror", b"{}", {})
        (directory / f"{delivery.id}.job").write_bytes(envelope.encode(delivery))
        ids.append(delivery.id)
    return sorted(ids)


def test_an_older_spool_is_moved_on_before_all_records(directory: Path, sink: Sink) -> None:
    ids = spooled(directory, 2 * PACKET)
    journal = opened(directory)
    records = some(3)
    journal.write(records)
    found = journal.look()
    assert found.count == 2 * PACKET + 3
    assert found.size == sum(path.stat().st_blocks * 512 for path in directory.rglob("*") if path.is_file())
    assert journal.move_on(sink.put) == 2 * PACKET + 3
    assert sink.keys() == [*ids, *(record.key for record in records)]
    assert files(directory) == []
    journal.close()


def test_an_older_delivery_stays_until_the_queue_has_it(directory: Path, journal: Journal, sink: Sink) -> None:
    ids = spooled(directory, 3)
    sink.fails = [QueueUnavailable("gone")]
    with pytest.raises(QueueUnavailable):
        journal.move_on(sink.put)
    assert journal.look().count == 3
    assert journal.move_on(sink.put) == 3
    assert sink.keys() == ids


@pytest.mark.parametrize(
    "damage",
    [lambda data: b"", lambda data: data[:-1], lambda data: data[:60], lambda data: b"\0" * len(data),
     lambda data: data + b"x", lambda data: data[:50] + bytes([data[50] ^ 1]) + data[51:], lambda data: b"\xff" * 9],
    ids=["empty", "one byte short", "cut off", "zeroed", "one byte more", "a bit flipped", "not ours"],
)  # fmt: skip
def test_a_damaged_older_delivery_is_set_aside_as_it_is_and_the_rest_follows(
    journal: Journal, directory: Path, sink: Sink, damage: Callable[[bytes], bytes]
) -> None:
    ids = spooled(directory, 3)
    path = directory / f"{ids[1]}.job"
    path.write_bytes(damage(path.read_bytes()))
    damaged = path.read_bytes()
    assert journal.move_on(sink.put) == 2
    assert sink.keys() == [ids[0], ids[2]]
    assert (directory / "damaged" / path.name).read_bytes() == damaged
    assert (journal.look().count, journal.look().damaged) == (0, 1)


def test_what_is_no_delivery_is_never_put(journal: Journal, directory: Path, sink: Sink) -> None:
    job = envelope.encode(envelope.new("mirror", b"{}", {}))
    for name in (".hidden.job", ".019a.new", "README", "019a.job.bak", "segments/mine.segment"):
        (directory / name).write_bytes(job)
    assert journal.move_on(sink.put) == 0
    assert sink.keys() == []
    assert (directory / "segments" / "mine.segment").exists()


def test_a_refused_delivery_that_is_moved_back_is_put_again(journal: Journal, directory: Path, sink: Sink) -> None:
    delivery = envelope.new("mirror", b"{}", {})
    record = JournalRecord(delivery.id, envelope.encode(delivery))
    journal.write([record])
    sink.refuses[record.body] = JobTooBig("too big")
    journal.move_on(sink.put)
    sink.refuses.clear()
    (directory / "refused" / f"{record.key}.job").rename(directory / f"{record.key}.job")
    assert journal.move_on(sink.put) == 1
    assert sink.bodies() == [record.body]


def test_half_written_files_of_dead_processes_are_removed_and_those_of_living_ones_are_not(
    journal: Journal, directory: Path
) -> None:
    for place in (directory, directory / "segments"):
        for name in (".old.new", ".new.new"):
            (place / name).write_bytes(b"half")
        os.utime(place / ".old.new", (time.time() - 7200,) * 2)
    journal.start()
    wait_for(lambda: files(directory / "segments")[0] == ".new.new", "the old ones to be removed")
    assert files(directory)[0] == ".new.new"


# -- many -------------------------------------------------------------------------------------------------------------


def test_of_many_records_all_are_moved_on_while_others_are_written(directory: Path, sink: Sink) -> None:
    """`make bench-journal` measures a million."""
    journal = opened(directory)
    keys = []
    for _ in range(20):
        records = some(500)
        journal.write(records)
        keys += [record.key for record in records]
    for notes in (directory / "segments").glob("*.notes"):
        notes.unlink()
    other = opened(directory)
    assert (journal.look().count, other.look().count) == (10_000, 10_000)
    moved = 0
    while moved < len(keys):
        if len(keys) < 10_003:
            records = some(1)
            journal.write(records)
            keys += [record.key for record in records]
        moved += journal.move_on(sink.put, seconds=0.1)
    assert sink.keys()[:10_000] == keys[:10_000], "oldest first"
    assert sorted(sink.keys()) == sorted(keys)
    assert other.look().count == 0
    for opened_one in (journal, other):
        opened_one.close()


def test_what_cannot_be_read_is_said_once_and_the_others_move_on(
    journal: Journal, directory: Path, sink: Sink, caplog: pytest.LogCaptureFixture
) -> None:
    (directory / "019a.job").mkdir()
    records = some(2)
    journal.write(records)
    for _ in range(3):
        journal.move_on(sink.put)
    assert sink.keys() == [record.key for record in records]
    assert caplog.text.count("file in the journal cannot be read") == 1
