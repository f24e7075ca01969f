"""Files that survive a loss of power: written aside, synced, renamed, and the directory synced.

A reader sees the whole file or none, however the writer ends. A rename alone is not durable: the name is in the
directory, which has to be synced as well (fsync(2)).
"""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class AsideFile:
    """A new file under a temporary name, in the directory where it will stay. Unless published, it is removed.

    with AsideFile(directory / ".name.new") as aside:
        aside.file.write(data)
        aside.publish(directory / "name")
    """

    def __init__(self, path: Path, mode: int = 0o600) -> None:
        """`path` is the temporary name. Raises FileExistsError if it is taken, or another OSError."""
        self.path = path
        self.file = open(path, "x+b", opener=lambda name, flags: os.open(name, flags, mode))  # noqa: SIM115
        self._published = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            # `sync` has reported what could not be written; closing would report it again, in place of the first error
            with suppress(OSError):
                self.file.close()
        finally:
            if not self._published:
                with suppress(OSError):
                    self.path.unlink()

    def sync(self) -> None:
        """On return the content is on disk, under the temporary name. Raises OSError."""
        self.file.flush()
        os.fsync(self.file.fileno())

    def publish(self, path: Path) -> None:
        """Renames the file, over another one if there is one. On return content and name are on disk.

        Raises OSError. If only the last step failed, the file has its name, but may lose it with the power.
        """
        self.sync()
        self.path.rename(path)
        self._published = True
        sync_directory(path.parent)


def write_durably(path: Path, data: bytes, *, aside: Path, mode: int = 0o600) -> None:
    """Writes or replaces a file by way of the temporary name `aside`. On return it is on disk.

    Raises OSError, FileExistsError among them: `aside` must not exist.
    """
    with AsideFile(aside, mode) as new:
        new.file.write(data)
        new.publish(path)


def sync_directory(directory: Path) -> None:
    """Makes new names, renames and removals in the directory durable. Raises OSError."""
    with opened_directory(directory) as descriptor:
        os.fsync(descriptor)


@contextmanager
def opened_directory(directory: Path) -> Iterator[int]:
    """A descriptor of the directory, to sync or to lock it. Raises OSError."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def make_directory(directory: Path, mode: int = 0o700) -> None:
    """Makes the directory, and those above it, if they are missing; durably.

    Raises OSError, NotADirectoryError among them: something else has the name.
    """
    missing = [path for path in (directory, *directory.parents) if not path.exists()]
    for path in reversed(missing):
        path.mkdir(mode=mode, exist_ok=True)
        sync_directory(path.parent)
    if not directory.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(directory))
