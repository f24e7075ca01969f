"""Photos as files in one directory.

A file is written under a hidden name, synced, and then linked to its own name. A link fails if the name exists, so one
of two processes wins, and a process that is killed in between leaves no half-written photo. A directory keeps neither
content type nor metadata (the extension shows the type), and a local disk needs no timeout beside the deadline.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING

from glassq.errors import Bury, Retry
from glassq.files import AsideFile, make_directory, opened_directory, sync_directory
from glassq.glass.storage.base import Stored, checked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

# Hidden from names(), and different from any dot file that other programs might keep there.
_UNFINISHED = ".glassq-unfinished-"
# In seconds. No attempt takes this long: an older file was left by a process that was killed.
_ABANDONED = 86_400
# Only an operator can repair these. Other errors (no space, quota, I/O error, a lost mount) may pass by themselves.
_PERMANENT = {
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EEXIST,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.EINVAL,
    errno.EFBIG,
}
# Errors of file systems without hard links: FAT and exFAT, then FUSE and network file systems.
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS}


class DirectoryStorage:
    """Stores in `directory`, which is made (mode 0700) if it is missing. See PhotoStorage for the methods.

    `link` gives a finished file its name and fails if the name exists. Tests replace os.link.
    """

    def __init__(self, directory: str | Path, *, link: Callable[[Path, Path], None] = os.link) -> None:
        self._directory = Path(directory)
        self._link = link
        with self._verdicts("cannot be opened"):
            make_directory(self._directory)
        self._clear_abandoned()
        with self._unfinished("cannot be opened"):
            pass  # creating a file shows more than permission bits do

    def find(self, name: str) -> Stored | None:
        path = self._path(name)
        with self._verdicts(f"cannot look for {name}"):
            try:
                found = path.stat(follow_symlinks=False)
            except FileNotFoundError:
                return None
            if not stat.S_ISREG(found.st_mode):
                raise Bury(f"{path} is in the way: not a regular file")
            # The process that linked it may have been killed before its sync, and our caller will report "stored".
            sync_directory(self._directory)
        return Stored(f"file://{path}", found.st_size, created=False)

    def write(
        self, name: str, chunks: Iterable[bytes], *, content_type: str, metadata: Mapping[str, str], timeout: float
    ) -> Stored:
        path = self._path(name)
        trouble = f"cannot store {name}"
        with self._unfinished(trouble) as unfinished:
            # Errors of reading a chunk belong to the caller, also an OSError: only our own calls are translated.
            for chunk in chunks:
                with self._verdicts(trouble):
                    unfinished.file.write(chunk)
            with self._verdicts(trouble):
                unfinished.sync()
                created = self._publish(unfinished.path, path)
        stored = self.find(name)
        if stored is None:
            raise Retry(f"{path} was there and is gone: something else deletes it")
        return replace(stored, created=created)

    def delete(self, name: str) -> bool:
        path = self._path(name)
        with self._verdicts(f"cannot delete {name}"):
            try:
                path.unlink()
            except FileNotFoundError:
                return False
            sync_directory(self._directory)
        return True

    def names(self, prefix: str) -> Iterator[str]:
        with self._verdicts("cannot be listed"), os.scandir(self._directory) as entries:
            found = [
                entry.name
                for entry in entries
                if entry.name.startswith(prefix)
                and not entry.name.startswith(".")
                and entry.is_file(follow_symlinks=False)
            ]
        yield from sorted(found)

    def close(self) -> None:
        """Does nothing: nothing stays open between calls."""

    def _path(self, name: str) -> Path:
        return self._directory / checked(name)

    def _unfinished(self, trouble: str) -> AsideFile:
        """A new hidden file. The name it gets is a second link, so the hidden one is removed in any case."""
        with self._verdicts(trouble):
            return AsideFile(self._directory / f"{_UNFINISHED}{os.getpid()}-{token_hex(8)}", 0o640)

    def _publish(self, unfinished: Path, path: Path) -> bool:
        """Gives the file its name; returns False if that is taken. Never overwrites a file."""
        try:
            self._link(unfinished, path)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            return self._publish_by_rename(unfinished, path)
        return True

    def _publish_by_rename(self, unfinished: Path, path: Path) -> bool:
        """For file systems without hard links. A rename overwrites, so it checks first, under a lock."""
        with opened_directory(self._directory) as directory:
            fcntl.flock(directory, fcntl.LOCK_EX)
            if os.path.lexists(path):
                return False
            unfinished.rename(path)
            return True

    def _clear_abandoned(self) -> None:
        oldest = time.time() - _ABANDONED
        for path in self._directory.glob(f"{_UNFINISHED}*"):
            with suppress(OSError):
                if path.stat(follow_symlinks=False).st_mtime < oldest:
                    path.unlink()

    @contextmanager
    def _verdicts(self, trouble: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = f"file://{self._directory} {trouble}: {_in_words(error)}"
            raise (Bury if error.errno in _PERMANENT else Retry)(reason) from error


def _in_words(error: OSError) -> str:
    words = error.strerror or str(error)
    return f"{words}; it must be a directory that we may write to" if error.errno in _PERMANENT else words
