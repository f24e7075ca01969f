"""Stores pings while the queue cannot take them: one file per delivery, on disk before the sender gets its answer.

    DIR/019a....job        a delivery as it will be put; names sort by the time of receipt
    DIR/.019a....new       a delivery that is being written; after a crash, an incomplete one that was not acknowledged
    DIR/damaged/           damaged deliveries, and those too big for the queue; never deleted. An operator inspects
                           them, and moves them back after a repair
    DIR/.lock              held by the one process that drains

Any number of processes write at the same time; one at a time drains, oldest first. A file is removed only after its
delivery is in the queue, so a crash between the two makes a duplicate, never a loss.
"""

from __future__ import annotations

import fcntl
import math
import os
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from glassq import delivery as envelope
from glassq.errors import DamagedDelivery, JobTooBig, SpoolError
from glassq.files import make_directory, write_durably
from glassq.log import fields, logger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

log = logger("glassq.intake")

SUFFIX = ".job"
# How long a count of the spool's bytes is valid, in seconds; this process adds its own writes to it meanwhile.
COUNT_AGE = 1.0
# Counting may take at most one part in this many of the time: it reads the size of thousands of files one by one.
COUNT_SHARE = 50
# A half-written file older than this belongs to a process that died, in seconds.
STALE = 3600.0


@dataclass(frozen=True, slots=True)
class Spooled:
    """The spool's content. `size` is in bytes; `oldest` is the oldest delivery's age in seconds, 0 for none."""

    count: int
    size: int
    oldest: float
    damaged: int


class Spool:
    """A directory of deliveries, for all threads of one process. Other processes may use it at the same time."""

    def __init__(self, directory: Path, *, max_size: int, min_free: int) -> None:
        """`max_size` limits the spool's size, `min_free` is the space that must stay free on its disk; both in bytes.

        The directory is made if it is missing. Raises SpoolError if that fails.
        """
        self.directory = directory
        self._max_size = max_size
        self._min_free = min_free
        #: the spool's size in bytes, and until when it is valid
        self._counted = (0, float("-inf"))
        self._counting = threading.Lock()
        try:
            # durably: a file that is synced in a directory that is not can be lost with it
            make_directory(directory)
            make_directory(directory / "damaged")
        except OSError as error:
            raise SpoolError(f"spool {directory}: cannot be made: {error.strerror}") from None
        self._remove_stale()

    def write(self, delivery_id: str, job: bytes) -> None:
        """Stores a job; on return it is on disk. Raises SpoolError, and then nothing of it is stored."""
        self.check_room(len(job))
        new, final = self.directory / f".{delivery_id}.new", self.directory / f"{delivery_id}{SUFFIX}"
        try:
            write_durably(final, job, aside=new)
        except OSError as error:
            for path in (new, final):
                with suppress(OSError):
                    path.unlink()
            raise SpoolError(f"spool {self.directory}: cannot be written: {error.strerror}") from None
        size, until = self._counted
        self._counted = (size + len(job), until)

    def check_room(self, more: int) -> None:
        """Raises SpoolError if `more` bytes do not fit."""
        try:
            disk = os.statvfs(self.directory)
            # some file systems (btrfs) have no maximum number of files, and report 0 of 0
            full = disk.f_files and not disk.f_favail
            if full or disk.f_bavail * disk.f_frsize - more < self._min_free:
                raise SpoolError(f"spool {self.directory}: its disk is almost full")
            if self._size() + more > self._max_size:
                raise SpoolError(f"spool {self.directory}: is full")
        except OSError as error:
            raise SpoolError(f"spool {self.directory}: {error.strerror}") from None

    def empty(self) -> bool:
        """Whether there is nothing to drain. Raises SpoolError."""
        return next(self._names(), None) is None

    def look(self) -> Spooled:
        """The spool's content now. Raises SpoolError."""
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
        with self._readable():
            damaged = sum(1 for _ in (self.directory / "damaged").iterdir())
        return Spooled(count, size, oldest, damaged)

    def drain(self, put: Callable[[str, bytes], object], *, seconds: float = math.inf) -> int:
        """Puts the deliveries, oldest first, and returns how many; 0 also while another process drains.

        `put` gets a delivery's id and the bytes of its job. The drain ends after `seconds`, or with the exception that
        `put` raises; the delivery then stays. After JobTooBig it sets that delivery aside and goes on. Raises
        SpoolError if the directory cannot be read.
        """
        deadline = time.monotonic() + seconds
        done = 0
        with self._only_one() as ours:
            for name in sorted(self._names()) if ours else ():
                if time.monotonic() > deadline:
                    break
                done += self._drain_one(self.directory / name, put)
            if ours:
                self._remove_stale()
        return done

    def _drain_one(self, path: Path, put: Callable[[str, bytes], object]) -> bool:
        try:
            job = path.read_bytes()
            delivery = envelope.decode(job)
        except DamagedDelivery as error:
            self._set_aside(path, "damaged delivery", error)
            return False
        except OSError as error:
            log.error("file in the spool cannot be read %s", fields(delivery=path.stem, file=path, why=error.strerror))
            return False
        try:
            put(delivery.id, job)
        except JobTooBig as error:
            self._set_aside(path, "too big a delivery", error)
            return False
        path.unlink(missing_ok=True)
        return True

    def _set_aside(self, path: Path, what: str, why: Exception) -> None:
        place = self.directory / "damaged" / path.name
        log.error("%s in the spool set aside %s", what, fields(delivery=path.stem, file=place, why=why))
        with suppress(OSError):
            path.rename(place)

    @contextmanager
    def _only_one(self) -> Iterator[bool]:
        """Whether this process drains, as long as the block runs. The lock ends with the process."""
        with self._readable():
            handle = os.open(self.directory / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
        with os.fdopen(handle) as lock:
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
        size, until = self._counted
        now = time.monotonic()
        # one thread counts; the senders of the other threads need not wait for it
        if now > until and self._counting.acquire(blocking=False):
            try:
                size = self._count()
                took = time.monotonic() - now
                self._counted = (size, now + took + max(COUNT_AGE, COUNT_SHARE * took))
            finally:
                self._counting.release()
        return size

    def _count(self) -> int:
        size = 0
        for entry in self._entries():
            with suppress(OSError):
                # without making a Path: a sender waits for this
                size += entry.stat().st_size
        return size

    def _names(self) -> Iterator[str]:
        return (entry.name for entry in self._entries())

    def _entries(self) -> Iterator[os.DirEntry[str]]:
        with self._readable(), os.scandir(self.directory) as entries:
            for entry in entries:
                if entry.name.endswith(SUFFIX) and not entry.name.startswith("."):
                    yield entry

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise SpoolError(f"spool {self.directory}: cannot be read: {error.strerror}") from None
