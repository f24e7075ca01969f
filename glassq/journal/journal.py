"""The intake journal: keeps deliveries on disk until the queue has proven that it keeps them.

DIR/segments/   the segments (segment.py) and their notes (notes.py)
DIR/damaged/, DIR/refused/   what was set aside for an operator (aside.py)
DIR/bodies/     bodies that wait for a store far away (bodies/waiting.py)
DIR/*.job       deliveries of an older version's spool (older.py)
DIR/.lock       held by the one process that moves records on
"""

from __future__ import annotations

import math
import os
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from glassq.errors import JournalError
from glassq.files import make_directory
from glassq.journal.aside import DAMAGED, REFUSED, SetAside
from glassq.journal.damaged import DamagedFile, damaged_files, erase
from glassq.journal.examine import ExaminedFile, deliveries_in, examine, waiting
from glassq.journal.identity import make_id
from glassq.journal.mover import JournalMover, packets
from glassq.journal.older import OlderSpool
from glassq.journal.room import JournalRoom
from glassq.journal.segment import segments
from glassq.journal.supply import SegmentSupply
from glassq.journal.survey import survey
from glassq.journal.writer import JournalWriter
from glassq.log import fields, logger

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
    from pathlib import Path

    from glassq.errors import QueueError
    from glassq.journal.record import JournalRecord, PlacedRecord

log = logger("glassq.intake")

SEGMENTS = "segments"
# Bodies that wait with their deliveries (bodies/waiting.py). It is made with the first one.
BODIES = "bodies"
# The directories in a journal's directory.
DIRECTORIES = (SEGMENTS, DAMAGED, REFUSED)


@dataclass(frozen=True, slots=True)
class Journaled:
    """The journal's content: `count` deliveries to be moved on, and what was set aside as `damaged` or `refused`.

    `size` are its blocks on disk in bytes, with what is allocated ahead. `oldest` is the oldest delivery's age in
    seconds, 0 for none. `bodies` that are not stored yet wait with their deliveries.
    """

    count: int
    size: int
    oldest: float
    damaged: int
    refused: int = 0
    bodies: int = 0


