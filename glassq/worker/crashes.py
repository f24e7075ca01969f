"""The crash log: a ring of the latest deaths at work, in the scoreboard's memory.

Only the parent knows what ended a child. The child that gets the job next puts that into the delivery as evidence.
"""

from __future__ import annotations

import hashlib
import mmap
import struct
import time
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

# Room beside that for a pool that is killed as a whole, for the deaths just before.
SPARE_CRASHES = 64
# when (seconds since 1970, for people), seconds into the attempt, delivery id, how, why
RECORD = struct.Struct("@dd40s16s240s")
# Before the records is one number for each, so that a search is quick: the job, hashed; 0: no record. It is odd, so its
# first byte is never 0.
MARK = struct.Struct("<q")
# The year 9999: a later time cannot be shown, and is damage.
_LATEST = 250e9


@dataclass(frozen=True, slots=True)
class Crash:
    """The death of a child in an attempt: `how` ("SIGKILL", "exit 7"), and `why` if the parent knows the cause.

    `at` is in seconds since 1970, `duration` of the attempt in seconds.
    """

    how: str
    why: str
    at: float
    duration: float


class CrashLog:
    """The latest crashes. The parent adds them, the children read them."""

    def __init__(self, memory: mmap.mmap | bytes, room: int, marks: int, records: int) -> None:
        """`marks` and `records` are where so many begin in the memory; bytes can only be read."""
        self._memory = memory
        #: how many are kept
        self.room = room
        self._form = struct.Struct(f"@{room}q")
        self._marks = marks
        self._records = records
        self._next = 0

    def add(self, job: str, delivery: str, how: str, why: str, duration: float) -> None:
        """Adds the death of a child that worked this delivery, out of this job."""
        self.add_marked(hashed(job), delivery, Crash(how, why, time.time(), duration))

    def add_marked(self, mark: int, delivery: str, crash: Crash) -> None:
        """The same for a job of which only the mark is known, as `hashed` makes it."""
        how, why = packed(crash.how, 16), packed(crash.why, 240)
        self._append(mark, RECORD.pack(crash.at, crash.duration, packed(delivery, 40), how, why))

    def take_over(self, other: CrashLog) -> None:
        """Adds all crashes of another log, oldest first. What cannot be one is left out."""
        found = [(mark, other._record(index)) for mark, index in other._marked()]
        for mark, record in sorted(found, key=lambda pair: float(RECORD.unpack(pair[1])[0])):
            at, duration = RECORD.unpack(record)[:2]
            if 0 <= at < _LATEST and 0 <= duration < _LATEST:
                self._append(mark, record)

    def names(self, mark: int, delivery: str) -> bool:
        """Whether there is a crash of this delivery out of the job with this mark."""
        return any(each == mark and self._delivery(index) == delivery for each, index in self._marked())

    def of(self, job: str, delivery: str) -> list[Crash]:
        """The crashes of this delivery out of this very job, oldest first."""
        found = []
        for mark, index in self._marked():
            if mark == hashed(job) and self._delivery(index) == delivery:
                at, duration, _, how, why = RECORD.unpack(self._record(index))
                found.append(Crash(shown(how), shown(why, "utf-8"), at, duration))
        return sorted(found, key=lambda crash: crash.at)

    def _append(self, mark: int, record: bytes) -> None:
        assert isinstance(self._memory, mmap.mmap)
        at, start = self._marks + self._next * MARK.size, self._records + self._next * RECORD.size
        # the mark last: a reader that looks for it never finds half a record
        self._memory[at : at + MARK.size] = bytes(MARK.size)
        self._memory[start : start + RECORD.size] = record
        self._memory[at : at + MARK.size] = MARK.pack(mark)
        self._next = (self._next + 1) % self.room

    def _marked(self) -> Iterator[tuple[int, int]]:
        """The marks of all records, with their indices."""
        marks = self._form.unpack_from(self._memory, self._marks)
        return ((mark, index) for index, mark in enumerate(marks) if mark)

    def _record(self, index: int) -> bytes:
        start = self._records + index * RECORD.size
        return self._memory[start : start + RECORD.size]

    def _delivery(self, index: int) -> str:
        return shown(RECORD.unpack(self._record(index))[2])


@lru_cache(4)
def hashed(job: str) -> int:
    """A job's reference as an odd number that one store can write."""
    return int.from_bytes(hashlib.blake2b(job.encode(), digest_size=8).digest()) >> 1 | 1


def packed(text: str, size: int) -> bytes:
    """As much of the text as fits into a field of this size, in UTF-8."""
    return text.encode("utf-8", "replace")[:size]


def shown(field: bytes, encoding: str = "ascii") -> str:
    """The text in a field."""
    return field.rstrip(b"\0").decode(encoding, "replace")
