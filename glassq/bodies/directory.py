"""Bodies as files of a directory, for the processes of one machine, or of several that share it.

DIR/unfinished/KEY   is being written
DIR/live/KEY         whole and on disk: a job may name it
DIR/done/KEY         its job is over; the sweep removes it in time
DIR/holders/         the journals and queues that may name bodies (holders.py)

A file is renamed from one to the next, and keeps its bytes. Its time of modification says when it was touched last.
"""

from __future__ import annotations

import os
import shutil
import stat
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, BinaryIO

from glassq.bodies import holders
from glassq.bodies.base import KEY, BodyInfo, BodyState, checked
from glassq.bodies.writer import FileWriter
from glassq.errors import BodyError, BodyLost
from glassq.files import AsideFile, make_directory, sync_directory

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from glassq.bodies.holders import Holder

STATES: tuple[BodyState, ...] = ("unfinished", "live", "done")
# Its time of modification says when all jobs were looked at last.
_LOOKED = ".looked"


class DirectoryBodies:
    """The store of `[bodies] url = "file:///DIRECTORY"`."""

    def __init__(self, directory: Path, *, min_free: int = 0) -> None:
        """`min_free` is what new bodies leave free on the disk, in bytes. Touches no file."""
        self.directory = directory
        self._min_free = min_free
        # One body is synced at a time: while several are, a sync of a small ping on the same disk takes three times as
        # long, and they are not on disk any sooner together.
        self._syncing = threading.Lock()

    def prepare(self) -> None:
        with self._errors("cannot be written"):
            for state in STATES:
                make_directory(self.directory / state)
            # another process may have made them a moment ago, and not synced them yet
            sync_directory(self.directory)
            sync_directory(self.directory.parent)
            if not all(os.access(self.directory / state, os.W_OK | os.X_OK) for state in STATES):
                raise PermissionError(13, os.strerror(13))

    def begin(self, key: str, size: int = 0) -> FileWriter:
        with self._errors("cannot be written"):
            free = self.free()
            if size > free:
                raise BodyError(f"bodies {self.directory}: no room: {size} bytes are more than the {free} it may take")
            file = AsideFile(self._path("unfinished", key))
            if os.geteuid() == 0:
                # an operator acts as root
                owner = self.directory.stat()
                os.fchown(file.file.fileno(), owner.st_uid, owner.st_gid)
        return FileWriter(key, file, lambda _: self._finish(key, file), self._refused)

    def open(self, key: str) -> BinaryIO:
        with self._errors("cannot be read"):
            for state in ("live", "done", "live"):
                # it may be renamed between two looks
                with suppress(FileNotFoundError):
                    return self._path(state, key).open("rb")
            # a directory that is not there says nothing about its bodies
            os.stat(self.directory / "live")  # noqa: PTH116 - raises
            raise self._lost(key)

    def touch(self, key: str) -> None:
        live, done = self._path("live", key), self._path("done", key)
        with self._errors("cannot be written"):
            try:
                os.utime(live)
            except FileNotFoundError:
                with suppress(FileNotFoundError):
                    os.utime(done)
                    done.rename(live)
                    sync_directory(live.parent)

    def link(self, key: str, new: str) -> None:
        target = self._path("live", new)
        with self._errors("cannot be written"):
            for state in ("live", "done", "live"):
                with suppress(FileNotFoundError):
                    self._link(self._path(state, key), new)
                    os.utime(target)
                    sync_directory(target.parent)
                    return
            raise self._lost(key)

    def _link(self, path: Path, new: str) -> None:
        try:
            os.link(path, self._path("live", new))
        except (FileNotFoundError, FileExistsError):
            raise
        except OSError:
            # no second name on this kind of file system, or one too many
            with path.open("rb") as old, AsideFile(self._path("unfinished", new)) as copy:
                shutil.copyfileobj(old, copy.file, 1 << 20)
                copy.publish(self._path("live", new))

    def retire(self, key: str) -> None:
        path = self._path("live", key)
        with self._errors("cannot be written"), suppress(FileNotFoundError):
            os.utime(path)
            path.rename(self._path("done", key))

    def delete(self, key: str, state: BodyState | None = None) -> None:
        with self._errors("cannot be written"):
            for each in (state,) if state else STATES:
                self._path(each, key).unlink(missing_ok=True)

    def list(self) -> Iterator[BodyInfo]:
        with self._errors("cannot be read"):
            for state in STATES:
                yield from self._list(state)

    def _list(self, state: BodyState) -> Iterator[BodyInfo]:
        try:
            entries = os.scandir(self.directory / state)
        except FileNotFoundError:
            # nobody has written here yet
            return
        with entries:
            for entry in entries:
                with suppress(FileNotFoundError):
                    found = entry.stat(follow_symlinks=False)
                    if KEY.fullmatch(entry.name):
                        yield BodyInfo(entry.name, found.st_size, found.st_mtime, state)

    def hold(self, holder: str, since: float | None, about: str) -> None:
        with self._errors("cannot be written"):
            if (self.directory / "live").is_dir():
                holders.hold(self.directory, holder, since, about)

    def holders(self) -> Iterator[Holder]:
        with self._errors("cannot be read"):
            yield from holders.holders(self.directory)

    def let_go(self, holder: str) -> None:
        with self._errors("cannot be written"):
            holders.drop(self.directory, holder)

    def free(self) -> int:
        with self._errors("cannot be read"):
            disk = os.statvfs(self.directory)
        return max(0, disk.f_bavail * disk.f_frsize - self._min_free)

    def exists(self) -> bool:
        with self._errors("cannot be read"):
            try:
                return stat.S_ISDIR((self.directory / "live").stat().st_mode)
            except (FileNotFoundError, NotADirectoryError):
                return False

    @contextmanager
    def alone(self) -> Iterator[bool]:
        # what two sweepers do at once is done twice
        yield True

    def looked(self) -> float:
        with self._errors("cannot be read"), suppress(FileNotFoundError):
            return (self.directory / _LOOKED).stat().st_mtime
        return 0.0

    def note_look(self, when: float) -> None:
        file = self.directory / _LOOKED
        with self._errors("cannot be written"):
            file.touch(mode=0o600)
            os.utime(file, (when, when))

    def _finish(self, key: str, file: AsideFile) -> None:
        with self._errors("cannot be written"), self._syncing:
            file.publish(self._path("live", key))

    def _refused(self, error: OSError) -> BodyError:
        return BodyError(f"bodies {self.directory}: cannot be written: {error.strerror}")

    def _path(self, state: str, key: str) -> Path:
        return self.directory / state / checked(key)

    def _lost(self, key: str) -> BodyLost:
        return BodyLost(f"body {key} is not in {self.directory}")

    @contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise BodyError(f"bodies {self.directory}: {what}: {error.strerror}") from error
