"""Small disks for the queue and for intake that a test can fill: each a tmpfs, which only root can mount."""

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


# Each may be filled by itself.
PLACES = ("queue", "intake")


@contextmanager
def small_disks(size: str = SIZE) -> Iterator[Path | None]:
    """Yields a directory with two of them: queue/ and intake/; None if this user or machine cannot mount a tmpfs."""
    place = Path(tempfile.mkdtemp(prefix="glassq-disk-"))
    # a database's server is another user
    place.chmod(0o755)
    mounted: list[Path] = []
    try:
        if os.geteuid() == 0 and (program := shutil.which("mount")):
            for directory in (place / name for name in PLACES):
                directory.mkdir()
                command = [program, "-t", "tmpfs", "-o", f"size={size},mode=0755", "glassq", str(directory)]
                if subprocess.run(command, capture_output=True).returncode == 0:
                    mounted.append(directory)
        yield place if len(mounted) == len(PLACES) else None
    finally:
        for directory in mounted:
            # lazily: processes that still have it open are about to end
            subprocess.run(["umount", "-l", str(directory)], check=False)
        shutil.rmtree(place)


class Filler:
    """Fills the disk that is mounted at `directory` with one file, and removes that file again."""

    def __init__(self, directory: Path) -> None:
        self._file = directory / "filler"

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
