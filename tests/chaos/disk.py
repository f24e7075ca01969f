"""A small disk for beanstalkd's binlog, that can be filled: a tmpfs, which root alone may mount."""

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
    """Where it is mounted; None where this user or this machine cannot mount one."""
    place = Path(tempfile.mkdtemp(prefix="glassq-disk-"))
    mounted = False
    try:
        if os.geteuid() == 0 and (program := shutil.which("mount")):
            command = [program, "-t", "tmpfs", "-o", f"size={SIZE},mode=0700", "glassq", str(place)]
            mounted = subprocess.run(command, capture_output=True).returncode == 0
        yield place / "binlog" if mounted else None
    finally:
        if mounted:
            # lazily: whatever still holds it open is about to end
            subprocess.run(["umount", "-l", str(place)], check=False)
        place.rmdir()


class Filler:
    """Fills the disk on which `directory` lies with one file, and takes it away again."""

    def __init__(self, directory: Path) -> None:
        self._file = directory.parent / "filler"

    def fill(self) -> None:
        """Leaves nothing free."""
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
        """As it was."""
        with contextlib.suppress(FileNotFoundError):
            self._file.unlink()
