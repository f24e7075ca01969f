"""beanstalkd's files: binlog.N, in rising order; a second name for each, kept.N; and what of them is proven.

Any writing command may copy live jobs out of the oldest file, which is unlinked before the last copy is written. So
each file gets a second name as soon as it is seen, and loses it only when the copies are synced. Before beanstalkd
starts, what is only kept is put back (prepare.py). Second names go in rising order: a file holds the deletes of jobs in
older ones.
"""

from __future__ import annotations

import fcntl
import os
import re
import struct
import sys
import threading
from contextlib import suppress
from time import time_ns
from typing import TYPE_CHECKING

from glassq.files import sync_directory
from glassq.queues.beanstalk.syncer.errors import RoundFailed, SyncFailed

if TYPE_CHECKING:
    from pathlib import Path

_LOG, _KEPT = "binlog.", "kept."
# A kept file of which binlog.N is another file now: of a queue that was removed. Never touched again.
_FOREIGN = "foreign."
_NAME = re.compile(r"(binlog|kept)\.([1-9][0-9]{0,8})")
# A change of the directory may have the same time as the one before: the kernel's clock ticks each 10 ms or less. After
# this time, in nanoseconds, the directory's time tells.
_TICK = 50_000_000
# macOS has no fdatasync
_sync = getattr(os, "fdatasync", os.fsync)


class Sight:
    """The descriptors of one round at a time: two rounds that shared one could miss an error, which it reports once.

    They are open from a file's first sight until it is proven full and old: the kernel reports a failed write only to
    descriptors that were open then.
    """

    def __init__(self) -> None:
        self.descriptors: dict[int, int] = {}
        #: how things stood when the round began: the run of beanstalkd, and how many troubles had been answered
        self.server = ""
        self.troubles = 0
        self.in_use = False
        self._old: list[int] = []

    def drop(self, below: int | None = None) -> None:
        """Closes the descriptors of files older than `below`, or all; at the end of the round if there is one."""
        numbers = [number for number in self.descriptors if below is None or number < below]
        self._old += [self.descriptors.pop(number) for number in numbers]
        if not self.in_use:
            while self._old:
                os.close(self._old.pop())


