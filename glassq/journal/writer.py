"""Takes records to disk: all that wait at a moment with one write and one fdatasync.

Of the threads that call `write`, one leads: it commits for all that wait, then wakes them, and the first of those that
came meanwhile leads next. A single thread waits for nobody.

A segment that could not be written or synced is given up: the kernel may have dropped what it failed to write, and
would call the next sync a success. So is one that somebody has removed, though it can be written still. What was
acknowledged from either is in memory still, and goes into a new segment before anything else.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from glassq.errors import JournalError
from glassq.journal.record import size_of
from glassq.journal.segment import REMOVED
from glassq.log import fields, logger

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from pathlib import Path

    from glassq.journal.record import JournalRecord
    from glassq.journal.segment import KeptRecord, OwnSegment
    from glassq.journal.supply import SegmentSupply

log = logger("glassq.intake")

# What one process has in memory: of a segment's records, and of those that wait to be written; in records and bytes.
MAX_RECORDS = 4_096
MAX_BYTES = 64 << 20
# How long a segment is waited for that is about to be made, before another one is given away, in seconds.
MAX_WAIT = 1.0


class _Waiting:
    """Records of one call of `write`; the outcome once they are `done`. `turn` is released then, or to have it lead."""

    __slots__ = ("done", "error", "held", "mine", "size", "turn")

    def __init__(self, records: Sequence[JournalRecord], *, held: bool) -> None:
        self.mine = records
        self.held = held
        self.size = sum(len(record.body) for record in records)
        self.done = False
        self.error: JournalError | None = None
        self.turn = threading.Lock()
        self.turn.acquire()


class JournalWriter:
    """Writes this process's segments; for all its threads."""

    def __init__(self, directory: Path, supply: SegmentSupply) -> None:
        self._directory = directory
        self._supply = supply
        self._current: OwnSegment | None = None
        #: full ones, with records that are held
        self._full: list[OwnSegment] = []
        #: given up, with acknowledged records that no other segment has
        self._given_up: list[OwnSegment] = []
        self._waiting: list[_Waiting] = []
        #: whether a thread leads: it commits, or was woken to
        self._led = False
        self._turn = threading.Lock()
        #: for the segments' records and the lists of segments; never held while something is written or synced
        self._state = threading.Lock()
        self._closed = False

    # -- writing -------------------------------------------------------------------------------------------------------

    def write(self, records: Sequence[JournalRecord], *, held: bool) -> None:
        """On return they are on disk. Raises JournalError: none of them is promised."""
        if not records:
            return
        mine = _Waiting(records, held=held)
        with self._state:
            self._check_waiting(mine)
            self._waiting.append(mine)
            leads, self._led = not self._led, True
        if not leads:
            mine.turn.acquire()
        if not mine.done:
            with self._turn:
                self._commit()
        if mine.error is not None:
            raise mine.error

    def _check_waiting(self, more: _Waiting) -> None:
        if self._closed:
            raise self._error("is closed")
        number = sum(len(waiting.mine) for waiting in self._waiting) + len(more.mine)
        size = sum(waiting.size for waiting in self._waiting) + more.size
        if self._waiting and (number > MAX_RECORDS or size > MAX_BYTES):
            raise self._error("too many deliveries wait to be written")

    def _commit(self) -> None:
        with self._state:
            waiting, self._waiting = self._waiting, []
        error: JournalError | None = self._error("is not written, because of a bug")
        try:
            self._give_up_removed()
            self._rescue()
            self._store([(record, each.held) for each in waiting for record in each.mine])
            error = None
        except JournalError as raised:
            error = raised
            # What was acknowledged must not hang on the next ping.
            with suppress(JournalError):
                self._rescue()
        finally:
            for each in waiting:
                each.error = error
                each.done = True
            self._wake(waiting)

    def _wake(self, done: Sequence[_Waiting]) -> None:
        with self._state:
            following = self._waiting[:1]
            self._led = bool(following)
        for each in (*following, *done):
            each.turn.release()

    def _store(self, records: Sequence[tuple[JournalRecord, bool]]) -> None:
        """Writes the records into as few segments as hold them. Raises JournalError."""
        while records:
            segment = self._segment([record for record, _ in records])
            number = segment.fitting([record for record, _ in records], MAX_RECORDS)
            try:
                segment.commit(records[:number])
            except OSError as error:
                self._give_up(segment, error.strerror)
                raise self._error(f"cannot be written: {error.strerror}") from None
            records = records[number:]

    def _segment(self, records: Sequence[JournalRecord]) -> OwnSegment:
        """A segment that takes at least the first record. Raises JournalError."""
        if self._current is not None and not self._current.fitting(records[:1], MAX_RECORDS):
            self._seal(even_held=True)
        if self._current is None:
            self._current = self._supply.take(size_of(records[0]))
        return self._current

    # -- failures ------------------------------------------------------------------------------------------------------

    def _give_up(self, segment: OwnSegment, why: str | None) -> None:
        log.critical(
            "journal segment given up %s",
            fields(file=segment.path, why=why, acknowledged=len(segment.kept)),
        )
        with self._state:
            self._current = None
            if segment.kept:
                self._given_up.append(segment)
                return
        segment.remove()

    def _give_up_removed(self) -> None:
        """Gives up what somebody has removed. Whoever calls it has the turn to commit."""
        if self._current is not None and self._current.is_removed():
            self._give_up(self._current, REMOVED)
        with self._state:
            removed = [segment for segment in self._full if segment.is_removed()]
            self._full = [segment for segment in self._full if segment not in removed]
        for segment in removed:
            # its bodies are not in memory any more
            log.critical("journal segment is lost %s", fields(file=segment.path, why=REMOVED, left=len(segment.kept)))
            segment.remove()

    def _rescue(self) -> None:
        """Writes into a new segment what was acknowledged from those that were given up. Raises JournalError."""
        while self._given_up:
            segment = self._given_up[0]
            with self._state:
                kept = list(segment.kept.values())
            if kept:
                # All of them or none: they fit into one segment, as they did before, and a new one is begun for them.
                self._store([(each.record, each.held) for each in kept])
                log.warning("journal segment written anew %s", fields(file=segment.path, deliveries=len(kept)))
            with self._state:
                # What is retired meanwhile is moved on once more.
                self._given_up.remove(segment)
            segment.remove()

    def unrescued(self) -> list[JournalRecord]:
        """What was acknowledged and is in no segment that can be trusted; not what is held."""
        with self._state:
            return [kept.record for segment in self._given_up for kept in segment.kept.values() if not kept.held]

    # -- what need not be moved on, or may be now ----------------------------------------------------------------------

    def retire(self, keys: Collection[str]) -> None:
        """These need not be moved on any more."""
        with self._state:
            for segment in self._open():
                segment.drop(keys)
        self._close_full()

    def release(self, keys: Collection[str]) -> None:
        """These are no longer held."""
        with self._state:
            for segment in self._open():
                for kept in self._found(segment, keys):
                    kept.held = False
        self._close_full()

    def _open(self) -> list[OwnSegment]:
        current = [self._current] if self._current is not None else []
        return [*current, *self._full, *self._given_up]

    @staticmethod
    def _found(segment: OwnSegment, keys: Collection[str]) -> Iterator[KeptRecord]:
        return (kept for key in keys if (kept := segment.kept.get(key)))

    def _close_full(self) -> None:
        with self._state:
            over = [segment for segment in self._full if not segment.is_held()]
            self._full = [segment for segment in self._full if segment not in over]
        for segment in over:
            _finish(segment)

    def hand_over(self) -> None:
        """Lets others move on what lies in the current segment, unless some of it is held."""
        # else the next ping would wait for a new one
        self._supply.wait(MAX_WAIT)
        with self._turn:
            self._give_up_removed()
            with suppress(JournalError):
                self._rescue()
            self._seal(even_held=False)

    def _seal(self, *, even_held: bool) -> None:
        """Ends the current segment, if anything in it is still needed. Whoever calls it has the turn to commit."""
        with self._state:
            segment = self._current
            if segment is None or not (segment.kept or even_held) or (segment.is_held() and not even_held):
                return
            self._current = None
            if segment.is_held():
                segment.forget_bodies()
                self._full.append(segment)
                return
        _finish(segment)

    def check_room(self, more: int) -> None:
        """Raises JournalError if `more` bytes do not fit. What somebody has removed is written anew."""
        # else somebody commits at this moment, and looks himself
        if self._turn.acquire(blocking=False):
            try:
                self._mend_removed()
            finally:
                self._turn.release()
        current = self._current
        if current is None or current.size - current.end < more:
            self._supply.check(more)

    def _mend_removed(self) -> None:
        self._give_up_removed()
        if any(segment.is_removed() for segment in self._given_up):
            with suppress(JournalError):
                self._rescue()

    def names(self) -> set[str]:
        """The names of the segments that this process has open."""
        with self._state:
            return {segment.path.name for segment in self._open()} | self._supply.names()

    def close(self) -> None:
        """Leaves what is needed to others, and removes what is not."""
        with self._turn:
            self._give_up_removed()
            with suppress(JournalError):
                # The only good copy may be in memory, which ends with this process.
                self._rescue()
            with self._state:
                self._closed = True
                segments = self._open()
                lost = sum(len(segment.kept) for segment in self._given_up)
                self._current, self._full, self._given_up = None, [], []
        if lost:
            log.critical("acknowledged deliveries may be lost: no segment takes them %s", fields(deliveries=lost))
        self._supply.close()
        for segment in segments:
            _finish(segment)

    def _error(self, why: str) -> JournalError:
        return JournalError(f"journal {self._directory}: {why}")


def _finish(segment: OwnSegment) -> None:
    if segment.kept:
        segment.close()
    else:
        segment.remove()