class Journal:
    """A directory of records, for all threads of one process. Other processes may use it at the same time.

    A process that writes calls `start` after its fork, and `close` at its end.
    """

    def __init__(self, directory: Path, *, max_size: int, min_free: int) -> None:
        """`max_size` limits the journal's blocks on disk, `min_free` is what must stay free there; both in bytes.

        The directory is made if it is missing, durably. Raises JournalError if that fails.
        """
        self.directory = directory
        self._segments = directory / SEGMENTS
        try:
            make_directory(directory)
            make_directory(self._segments)
            self._aside = SetAside(directory)
        except OSError as error:
            raise JournalError(f"journal {directory}: cannot be made: {error.strerror}") from None
        if self._aside.owner:
            os.chown(self._segments, *self._aside.owner, follow_symlinks=False)
        self._older = OlderSpool(directory, self._aside)
        self._room = JournalRoom(directory, self._older, max_size=max_size, min_free=min_free)
        self._supply = SegmentSupply(self._segments, self._room, max_size)
        self._writer = JournalWriter(self._segments, self._supply)
        self._mover = JournalMover(directory, self._segments, self._older, self._aside)

    def start(self) -> None:
        """Has a thread keep a segment ready, so that no ping waits for it. Call it after the fork."""
        self._supply.expect()
        threading.Thread(target=self._tend, name="journal", daemon=True).start()

    def write(self, records: Sequence[JournalRecord], *, hold: bool = False) -> None:
        """Writes the records; on return they are on disk. Those that wait at a moment share one write and one sync.

        With `hold` they are not moved on until `retire` or `release` names them, or this process ends. Raises
        JournalError: then none of them is promised.
        """
        self._writer.write(records, held=hold)

    def check_room(self, more: int) -> None:
        """Raises JournalError if `more` bytes do not fit."""
        self._writer.check_room(more)

    def retire(self, keys: Collection[str]) -> None:
        """The queue has these now: they need not be moved on. Keys that this process has not written are ignored."""
        self._writer.retire(keys)

    def release(self, keys: Collection[str]) -> None:
        """These, which `write` was to hold, are to be moved on."""
        self._writer.release(keys)

    def move_on(
        self, put: Callable[[Sequence[JournalRecord]], Mapping[str, QueueError]], *, seconds: float = math.inf
    ) -> int:
        """Puts the records into the queue, oldest first, and returns how many; 0 also while another process does it.

        `put` gets a packet, and proves what it has put. It returns the keys of the others with the reason: those that
        are too big (JobTooBig) are set aside, and those whose body waits (BodyUnstored) stay. It ends after `seconds`,
        with any other such reason, or with the exception that `put` raises; what was not put then stays. Raises
        JournalError if the directory cannot be read.
        """
        deadline = time.monotonic() + seconds
        try:
            self._writer.hand_over()
            moved = self._move_unrescued(put)
            return moved + self._mover.move_on(put, deadline, self._writer.names())
        except OSError as error:
            raise self._unreadable(error) from None

    def _move_unrescued(self, put: Callable[[Sequence[JournalRecord]], Mapping[str, QueueError]]) -> int:
        moved = 0
        for packet in packets(self._writer.unrescued()):
            settled, stop = self._mover.settle(packet, put)
            self._writer.retire(settled)
            moved += len(settled)
            if stop:
                raise stop
        return moved

    def look(self) -> Journaled:
        """The journal's content now. Raises JournalError."""
        try:
            older = self._older.look()
            found = [survey(path) for path in segments(self._segments)]
            damaged, refused = self._aside.counts()
            size, bodies = self._room.used(), _bodies_in(self.directory / BODIES)
        except OSError as error:
            raise self._unreadable(error) from None
        first = min((key for key in (older.first, *(each.first for each in found)) if key), default="")
        count = older.number + sum(each.left for each in found)
        return Journaled(count, size, _age(first), damaged, refused, bodies)

    def examine(self) -> Iterator[ExaminedFile]:
        """What is in each file; it reads all of them, and changes nothing. Raises JournalError."""
        try:
            yield from examine(self.directory, self._segments, self._aside.damaged)
        except OSError as error:
            raise self._unreadable(error) from None

    def waiting(self) -> Iterator[JournalRecord]:
        """Each delivery that is to be moved on; it reads all files, and changes nothing. Raises JournalError."""
        try:
            yield from waiting(self.directory, self._segments)
        except OSError as error:
            raise self._unreadable(error) from None

    def refused(self) -> Iterator[JournalRecord]:
        """Each delivery that the queue has refused for good. Raises JournalError."""
        try:
            yield from deliveries_in(self._aside.refused)
        except OSError as error:
            raise self._unreadable(error) from None

    def forget_refused(self, key: str) -> None:
        """Removes one of them. Raises JournalError."""
        try:
            self._aside.remove_refused(key)
        except OSError as error:
            raise self._unreadable(error) from None

    def damaged(self) -> Iterator[DamagedFile]:
        """Each file that was set aside as damaged. Raises JournalError."""
        try:
            yield from damaged_files(self._aside.damaged)
        except OSError as error:
            raise self._unreadable(error) from None

    def erase_damaged(self, path: Path, records: Collection[PlacedRecord]) -> None:
        """Removes good records from a damaged file. Raises JournalError."""
        try:
            erase(path, records)
        except OSError as error:
            raise self._unreadable(error) from None

    def identity(self) -> str:
        """The journal's own id; it gets one if it has none. Raises JournalError."""
        try:
            return make_id(self.directory)
        except OSError as error:
            raise JournalError(f"journal {self.directory}: cannot be written: {error.strerror}") from None

    def close(self) -> None:
        """Ends writing: what is needed is left to other processes, and what is not is removed."""
        self._writer.close()

    def _tend(self) -> None:
        try:
            self._mover.sweep(self._writer.names())
        except OSError as error:
            log.error("journal cannot be swept %s", fields(directory=self.directory, why=error.strerror))
        self._supply.keep_ready()

    def _unreadable(self, error: OSError) -> JournalError:
        return JournalError(f"journal {self.directory}: cannot be read: {error.strerror}")


def _bodies_in(directory: Path) -> int:
    try:
        return sum(1 for name in os.listdir(directory) if name[0] != ".")  # noqa: PTH208 - no paths are needed
    except FileNotFoundError:
        return 0


def _age(key: str) -> float:
    """The age of a delivery in seconds, 0 for a key that is no delivery's."""
    try:
        # the first 48 bits of a UUID of version 7 are its time
        return max(0.0, time.time() - int(key.replace("-", "")[:12], 16) / 1000)
    except ValueError:
        return 0.0
