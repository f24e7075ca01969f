"""The directory where fetched certificates and key sets lie for other processes and later starts."""

from __future__ import annotations

import hashlib
import os
import stat
from contextlib import suppress
from typing import TYPE_CHECKING

from glassq.files import make_directory, write_durably

if TYPE_CHECKING:
    from pathlib import Path

# How many files are kept; the oldest go.
MAX_FILES = 64
_SUFFIX = ".key"


class KeyDirectory:
    """One file for each URL: the URL, a line feed, the document. Its time is when it was fetched."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def load(self, url: str) -> tuple[bytes, float]:
        """The document, and when it was fetched (Unix time).

        Raises OSError if it is not here, or if others may write into the directory: they could forge every ping.
        """
        found = self.path.stat()
        if found.st_uid not in (0, os.geteuid()) or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise PermissionError("others may write into it")
        with self._file(url).open("rb") as file:
            fetched = os.fstat(file.fileno()).st_mtime
            named, _, body = file.read().partition(b"\n")
        if named != url.encode():
            raise FileNotFoundError("another document")
        return body, fetched

    def store(self, url: str, body: bytes) -> None:
        """Keeps the document, fetched now. Raises OSError."""
        make_directory(self.path)
        file = self._file(url)
        aside = file.with_suffix(f".{os.getpid()}")
        # of an earlier process with our id
        aside.unlink(missing_ok=True)
        write_durably(file, url.encode() + b"\n" + body, aside=aside)
        self._tidy()

    def _file(self, url: str) -> Path:
        return self.path / (hashlib.sha256(url.encode()).hexdigest()[:32] + _SUFFIX)

    def _tidy(self) -> None:
        files = sorted(self.path.glob(f"*{_SUFFIX}"), key=_time)
        for file in files[:-MAX_FILES]:
            with suppress(OSError):
                file.unlink()


def _time(file: Path) -> float:
    try:
        return file.stat().st_mtime
    except OSError:
        # another process has removed it
        return 0.0
