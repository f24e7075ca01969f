"""What is noted beside a segment: how many records it has, and which of them need not be moved on any more.

    SEGMENT.notes    entries of 16 bytes: begin, end, count, CRC-32. The first one says what was written: 0, the end of
                     the last record, and their number. The others are ranges of records that are done

Notes are never synced, and may be lost or old: then records are counted again by reading, and moved on once more. An
entry counts only if its CRC is right, which covers the segment's id.
"""

from __future__ import annotations

import os
import struct
import zlib
from bisect import bisect_right
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple, Self

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

_RANGE = struct.Struct("<III")
_CRC = struct.Struct("<I")
_ENTRY = _RANGE.size + _CRC.size


class Noted(NamedTuple):
    """What the notes of a segment say: `number` records up to `end`, of which `done` in `ranges` need no moving on.

    The ranges are in order and do not overlap.
    """

    number: int
    end: int
    done: int
    ranges: list[tuple[int, int]]

    def is_done(self, begin: int) -> bool:
        """Whether the record that begins there need not be moved on."""
        at = bisect_right(self.ranges, (begin, 1 << 62)) - 1
        return at >= 0 and begin < self.ranges[at][1]

    def first_left(self) -> int:
        """Where the first record begins that is to be moved on."""
        return self.ranges[0][1] if self.ranges and self.ranges[0][0] == 0 else 0


class SegmentNotes:
    """The notes of one segment, for the process that holds its lock. A note that cannot be written is left out."""

    def __init__(self, path: Path, segment_id: bytes, owner: tuple[int, int] | None = None) -> None:
        """Makes the file if it is missing, for `owner` (user and group) where they are not ours."""
        self._seed = zlib.crc32(segment_id)
        self._file: int | None = None
        with suppress(OSError):
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            if owner is not None:
                os.fchown(self._file, *owner)
        self._slots = max(1, -(-_size(self._file) // _ENTRY))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def written(self, count: int, end: int) -> None:
        """So many records are in the segment, the last of which ends there."""
        self._write(0, ((0, end, count),))

    def done(self, ranges: Iterable[tuple[int, int, int]]) -> None:
        """These records need not be moved on: begin of the first, end of the last, and their number."""
        entries = tuple(ranges)
        self._write(self._slots, entries)
        self._slots += len(entries)

    def _write(self, slot: int, entries: Iterable[tuple[int, int, int]]) -> None:
        if self._file is not None:
            packed = (_RANGE.pack(*entry) for entry in entries)
            data = b"".join(entry + _CRC.pack(zlib.crc32(entry, self._seed)) for entry in packed)
            with suppress(OSError):
                os.pwrite(self._file, data, slot * _ENTRY)


def ranges(places: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int, int]]:
    """Places of records, in order, as few ranges: begin of the first, end of the last, number."""
    last: tuple[int, int, int] | None = None
    for begin, end in places:
        if last and last[1] == begin:
            last = (last[0], end, last[2] + 1)
            continue
        if last:
            yield last
        last = (begin, end, 1)
    if last:
        yield last


def read_notes(path: Path, segment_id: bytes) -> Noted:
    """What the notes say; nothing where there are none."""
    try:
        data = path.read_bytes()
    except OSError:
        return Noted(0, 0, 0, [])
    seed, number, end, done = zlib.crc32(segment_id), 0, 0, 0
    places: list[tuple[int, int]] = []
    for at in range(0, len(data) - _ENTRY + 1, _ENTRY):
        entry = data[at : at + _RANGE.size]
        if _CRC.unpack_from(data, at + _RANGE.size)[0] != zlib.crc32(entry, seed):
            continue
        begin, last, many = _RANGE.unpack(entry)
        if at == 0:
            number, end = many, last
        else:
            places.append((begin, last))
            done += many
    return Noted(number, end, done, _merged(places))


def _merged(places: list[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for begin, end in sorted(places):
        if merged and begin <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((begin, end))
    return merged


def _size(file: int | None) -> int:
    with suppress(OSError):
        return os.fstat(file).st_size if file is not None else 0
    return 0
