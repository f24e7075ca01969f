"""The damaged files of a journal, for who looks for something in them, or has to remove something.

Such a segment still has its good records, though they have moved on; and parts that nobody can read.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from glassq import delivery as envelope
from glassq.errors import DamagedDelivery
from glassq.files import sync_directory
from glassq.journal.older import SUFFIX
from glassq.journal.record import PlacedRecord, records
from glassq.journal.segment import segment_id, segments, write_at

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class DamagedFile:
    """A file: its good `records`, and the bytes beside them that nobody can read (b"": there are none)."""

    path: Path
    records: Sequence[PlacedRecord]
    unreadable: bytes


def damaged_files(directory: Path) -> Iterator[DamagedFile]:
    """Each file in the directory of damaged ones. Raises OSError."""
    known = set(segments(directory))
    for path in sorted(directory.iterdir()):
        if path.name[0] == "." or not path.is_file():
            continue
        data = path.read_bytes()
        found = list(records(data, segment_id(path))) if path in known else _delivery(path, data)
        yield DamagedFile(path, found, _beside(data, found))


def erase(path: Path, gone: Collection[PlacedRecord]) -> None:
    """Overwrites these records of a file with zeros, durably; a file that has nothing else is removed.

    Raises OSError.
    """
    file = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        for record in gone:
            write_at(file, bytes(record.end - record.begin), record.begin)
        os.fsync(file)
    finally:
        os.close(file)
    if not path.read_bytes().strip(b"\0"):
        path.unlink()
        sync_directory(path.parent)


def _delivery(path: Path, data: bytes) -> list[PlacedRecord]:
    """A delivery that has a file of its own; somebody may have mended it."""
    try:
        envelope.decode(data)
    except DamagedDelivery:
        return []
    return [PlacedRecord(0, len(data), 0, path.name.removesuffix(SUFFIX), data)]


def _beside(data: bytes, found: Sequence[PlacedRecord]) -> bytes:
    begins, ends = [*(record.begin for record in found), len(data)], [0, *(record.end for record in found)]
    return b"".join(data[end:begin].strip(b"\0") for end, begin in zip(ends, begins, strict=True))
