"""The spool of an older version in the same directory: one file a delivery. They are moved on before all records.

    DIR/019a....job     a delivery; names sort by the time of receipt
    DIR/.019a....new    a delivery that was being written; after a crash an incomplete one that was not acknowledged

An operator may put a delivery back in the same form, out of damaged/ or refused/.
"""

from __future__ import annotations

import heapq
import os
import threading
import time
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from glassq import delivery as envelope
from glassq.errors import DamagedDelivery
from glassq.journal.record import JournalRecord
from glassq.log import fields, logger

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from glassq.journal.aside import SetAside

log = logger("glassq.intake")

SUFFIX = ".job"
# A half-written file older than this belongs to a process that died, in seconds.
STALE = 3600.0
# Counting may take at most one part in this many of the time: it reads the size of each file.
COUNT_SHARE = 50
# So many names are sorted in one go: a longer sort would keep all other threads waiting.
SORTED = 5_000
# The unit of st_blocks, in bytes (inode(7)).
_BLOCK = 512


class OlderFiles(NamedTuple):
    """The `number` of files, their blocks on disk in bytes, and the key of the oldest delivery ("": none)."""

    number: int
    size: int
    first: str


class OlderSpool:
    """The files of an older version's spool; for all threads of one process."""

    def __init__(self, directory: Path, aside: SetAside) -> None:
        self._directory = directory
        self._aside = aside
        self._counted = OlderFiles(0, 0, "")
        self._counted_until = float("-inf")
        self._counting = threading.Lock()
        self._left: Iterator[str] | None = None
        #: what could not be read, and why; it is logged once
        self._unread: dict[Path, str | None] = {}

    def look(self) -> OlderFiles:
        """What is there; of many files, what was there a while ago. Raises OSError."""
        now = time.monotonic()
        # one thread counts; the others need not wait for it
        if now > self._counted_until and self._counting.acquire(blocking=False):
            try:
                self._counted = self._count()
                took = time.monotonic() - now
                self._counted_until = now + took + COUNT_SHARE * took if self._counted.number > SORTED else now
            finally:
                self._counting.release()
        return self._counted

    def deliveries(self) -> Iterator[JournalRecord]:
        """Those that are left, oldest first. One that is damaged is set aside, one that cannot be read is left out.

        Raises OSError.
        """
        if self._left is None:
            self._left = names(self._directory)
        for name in self._left:
            path = self._directory / name
            try:
                job = path.read_bytes()
                envelope.decode(job)
            except FileNotFoundError:
                # another process has moved it on
                continue
            except DamagedDelivery as error:
                self._aside.damaged_file(path, str(error))
            except OSError as error:
                if self._unread.get(path) != error.strerror:
                    log.error("file in the journal cannot be read %s", fields(file=path, why=error.strerror))
                self._unread[path] = error.strerror
            else:
                yield JournalRecord(path.stem, job)
        self._left = None

    def start_again(self) -> None:
        """The next `deliveries` begins with the oldest one that is there."""
        self._left = None

    def remove(self, key: str) -> None:
        """Removes the file of a delivery that was moved on. Raises OSError."""
        (self._directory / f"{key}{SUFFIX}").unlink(missing_ok=True)

    def _count(self) -> OlderFiles:
        number = size = 0
        first = ""
        for entry in _entries(self._directory):
            # without making a Path, and another process may move it on
            with suppress(FileNotFoundError):
                if entry.is_dir(follow_symlinks=False):
                    continue
                size += entry.stat().st_blocks * _BLOCK
                number += 1
                first = min(first or entry.name, entry.name)
        return OlderFiles(number, size, first.removesuffix(SUFFIX))


def remove_stale(directory: Path) -> None:
    """Removes what dead processes have left half-written in a directory."""
    for path in directory.glob(".*.new"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > STALE:
                path.unlink()


def _entries(directory: Path) -> Iterator[os.DirEntry[str]]:
    with os.scandir(directory) as entries:
        for entry in entries:
            if entry.name.endswith(SUFFIX) and entry.name[0] != ".":
                yield entry


def names(directory: Path) -> Iterator[str]:
    """The names of the deliveries' files in a directory, oldest first. Raises OSError."""
    found = (entry.name for entry in _entries(directory))
    parts = []
    while part := sorted(islice(found, SORTED)):
        parts.append(part)
    return heapq.merge(*parts)
