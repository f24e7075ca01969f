"""Moves records on into the queue, oldest first, in packets that share one proof.

One process at a time does it: the one that holds DIR/.lock, as with the spool of an older version. A segment is read
only by who holds its own lock, too: its writer is dead, or done with it. After each packet a note says how far it got,
so that a kill repeats one packet; the segment goes once all of it has moved on.
"""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from glassq.errors import BodyUnstored, JobTooBig
from glassq.journal.notes import SegmentNotes, ranges, read_notes
from glassq.journal.older import remove_stale
from glassq.journal.record import JournalRecord, PlacedRecord, damage_at, records
from glassq.journal.segment import claimed, notes_path, read_whole, remove, segment_id, segments
from glassq.journal.survey import survey
from glassq.log import fields, logger

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from glassq.errors import QueueError
    from glassq.journal.aside import SetAside
    from glassq.journal.older import OlderSpool

    # Puts records into the queue and proves them; returns those that it has not taken, with the reason. A JobTooBig is
    # for good. Raises QueueError where nobody knows of any.
    Put = Callable[[Sequence[JournalRecord]], Mapping[str, QueueError]]

log = logger("glassq.intake")

# The size of a packet: what a kill may repeat. In records and bytes.
PACKET = 256
PACKET_BYTES = 1 << 20

_AnyRecord = TypeVar("_AnyRecord", JournalRecord, PlacedRecord)


class JournalMover:
    """Moves on what lies in a journal's directory."""

    def __init__(self, directory: Path, places: Path, older: OlderSpool, aside: SetAside) -> None:
        """`places` is where the segments are."""
        self._directory = directory
        self._segments = places
        self._older = older
        self._aside = aside

    def move_on(self, put: Put, deadline: float, own: Collection[str]) -> int:
        """Returns how many records were moved on until `deadline` (time.monotonic()); 0 while another process does it.

        `own` are the names of segments that this process writes. Raises what `put` raises, and OSError.
        """
        moved = 0
        with self._only_one() as ours:
            if ours:
                moved += self._move_older(put, deadline)
                for path in self._in_order(own):
                    if time.monotonic() > deadline:
                        break
                    moved += self._segment(path, put, deadline)
        return moved

    def sweep(self, own: Collection[str]) -> None:
        """Removes segments of dead processes with nothing in them, and counts what was not counted. Raises OSError."""
        for path in segments(self._segments):
            found = survey(path)
            if path.name not in own and (not found.left or found.uncounted):
                self._segment(path, None, 0.0)
        for directory in (self._directory, self._segments):
            remove_stale(directory)

    def settle(self, packet: Sequence[JournalRecord], put: Put) -> tuple[set[str], QueueError | None]:
        """Puts a packet, and sets aside what is refused for good.

        Returns the keys of those that are needed no longer, and why the queue has not taken another one now.
        """
        settled = {record.key for record in packet}
        stop: QueueError | None = None
        for key, error in put(packet).items():
            if isinstance(error, BodyUnstored):
                # the others go on
                settled.discard(key)
            elif not isinstance(error, JobTooBig):
                stop = stop or error
                settled.discard(key)
            elif not self._set_aside(next(record for record in packet if record.key == key), error):
                settled.discard(key)
        return settled, stop

    def _set_aside(self, record: JournalRecord, why: JobTooBig) -> bool:
        try:
            self._aside.refused_delivery(record, why)
        except OSError as error:
            log.error("a refused delivery stays %s", fields(delivery=record.key, why=error.strerror))
            return False
        return True

    def _move_older(self, put: Put, deadline: float) -> int:
        moved = 0
        found = packets(self._older.deliveries())
        try:
            while time.monotonic() <= deadline and (packet := next(found, None)):
                settled, stop = self.settle(packet, put)
                for key in settled:
                    self._older.remove(key)
                moved += len(settled)
                if stop:
                    raise stop
        except BaseException:
            self._older.start_again()
            raise
        return moved

    def _in_order(self, own: Collection[str]) -> list[Path]:
        """The segments of others, those with the oldest records first."""
        found = [(survey(path).first, path) for path in segments(self._segments) if path.name not in own]
        return [path for _, path in sorted(found)]

    def _segment(self, path: Path, put: Put | None, deadline: float) -> int:
        """Moves on a segment until the deadline, at least a packet. Without `put` what is in it stays."""
        try:
            with claimed(path) as file:
                return 0 if file is None else self._claimed(path, read_whole(file), put, deadline)
        except OSError as error:
            # The others go on.
            log.error("journal segment cannot be moved on %s", fields(file=path, why=error.strerror))
            return 0

    def _claimed(self, path: Path, data: bytes, put: Put | None, deadline: float) -> int:
        own_id = segment_id(path)
        found, noted = list(records(data, own_id)), read_notes(notes_path(path), own_id)
        left = [record for record in found if not noted.is_done(record.begin)]
        moved = 0
        with SegmentNotes(notes_path(path), own_id, self._aside.owner) as notes:
            if found and noted.number != len(found):
                notes.written(len(found), found[-1].end)
            for packet in packets(left):
                if put is None or (moved and time.monotonic() > deadline):
                    return moved
                settled, stop = self.settle([record.bare for record in packet], put)
                notes.done(ranges((each.begin, each.end) for each in packet if each.key in settled))
                moved += len(settled)
                if stop:
                    raise stop
        if moved < len(left):
            return moved
        if (at := damage_at(found)) is not None:
            self._aside.damaged_file(path, f"no good record at {at}, though there are later ones")
        remove(path)
        return moved

    @contextmanager
    def _only_one(self) -> Iterator[bool]:
        """Whether this process moves on, as long as the block runs. The lock ends with the process. Raises OSError."""
        file = os.open(self._directory / ".lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            if self._aside.owner:
                # Else the lock would be root's, and intake could never move anything on again.
                os.fchown(file, *self._aside.owner)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            yield True
        finally:
            os.close(file)


def packets(found: Iterable[_AnyRecord]) -> Iterator[list[_AnyRecord]]:
    """The records in packets."""
    packet: list[_AnyRecord] = []
    size = 0
    for record in found:
        packet.append(record)
        size += len(record.body)
        if len(packet) >= PACKET or size >= PACKET_BYTES:
            yield packet
            packet, size = [], 0
    if packet:
        yield packet
