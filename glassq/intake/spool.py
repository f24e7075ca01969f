"""Where a ping is kept while the queue cannot take it: one file per delivery, on disk before the sender is answered.

    DIR/019a....job        a delivery as it will be put; names sort by the time it was received
    DIR/.019a....new       one that is being written; after a crash, half a one that nobody was promised
    DIR/damaged/           what could not be read back as it was written: for a person to look at, never deleted
    DIR/.lock              held by the one process that drains

Any number of processes write at the same time; one at a time drains. A file is removed only after its delivery is in
the queue, so a crash between the two makes a duplicate, never a loss.
"""

from __future__ import annotations

import fcntl
import logging
import os
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from glassq import delivery as envelope
from glassq.errors import DamagedDelivery, SpoolError
from glassq.log import kv

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

log = logging.getLogger("glassq.intake")

SUFFIX = ".job"
# How long a count of the spool's bytes is believed, in seconds; own writes are added to it meanwhile.
COUNT_AGE = 1.0
# A half-written file that old, in seconds, belongs to a process that died.
STALE = 3600.0


@dataclass(frozen=True, slots=True)
class Spooled:
    """What lies in the spool. `size` is in bytes; `oldest` is seconds since the oldest was received, 0 for none."""

    count: int
    size: int
    oldest: float
    damaged: int


class Spool:
    """A directory of deliveries, for use by the threads of one process; other processes may use it too."""

    def __init__(self, directory: Path, *, max_size: int, min_free: int) -> None:
        """`max_size` bounds the bytes in the spool, `min_free` is what must stay free on its disk; in bytes.

        The directory is made where it is missing. Raises SpoolError where that cannot be.
        """
        self.directory = directory
        self._max_size = max_size
        self._min_free = min_free
        self._counted = (float("-inf"), 0)
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            (directory / "damaged").mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise SpoolError(f"spool {directory}: cannot be made: {error.strerror}") from None

    def write(self, delivery_id: str, job: bytes) -> None:
        """Keeps a job; on return it is on disk. Raises SpoolError, and then nothing of it is kept."""
        self.check_room(len(job))
        new, final = self.directory / f".{delivery_id}.new", self.directory / f"{delivery_id}{SUFFIX}"
        try:
            _write_synced(new, job)
            new.rename(final)
            _sync(self.directory)
        except OSError as error:
            for path in (new, final):
                with suppress(OSError):
                    path.unlink()
            raise SpoolError(f"spool {self.directory}: cannot be written: {error.strerror}") from None
        at, size = self._counted
        self._counted = (at, size + len(job))

    def check_room(self, more: int) -> None:
        """Raises SpoolError where `more` bytes do not fit."""
        try:
            disk = os.statvfs(self.directory)
            if disk.f_bavail * disk.f_frsize - more < self._min_free or not disk.f_favail:
                raise SpoolError(f"spool {self.directory}: its disk is as good as full")
            if self._size() + more > self._max_size:
                raise SpoolError(f"spool {self.directory}: is full")
        except OSError as error:
            raise SpoolError(f"spool {self.directory}: {error.strerror}") from None

    def empty(self) -> bool:
        """Whether there is nothing to drain."""
        return next(self._names(), None) is None

    def look(self) -> Spooled:
        """What lies in it now."""
        count = size = 0
        first = ""
        for name in self._names():
            with suppress(OSError):
                size += (self.directory / name).stat().st_size
                count += 1
                first = min(first or name, name)
        oldest = 0.0
        if first:
            with suppress(ValueError):
                # the first 48 bits of a UUID of version 7 are its time
                oldest = max(0.0, time.time() - int(first.replace("-", "")[:12], 16) / 1000)
        return Spooled(count, size, oldest, sum(1 for _ in (self.directory / "damaged").iterdir()))

    def drain(self, put: Callable[[bytes], object]) -> int:
        """Puts all that lies here, oldest first, and returns how many; 0 too where another process does it now.

        What `put` raises ends it: the delivery stays.
        """
        with self._only_one() as ours:
            if not ours:
                return 0
            done = 0
            for name in sorted(self._names()):
                done += self._drain_one(self.directory / name, put)
            self._remove_stale()
        return done

    def _drain_one(self, path: Path, put: Callable[[bytes], object]) -> bool:
        try:
            job = path.read_bytes()
            envelope.decode(job)
        except DamagedDelivery as error:
            self._set_aside(path, error)
            return False
        except OSError as error:
            log.error("file in the spool cannot be read %s", kv(file=path, why=error.strerror))
            return False
        put(job)
        path.unlink(missing_ok=True)
        return True

    def _set_aside(self, path: Path, why: Exception) -> None:
        place = self.directory / "damaged" / path.name
        log.error("damaged delivery in the spool set aside %s", kv(file=place, why=why))
        with suppress(OSError):
            path.rename(place)

    @contextmanager
    def _only_one(self) -> Iterator[bool]:
        """Whether this process is the one that drains, for as long as the block runs; a dead one's lock is gone."""
        with os.fdopen(os.open(self.directory / ".lock", os.O_RDWR | os.O_CREAT, 0o600)) as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            yield True

    def _remove_stale(self) -> None:
        for path in self.directory.glob(".*.new"):
            with suppress(OSError):
                if time.time() - path.stat().st_mtime > STALE:
                    path.unlink()

    def _size(self) -> int:
        at, size = self._counted
        now = time.monotonic()
        if now - at > COUNT_AGE:
            size = 0
            for name in self._names():
                with suppress(OSError):
                    size += (self.directory / name).stat().st_size
            self._counted = (now, size)
        return size

    def _names(self) -> Iterator[str]:
        with os.scandir(self.directory) as entries:
            for entry in entries:
                if entry.name.endswith(SUFFIX) and not entry.name.startswith("."):
                    yield entry.name


def _write_synced(path: Path, data: bytes) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
