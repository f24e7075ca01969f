"""A record: one delivery in a segment, and how records are found again in a segment's bytes.

    mark, the segment's own id, begin, commit, length of the body, length of the key, CRC-32, key, body

`begin` is the record's offset, and `commit` the offset of the first record of the same commit. With the segment's id
and `begin` in it, no record can be taken for one of another segment or place, whatever the disk held before.
"""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MARK = b"gqJ1"
_BARE = struct.Struct("<4s8sIIIHxx")
_CRC = struct.Struct("<I")
_HEAD = struct.Struct("<4s8sIIIHxxI")
# The size of a record without its key and body, in bytes.
HEAD = _HEAD.size


class JournalRecord(NamedTuple):
    """A delivery's id, and the bytes of its job."""

    key: str
    body: bytes


class PlacedRecord(NamedTuple):
    """A good record, where it lies in its segment."""

    begin: int
    end: int
    commit: int
    key: str
    body: bytes

    @property
    def bare(self) -> JournalRecord:
        """The record without its place."""
        return JournalRecord(self.key, self.body)


def size_of(record: JournalRecord) -> int:
    """The record's size in a segment, in bytes."""
    return HEAD + len(record.key.encode()) + len(record.body)


def pack(record: JournalRecord, segment_id: bytes, begin: int, commit: int) -> bytes:
    """The record's bytes in the segment with this id, for this place and this commit."""
    key = record.key.encode()
    bare = _BARE.pack(MARK, segment_id, begin, commit, len(record.body), len(key))
    crc = zlib.crc32(record.body, zlib.crc32(key, zlib.crc32(bare)))
    return b"%b%b%b%b" % (bare, _CRC.pack(crc), key, record.body)


def head_at(data: bytes, at: int, segment_id: bytes, base: int = 0) -> tuple[int, int, int] | None:
    """The record that seems to begin at `at` of `data`, which lies at `base` in its segment: end, commit, CRC.

    The end is an index of `data`. None: there is none. Whether the record is good only its CRC says.
    """
    if not data.startswith(MARK, at) or at + HEAD > len(data):
        return None
    _, found_id, begin, commit, body, key, crc = _HEAD.unpack_from(data, at)
    if found_id != segment_id or begin != base + at:
        return None
    return at + HEAD + key + body, commit, crc


def key_at(data: bytes, at: int) -> str:
    """The key of the record whose head begins at `at`."""
    length = _HEAD.unpack_from(data, at)[5]
    return data[at + HEAD : at + HEAD + length].decode("ascii", "replace")


def records(data: bytes, segment_id: bytes) -> Iterator[PlacedRecord]:
    """All good records in a segment's bytes, also those behind bad ones."""
    at = 0
    while at >= 0:
        found = _good_at(data, at, segment_id)
        if found is None:
            at = data.find(MARK + segment_id, at + 1)
        else:
            yield found
            at = found.end


def _good_at(data: bytes, at: int, segment_id: bytes) -> PlacedRecord | None:
    head = head_at(data, at, segment_id)
    if head is None or head[0] > len(data):
        return None
    end, commit, crc = head
    key, begin = key_at(data, at), at + HEAD
    bare_crc = zlib.crc32(data[at : at + HEAD - _CRC.size])
    if zlib.crc32(data[begin:end], bare_crc) != crc:
        return None
    return PlacedRecord(at, end, commit, key, data[begin + len(key) : end])


def damage_at(found: Iterable[PlacedRecord]) -> int | None:
    """Where a record that was promised is missing among those found: a gap before a later commit. None: nowhere.

    A commit begins when the one before has ended. So a gap after which all is of the commit that the gap is in was
    promised to nobody: the power went before that commit's end, and the disk had taken its parts in another order.
    """
    expected, gap = 0, None
    for record in found:
        if gap is None and record.begin != expected:
            gap = expected
        if gap is not None and record.commit > gap:
            return gap
        expected = record.end
    return None