class BinlogFiles:
    """The files in `directory`, for several rounds at a time."""

    def __init__(self, directory: Path, sights: int) -> None:
        """`sights` is the number of rounds that may overlap. Raises OSError if the directory cannot be read."""
        self.directory = directory
        self._start = str(directory / _KEPT)
        self._lock = threading.Lock()
        self._removing = threading.Lock()
        self.sights = [Sight() for _ in range(sights)]
        #: the run of beanstalkd whose files these are
        self.server = ""
        #: how often something was wrong with the files, and what the last time
        self.troubles = 0
        self.trouble = ""
        # troubles up to this one were answered with a no
        self._answered = 0
        # every file below this number is proven
        self._proven = 0
        # the highest number seen, and the numbers of those seen and not proven
        self._newest = 0
        # numbers that were told to be missing: beanstalkd does without files that it does not find when it starts
        self._gaps: list[range] = []
        self._kept: set[int] = set()
        self._present: set[int] = set()
        # (names made, of these surely durable)
        self._names, self._durable_names = 0, 0
        self._listed = (-1, False)
        self.look()

    @property
    def kept(self) -> int:
        """How many files have a second name."""
        return len(self._kept)

    @property
    def spare(self) -> int:
        """How many files have only their second name: a successful round removes them."""
        with self._lock:
            first = min(self._present, default=0)
            return sum(number < first for number in self._kept)

    def enter(self, server: str) -> None:
        """beanstalkd was started, and has this id: nothing is proven."""
        with self._lock:
            if server == self.server:
                return
            self.server, self._proven, self._newest = server, 0, 0
            self._gaps.clear()
            for sight in self.sights:
                sight.drop()
        self.look(afresh=True)

    def look(self, *, afresh: bool = False) -> None:
        """Sees new files and those that are gone. Cheap while nothing changes.

        What is wrong is kept for the next round to answer. Raises OSError and SyncFailed.
        """
        status = self.directory.stat()
        with self._lock:
            if self._listed == (status.st_mtime_ns, True) and not afresh:
                return
        found: dict[str, set[int]] = {"binlog": set(), "kept": set()}
        now = time_ns()
        for name in os.listdir(self.directory):  # noqa: PTH208 - names are enough
            if match := _NAME.fullmatch(name):
                found[match[1]].add(int(match[2]))
        with self._lock:
            self._listed = (status.st_mtime_ns, now - status.st_mtime_ns > _TICK)
            self._present = found["binlog"]
            self._kept |= found["kept"]
            for number in sorted(found["binlog"]):
                self._see(number)
            for number in sorted(found["kept"] - found["binlog"]) if not self._proven else ():
                self._open(number)
        self.sync_names()

    def holder(self) -> int:
        """The process that has locked the directory, as beanstalkd does; 0 if none has, or that cannot be seen."""
        if sys.platform != "linux":
            return 0
        # struct flock: type, whence, start, length, process id
        wanted = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        try:
            with (self.directory / "lock").open("rb") as file:
                kind, _, _, _, pid = struct.unpack("hhqqi4x", fcntl.fcntl(file, fcntl.F_GETLK, wanted))
        except OSError:
            return 0
        return 0 if kind == fcntl.F_UNLCK else max(0, pid)

    def begin(self, sight: Sight) -> None:
        """Call before a round asks beanstalkd anything."""
        with self._lock:
            sight.server, sight.troubles, sight.in_use = self.server, self._answered, True

    def end(self, sight: Sight) -> None:
        """Call when the round is over."""
        with self._lock:
            sight.in_use = False
            sight.drop(self._proven)

    def sync(self, sight: Sight, oldest: int, current: int) -> None:
        """Syncs all that beanstalkd wrote before it said that `current` is its file, and `oldest` its oldest.

        Raises RoundFailed if the files are not what they should be, and SyncFailed.
        """
        descriptors = self._unproven(sight, oldest, current)
        for number, descriptor in sorted(descriptors.items()):
            try:
                _sync(descriptor)
            except OSError as error:
                # At once, before another sync may hang: the kernel reports it only this time. With this file go those
                # that are not synced yet: nobody would hear of their errors any more.
                left = sorted(each for each in descriptors if each >= number)
                why = error.strerror or error
                raise SyncFailed(f"binlog.{number} could not be synced: {why}", left) from error
        self.sync_names()
        with self._lock:
            self._check(sight)
            self._proven = max(self._proven, current)
            self._gaps = [gap for gap in self._gaps if gap.stop > self._proven]
            for each in self.sights:
                each.drop(self._proven)

    def sync_names(self) -> None:
        """All second names given so far, and the first ones, are durable. Raises SyncFailed."""
        with self._lock:
            made = self._names
            if made == self._durable_names:
                return
        self._sync_directory()
        with self._lock:
            self._durable_names = max(self._durable_names, made)

    def _sync_directory(self) -> None:
        try:
            sync_directory(self.directory)
        except OSError as error:
            raise SyncFailed(f"{self.directory} could not be synced: {error.strerror}", []) from error

    def remove_spare(self, oldest: int) -> None:
        """A round has succeeded, before which beanstalkd had unlinked all files older than `oldest`.

        Removes their second names, the oldest first, and each durably before the next. Raises SyncFailed and OSError.
        """
        if not self._removing.acquire(blocking=False):
            return
        try:
            with self._lock:
                spare = sorted(number for number in self._kept if number < oldest)
            for number in spare:
                with suppress(FileNotFoundError):
                    self._path(_KEPT, number).unlink()
                with self._lock:
                    self._kept.discard(number)
                self._sync_directory()
        finally:
            self._removing.release()

    def _unproven(self, sight: Sight, oldest: int, current: int) -> dict[int, int]:
        """The descriptors to sync."""
        with self._lock:
            self._check(sight)
            wanted = range(self._proven or oldest, current + 1)
            numbers = [number for number in wanted if not any(number in gap for gap in self._gaps)]
            for number in numbers:
                if number not in sight.descriptors:
                    self._see(number)
            self._check(sight)
            missing = [number for number in numbers if number not in sight.descriptors]
            if missing or not (current < self._proven or self._is_there(current, sight.descriptors.get(current, -1))):
                self._stumble(f"binlog.{(missing or [current])[0]} is missing, and beanstalkd believes that it has it")
                self._check(sight)
            return {number: each for number, each in sight.descriptors.items() if number <= current}

    def _is_there(self, number: int, descriptor: int) -> bool:
        """Whether the file still has its second name: beanstalkd never notices that its directory was removed.

        The first one may be gone since it was asked, as its jobs may.
        """
        try:
            return os.stat(f"{self._start}{number}").st_ino == os.fstat(descriptor).st_ino  # noqa: PTH116 - each round
        except OSError:
            return False

    def _check(self, sight: Sight) -> None:
        if sight.server != self.server:
            raise RoundFailed("beanstalkd was restarted meanwhile")
        if self.troubles > sight.troubles:
            self._answered = self.troubles
            raise RoundFailed(self.trouble)

    def _see(self, number: int) -> None:
        """Gives the file its second name, and opens it, unless it was seen before."""
        if number < self._proven or all(number in sight.descriptors for sight in self.sights):
            return
        if self._newest and number > self._newest + 1:
            self._gaps.append(range(self._newest + 1, number))
            self._stumble(f"binlog.{self._newest + 1} came and went unseen")
        self._newest = max(self._newest, number)
        path, kept = self._path(_LOG, number), self._path(_KEPT, number)
        try:
            self._link(path, kept)
        except FileNotFoundError:
            self._stumble(f"binlog.{number} came and went unseen")
            return
        except OSError as error:
            self._stumble(f"binlog.{number} gets no second name: {error.strerror}")
            return
        self._names += 1
        self._kept.add(number)
        self._open(number)

    def _link(self, path: Path, kept: Path) -> None:
        try:
            os.link(path, kept)
        except FileExistsError:
            if path.samefile(kept):
                return
            aside = kept.with_name(kept.name.replace(_KEPT, _FOREIGN))
            kept.rename(aside)
            self._stumble(f"{kept} was another file than {path.name}: it is {aside.name} now")
            os.link(path, kept)

    def _open(self, number: int) -> None:
        for sight in self.sights:
            if number not in sight.descriptors:
                with suppress(FileNotFoundError):
                    flags = os.O_RDONLY | os.O_CLOEXEC
                    sight.descriptors[number] = os.open(self._path(_KEPT, number), flags)

    def _stumble(self, why: str) -> None:
        """Something is wrong: whoever waits gets a no, and the next round syncs every file from the oldest on."""
        self.troubles += 1
        self.trouble = why
        self._proven = 0

    def _path(self, kind: str, number: int) -> Path:
        return self.directory / f"{kind}{number}"
