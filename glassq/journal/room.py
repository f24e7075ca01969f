"""The bounds of a journal: how many blocks it may use on its disk, and how many it must leave free."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from glassq.errors import JournalError

if TYPE_CHECKING:
    from pathlib import Path

    from glassq.journal.older import OlderSpool

# The unit of st_blocks, in bytes (inode(7)).
_BLOCK = 512


class JournalRoom:
    """The room of a journal, which all processes share."""

    def __init__(self, directory: Path, older: OlderSpool, *, max_size: int, min_free: int) -> None:
        """`max_size` limits the journal's blocks on disk, `min_free` is what must stay free there; both in bytes."""
        self._directory = directory
        self._older = older
        self._max_size = max_size
        self._min_free = min_free

    def used(self) -> int:
        """The journal's blocks on disk in bytes, with what is allocated ahead. Raises OSError."""
        with os.scandir(self._directory) as entries:
            # an older version's files are counted by themselves, as they may be many
            directories = [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
        return self._older.look().size + sum(map(_blocks, directories))

    def check(self, more: int) -> None:
        """Raises JournalError if `more` bytes cannot be allocated."""
        try:
            disk = os.statvfs(self._directory)
            # some file systems (btrfs) have no maximum number of files, and report 0 of 0
            full = disk.f_files and not disk.f_favail
            if full or disk.f_bavail * disk.f_frsize - more < self._min_free:
                raise JournalError(f"journal {self._directory}: its disk is almost full")
            if self.used() + more > self._max_size:
                raise JournalError(f"journal {self._directory}: is full")
        except OSError as error:
            raise JournalError(f"journal {self._directory}: {error.strerror}") from None


def _blocks(directory: str) -> int:
    blocks = 0
    with os.scandir(directory) as entries:
        for entry in entries:
            # another process may have removed it
            with suppress(FileNotFoundError):
                blocks += entry.stat(follow_symlinks=False).st_blocks * _BLOCK
    return blocks
