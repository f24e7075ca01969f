"""The scoreboard's memory in a file of the pool's runtime directory, where the next pool finds it.

Each pool makes a new file and puts it in the place of the last one, which children of a killed pool may still write to.
"""

from __future__ import annotations

import mmap
import os
import stat
from contextlib import suppress
from pathlib import Path

from glassq.log import fields, logger

log = logger("glassq.worker")

_NAME = "scoreboard"
_BOOT = Path("/proc/sys/kernel/random/boot_id")


class BoardFile:
    """The file in `directory` (systemd's RUNTIME_DIRECTORY; None: there is none)."""

    def __init__(self, directory: str | None) -> None:
        # systemd separates several by a colon; our units have one
        self._file = Path(directory.partition(":")[0], _NAME) if directory else None

    def left(self, size: int) -> bytes:
        """What the last pool left in its file of `size` bytes; b"" if there is none that can be ours."""
        if self._file is None:
            return b""
        try:
            descriptor = os.open(self._file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return b""
        except OSError as error:
            log.warning("what the last pool worked cannot be read %s", fields(why=error))
            return b""
        with os.fdopen(descriptor, "rb") as file, suppress(OSError):
            found = os.fstat(descriptor)
            if stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid() and found.st_size == size:
                return file.read(size)
        return b""

    def make(self, size: int) -> mmap.mmap | None:
        """Zeros, in a new file that `publish` puts into its place. None where there is no directory; raises OSError."""
        if self._file is None:
            return None
        new = self._new(self._file)
        new.unlink(missing_ok=True)
        descriptor = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "r+b") as file:
            # Written, not only made longer: a write to memory that the disk has no room for would kill the process.
            file.write(bytes(size))
            file.flush()
            return mmap.mmap(descriptor, size)

    def publish(self) -> None:
        """Puts the new file into its place. Raises OSError."""
        if self._file is not None:
            self._new(self._file).replace(self._file)

    def give_up(self, why: OSError) -> None:
        """Says that there is no file, and removes what there is of it: the pool after this one must not believe it."""
        log.warning("what this pool works is not kept for the next one %s", fields(why=why))
        if self._file is not None:
            for each in (self._new(self._file), self._file):
                with suppress(OSError):
                    each.unlink()

    @staticmethod
    def _new(file: Path) -> Path:
        return file.with_suffix(".new")


def boot() -> str:
    """Which start of the machine this is; "" where a unit may not see it: there the directory ends with the machine."""
    with suppress(OSError):
        return _BOOT.read_text().strip()
    return ""
