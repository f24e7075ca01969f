"""A small disk for beanstalkd's binlog that a test can fill: a tmpfs, which only root can mount."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

SIZE = "48m"


@contextmanager
def small_disk() -> Iterator[Path | None]:
    """Yields the binlog's directory on it; None if this user or this machine cannot mount a tmpfs."""
    place = Path(tempfile.mkdtemp(prefix="glassq-disk-"))
    mounted = False
    try:
        if os.geteuid() == 0 and (program := shutil.which("mount")):
            command = [program, "-t", "tmpfs", "-o", f"size={SIZE},mode=0700", "glassq", str(place)]
            mounted = subprocess.run(command, capture_output=True).returncode == 0
        yield place / "binlog" if mounted else None
    finally:
        if mounted:
            # lazily: processes that still have it open are about to end
            subprocess.run(["umount", "-l", str(place)], check=False)
        place.rmdir()


class Filler:
    """Fills the disk of `directory` with one file, and removes that file again."""

    def __init__(self, directory: Path) -> None:
        self._file = directory.parent / "filler"

    def fill(self) -> None:
        """Fills the disk completely."""
        with self._file.open("wb", buffering=0) as file:
            chunk = bytes(1 << 20)
            while chunk:
                try:
                    file.write(chunk)
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                    chunk = chunk[: len(chunk) // 2] if len(chunk) > 1 else b""

    def free(self) -> None:
        """Removes the file."""
        with contextlib.suppress(FileNotFoundError):
            self._file.unlink()
