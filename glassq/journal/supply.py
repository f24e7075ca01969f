"""Makes segments ahead, so that no ping waits for one."""

from __future__ import annotations

import threading
import time
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING

from glassq.errors import JournalError
from glassq.files import make_directory, sync_directory
from glassq.journal.segment import make_segment
from glassq.log import fields, logger

if TYPE_CHECKING:
    from pathlib import Path

    from glassq.journal.room import JournalRoom
    from glassq.journal.segment import OwnSegment

log = logger("glassq.intake")

# The size of a segment, in bytes: that of as many pings as one may have. A journal that may be small has smaller ones.
MAX_SEGMENT = 4 << 20
MIN_SEGMENT = 256 << 10
SHARE = 16
_PAGE = 4_096
# After a segment could not be made, nobody tries again for so long, in seconds.
PAUSE = 0.5


class SegmentSupply:
    """The segments that this process has ready, for all its threads."""

    def __init__(self, directory: Path, room: JournalRoom, max_size: int) -> None:
        """`max_size` is that of the journal, in bytes."""
        self._directory = directory
        self._room = room
        self._size = min(MAX_SEGMENT, max(MIN_SEGMENT, max_size // SHARE)) // _PAGE * _PAGE
        self._ready: deque[OwnSegment] = deque()
        self._making = threading.Lock()
        #: why no segment can be made, and until when nobody tries
        self._broken: tuple[str, float] = ("", 0.0)
        self._wanted = threading.Event()
        #: whether a thread keeps one ready; and unset while that thread makes it, or is about to
        self._kept = False
        self._settled = threading.Event()
        self._settled.set()
        self._anchored = False
        self._closed = False

    def take(self, least: int) -> OwnSegment:
        """A segment of at least this size, in bytes. Raises JournalError."""
        with self._making:
            if self._closed:
                raise self._error("is closed")
            if least > self._size:
                # A job larger than a segment gets one of its own.
                return self._make(-(-least // _PAGE) * _PAGE)
            self._drop_removed()
            segment = self._ready.popleft() if self._ready else self._make(self._size)
            if self._kept and not self._ready:
                self._settled.clear()
        self._wanted.set()
        return segment

    def expect(self) -> None:
        """A thread is going to call `keep_ready`."""
        self._kept = True
        self._settled.clear()

    def wait(self, seconds: float) -> None:
        """Waits for the segment that a thread makes at this moment, for so long at most; not for one that fails."""
        self._settled.wait(seconds)

    def keep_ready(self) -> None:
        """Keeps one segment ready until `close`."""
        failing = False
        while not self._closed:
            self._wanted.clear()
            try:
                self._prepare()
                failing = False
            except JournalError as error:
                if not failing:
                    log.error("no journal segment can be made %s", fields(why=error))
                failing = True
            self._wanted.wait(2 * PAUSE if failing else None)

    def check(self, more: int) -> None:
        """Raises JournalError if neither what is ready nor a new segment has room for `more` bytes."""
        # else somebody makes or takes one at this moment, and looks himself
        if self._making.acquire(blocking=False):
            try:
                self._drop_removed()
            finally:
                self._making.release()
        if any(segment.size >= more for segment in tuple(self._ready)):
            return
        self._check_broken()
        try:
            self._room_for(max(more, self._size))
        except OSError as error:
            raise self._unwritable(error) from None

    def names(self) -> set[str]:
        """The names of the segments that are ready."""
        return {segment.path.name for segment in tuple(self._ready)}

    def close(self) -> None:
        """Removes what is ready."""
        with self._making:
            self._closed = True
            segments = tuple(self._ready)
            self._ready.clear()
        self._wanted.set()
        self._settled.set()
        for segment in segments:
            segment.remove()

    def _prepare(self) -> None:
        with self._making:
            try:
                self._drop_removed()
                if not (self._ready or self._closed):
                    self._ready.append(self._make(self._size))
            finally:
                self._settled.set()

    def _drop_removed(self) -> None:
        """Forgets what somebody has removed, so that others are made. Whoever calls it holds the lock."""
        for segment in [segment for segment in self._ready if segment.is_removed()]:
            self._ready.remove(segment)
            segment.remove()
            self._wanted.set()

    def _make(self, size: int) -> OwnSegment:
        self._check_broken()
        try:
            self._room_for(size)
            try:
                segment = make_segment(self._directory, size)
            except FileNotFoundError:
                # the directory was removed meanwhile
                self._room_for(size)
                segment = make_segment(self._directory, size)
        except (OSError, JournalError) as error:
            raised = error if isinstance(error, JournalError) else self._unwritable(error)
            self._broken = (str(raised), time.monotonic() + PAUSE)
            raise raised from None
        self._broken = ("", 0.0)
        return segment

    def _room_for(self, size: int) -> None:
        """Raises OSError and JournalError."""
        self._anchor()
        self._room.check(size)

    def _check_broken(self) -> None:
        why, until = self._broken
        if time.monotonic() < until:
            raise JournalError(why)

    def _anchor(self) -> None:
        """Makes the directory again if somebody has removed it, and syncs the names above. Raises OSError.

        That once in any case: whoever made those directories may have been killed before.
        """
        if not (self._anchored and self._directory.is_dir()):
            make_directory(self._directory)
            sync_directory(self._directory.parent)
            # whoever may not open that one has not made the journal's directory in it
            with suppress(PermissionError):
                sync_directory(self._directory.parent.parent)
            self._anchored = True

    def _unwritable(self, error: OSError) -> JournalError:
        return self._error(f"cannot be written: {error.strerror}")

    def _error(self, why: str) -> JournalError:
        return JournalError(f"journal {self._directory}: {why}")
