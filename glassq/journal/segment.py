"""A segment: one file of the journal, filled with zeros ahead, then written record after record by one process.

    DIR/TIME-ID.segment          TIME: when it was made, in milliseconds; ID: its own id, random. Both in hexadecimal
    DIR/.TIME-ID.segment.new     a segment that is being made

Its process holds a lock on it (flock(2)) for as long as it may write it. Whoever else gets the lock, and finds the file
still under its name, may read it back and remove it: its writer is dead, or done with it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from glassq.files import sync_directory
from glassq.journal.notes import SegmentNotes, ranges
from glassq.journal.record import JournalRecord, pack, size_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from pathlib import Path

SUFFIX = ".segment"
_NAME = re.compile(r"[0-9a-f]{12}-[0-9a-f]{16}\.segment")
# Written at once while a segment is filled with zeros, in bytes.
ZEROS = 1 << 18
REMOVED = "somebody has removed it"


@dataclass(slots=True)
class KeptRecord:
    """A record that this process has acknowledged and that is still needed. `held`: it must not be moved on yet."""

    record: JournalRecord
    begin: int
    end: int
    held: bool


@dataclass(slots=True)
class OwnSegment:
    """A segment of this process, which holds its lock. `end` is where the next record goes."""

    path: Path
    file: int
    size: int
    notes: SegmentNotes
    end: int = 0
    count: int = 0
    kept: dict[str, KeptRecord] = field(default_factory=dict)

    def fitting(self, records: Sequence[JournalRecord], most: int) -> int:
        """How many of the records, from the first on, this segment takes, where it may hold `most` in all."""
        room, number = self.size - self.end, 0
        for record in records[: max(0, most - self.count)]:
            room -= size_of(record)
            if room < 0:
                break
            number += 1
        return number

    def commit(self, records: Collection[tuple[JournalRecord, bool]]) -> None:
        """Writes the records, each with whether it is held; on return they are on disk.

        Raises OSError, also where the file was removed; the segment must then never be written or synced again.
        """
        begin = self.end
        parts: list[bytes] = []
        kept: list[KeptRecord] = []
        for record, held in records:
            parts.append(pack(record, segment_id(self.path), self.end, begin))
            end = self.end + len(parts[-1])
            kept.append(KeptRecord(record, self.end, end, held))
            self.end = end
        write_at(self.file, b"".join(parts), begin)
        os.fdatasync(self.file)
        if self.is_removed():
            raise FileNotFoundError(errno.ENOENT, REMOVED)
        self.count += len(kept)
        self.kept.update((each.record.key, each) for each in kept)
        self.notes.written(self.count, self.end)

    def is_removed(self) -> bool:
        """Whether somebody has removed the file: what is in it is lost once this process ends.

        A file that was moved away, with its directory, is not removed.
        """
        return os.fstat(self.file).st_nlink == 0

    def drop(self, keys: Collection[str]) -> None:
        """These records need not be moved on any more. Keys that it does not have are ignored."""
        dropped = [kept for key in keys if (kept := self.kept.pop(key, None))]
        if dropped:
            dropped.sort(key=lambda kept: kept.begin)
            self.notes.done(ranges((each.begin, each.end) for each in dropped))

    def is_held(self) -> bool:
        """Whether a record in it must not be moved on yet."""
        return any(kept.held for kept in self.kept.values())

    def forget_bodies(self) -> None:
        """Frees the memory of its records. Only for a segment of which each commit was a success, and that is full."""
        for key, kept in self.kept.items():
            kept.record = JournalRecord(key, b"")

    def close(self) -> None:
        """Gives up the lock: from now on the segment is for whoever moves records on."""
        self.notes.close()
        os.close(self.file)

    def remove(self) -> None:
        """Removes the file, which nobody needs, and closes it."""
        remove(self.path)
        self.close()


def make_segment(directory: Path, size: int) -> OwnSegment:
    """A new segment of `size` bytes; on return file and name are on disk. Raises OSError, and leaves nothing."""
    final = directory / f"{int(time.time() * 1000):012x}-{os.urandom(8).hex()}{SUFFIX}"
    new = final.with_name(f".{final.name}.new")
    file = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        zeros = bytes(min(size, ZEROS))
        for at in range(0, size, len(zeros)):
            write_at(file, zeros[: size - at], at)
        os.fsync(file)
        new.rename(final)
        sync_directory(directory)
    except OSError:
        for path in (new, final):
            with suppress(OSError):
                path.unlink()
        os.close(file)
        raise
    return OwnSegment(final, file, size, SegmentNotes(notes_path(final), segment_id(final)))


def write_at(file: int, data: bytes, at: int) -> None:
    """Writes all of it. Raises OSError."""
    view = memoryview(data)
    while view:
        written = os.pwrite(file, view, at)
        view, at = view[written:], at + written


def segments(directory: Path) -> list[Path]:
    """The segments in a directory, oldest first. Raises OSError."""
    with os.scandir(directory) as entries:
        names = [entry.name for entry in entries if _NAME.fullmatch(entry.name)]
    return [directory / name for name in sorted(names)]


def segment_id(path: Path) -> bytes:
    """The id in a segment's name."""
    return bytes.fromhex(path.stem.partition("-")[2])


def notes_path(path: Path) -> Path:
    """The notes of a segment."""
    return path.with_suffix(".notes")


def remove(path: Path) -> None:
    """Removes a segment and its notes, which stay as long as it does. Whoever calls it holds the segment's lock."""
    with suppress(OSError):
        for file in (path, notes_path(path)):
            file.unlink(missing_ok=True)


@contextmanager
def claimed(path: Path) -> Iterator[int | None]:
    """A segment's file, while we hold its lock; None if another process has it, or it is gone. Raises OSError."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        yield None
        return
    try:
        yield file if _is_ours(file, path) else None
    finally:
        os.close(file)


def _is_ours(file: int, path: Path) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # It may have been moved on and removed before we had the lock.
        return os.path.samestat(os.fstat(file), path.stat())
    except (BlockingIOError, FileNotFoundError):
        return False


def read_whole(file: int) -> bytes:
    """All bytes of a file. Raises OSError."""
    size, parts = os.fstat(file).st_size, []
    at = 0
    while at < size and (part := os.pread(file, size - at, at)):
        parts.append(part)
        at += len(part)
    return b"".join(parts)
