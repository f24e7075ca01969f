"""What a power cut leaves of a segment: each 512 bytes of a commit that never ended are there or not."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import hypothesis
import pytest
from hypothesis import strategies as st

from glassq.journal import JournalRecord
from glassq.journal.notes import read_notes
from glassq.journal.record import damage_at, pack, records
from glassq.journal.segment import notes_path, segment_id
from tests.journal.conftest import files
from tests.journal.made import Sink, opened
from tests.thorough import examples

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from glassq.journal import Journal

ID = b"\x07" * 8
SECTOR = 512
SIZE = 64 * SECTOR


def written(commits: list[list[int]]) -> tuple[bytearray, list[list[str]], list[int]]:
    """A segment with these commits, each the lengths of its bodies; the keys of each, and where each begins."""
    data, keys, begins = bytearray(SIZE), [], []
    at = 0
    for number, lengths in enumerate(commits):
        begins.append(at)
        keys.append([f"{number}-{index}" for index in range(len(lengths))])
        begin = at
        for key, length in zip(keys[-1], lengths, strict=True):
            record = pack(JournalRecord(key, random.Random(key).randbytes(length)), ID, at, begin)
            data[at : at + len(record)] = record
            at += len(record)
    return data, keys, [*begins, at]


def read(data: bytes) -> list[str]:
    return [record.key for record in records(bytes(data), ID)]


COMMITS = [[100, 700], [1], [1500, 10, 900], [600, 5, 1200, 40]]


def test_a_last_commit_of_which_any_sectors_are_missing_takes_nothing_else_with_it() -> None:
    data, keys, begins = written(COMMITS)
    promised = [key for commit in keys[:-1] for key in commit]
    start, end = begins[-2], begins[-1]
    sectors = range(start // SECTOR, -(-end // SECTOR))
    for mask in range(1 << len(sectors)):
        torn = bytearray(data)
        for bit, sector in enumerate(sectors):
            if mask >> bit & 1:
                # as it was before the commit: the end of an older record, then zeros
                begin = max(start, sector * SECTOR)
                torn[begin : (sector + 1) * SECTOR] = bytes((sector + 1) * SECTOR - begin)
        found = list(records(bytes(torn), ID))
        assert [record.key for record in found if record.key in promised] == promised
        assert {record.key for record in found} - set(promised) <= set(keys[-1])
        assert damage_at(found) is None, "nobody was promised what is missing"
        assert (mask != 0) or read(torn) == [*promised, *keys[-1]]


def test_a_segment_cut_off_at_any_byte_has_what_lies_before_it() -> None:
    data, keys, begins = written(COMMITS)
    everything = [key for commit in keys for key in commit]
    for cut in range(begins[-1] + 1):
        found = read(data[:cut] + bytes(SIZE - cut))
        assert found == everything[: len(found)]
        assert read(data[:cut]) == found


@hypothesis.settings(deadline=None, max_examples=examples(60))
@hypothesis.given(
    commits=st.lists(st.lists(st.integers(0, 900), min_size=1, max_size=3), min_size=1, max_size=8), data=st.data()
)
def test_a_record_that_is_damaged_anywhere_hides_no_other_and_is_noticed(
    commits: list[list[int]], data: st.DataObject
) -> None:
    whole, keys, begins = written(commits)
    everything = [key for commit in keys for key in commit]
    at = data.draw(st.integers(0, begins[-1] - 1))
    whole[at] ^= data.draw(st.integers(1, 255))
    found = list(records(bytes(whole), ID))
    (missing,) = set(everything) - {record.key for record in found}
    assert [record.key for record in found] == [key for key in everything if key != missing]
    in_the_last_commit = missing in keys[-1]
    assert (damage_at(found) is None) == in_the_last_commit


def test_what_another_segment_has_left_on_the_disk_is_no_record_of_this_one() -> None:
    data, _, _ = written(COMMITS)
    assert list(records(bytes(data), b"\x08" * 8)) == []
    # the same segment's, at another place
    assert read(bytes(SECTOR) + data) == []


# -- in the journal ---------------------------------------------------------------------------------------------------


def left(directory: Path, *, commits: int = 4) -> Path:
    """The segment of a process that is gone, with a record in each commit."""
    journal = opened(directory)
    for number in range(commits):
        journal.write([JournalRecord(f"{number}", b"%d" % number * 300)])
    journal.close()
    (segment,) = (directory / "segments").glob("*.segment")
    return segment


def flip(path: Path, at: int) -> bytes:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
    return bytes(data)


def test_a_damaged_segment_is_set_aside_whole_once_its_good_records_have_moved_on(
    directory: Path, sink: Sink, journals: Callable[..., Journal]
) -> None:
    segment = left(directory)
    at = next(record.begin for record in records(segment.read_bytes(), segment_id(segment)) if record.key == "1")
    data = flip(segment, at + 50)
    journal = journals()
    assert journal.move_on(sink.put) == 3
    assert sink.keys() == ["0", "2", "3"]
    assert files(directory) == [f"damaged/{segment.name}"]
    assert (directory / "damaged" / segment.name).read_bytes() == data
    assert (journal.look().count, journal.look().damaged) == (0, 1)


def test_an_end_that_is_torn_was_promised_to_nobody_and_the_segment_goes(
    directory: Path, sink: Sink, journals: Callable[..., Journal]
) -> None:
    segment = left(directory)
    end = list(records(segment.read_bytes(), segment_id(segment)))[-1].end
    flip(segment, end - 1)
    assert journals().move_on(sink.put) == 3
    assert sink.keys() == ["0", "1", "2"]
    assert files(directory) == []


@pytest.mark.parametrize("damage", [b"", b"\0" * 64, b"\xff" * 64, b"x" * 7])
def test_notes_that_are_damaged_have_a_segment_moved_on_whole(
    directory: Path, sink: Sink, journals: Callable[..., Journal], damage: bytes
) -> None:
    segment = left(directory)
    notes_path(segment).write_bytes(damage)
    assert read_notes(notes_path(segment), segment_id(segment)).ranges == []
    journal = journals()
    assert journal.look().count == 4
    assert journal.move_on(sink.put) == 4


def test_notes_of_another_segment_mean_nothing(directory: Path, tmp_path: Path, sink: Sink) -> None:
    segment = left(directory)
    journal = opened(tmp_path / "other")
    journal.write([JournalRecord(f"{number}", b"%d" % number * 300) for number in range(4)])
    journal.retire(["0", "1", "2"])
    journal.close()
    (other,) = (tmp_path / "other" / "segments").glob("*.notes")
    notes_path(segment).write_bytes(other.read_bytes())
    journal = opened(directory)
    assert journal.move_on(sink.put) == 4
    journal.close()
