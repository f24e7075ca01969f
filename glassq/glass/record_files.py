"""Where encrypted consents are kept, each under the name of its user: as files of a directory, or in a table.

Neither knows what is in them. Files are replaced as a whole, so readers need no lock. Writers hold one, because two
processes may learn different things about a user at the same time.
"""

from __future__ import annotations

import fcntl
import os
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from glassq.errors import CredentialsError
from glassq.files import sync_directory, write_durably

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

_FILE = re.compile(r"[0-9a-f]{64}")


class HeldRecords(Protocol):
    """The records while nobody else changes that of one name."""

    def read(self, name: str) -> bytes | None: ...

    def write(self, name: str, data: bytes) -> None:
        """On return it is durable."""

    def remove(self, name: str) -> bool:
        """False if there was none."""


class Records(Protocol):
    """All records. Every method raises CredentialsError whose cause is the OSError or QueueError."""

    def prepare(self) -> None:
        """Makes what is missing, for who writes."""

    def exists(self) -> bool:
        """Whether anything was ever written."""

    def names(self) -> list[str]:
        """The names of all records, sorted."""

    def read(self, name: str) -> bytes | None:
        """None if there is none."""

    def place(self, name: str) -> str:
        """Where a record is, for people."""

    def held(self, name: str) -> AbstractContextManager[HeldRecords]:
        """Keeps others from changing this record, on all hosts that share it."""


class RecordFiles:
    """Files of a directory (mode 0700)."""

    def __init__(self, directory: Path) -> None:
        """Touches no file."""
        self._directory = directory

    def prepare(self) -> None:
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise CredentialsError(f"{self._directory}: cannot be made: {error.strerror}") from error

    def exists(self) -> bool:
        return self._directory.is_dir()

    def names(self) -> list[str]:
        try:
            return sorted(path.name for path in self._directory.iterdir() if _FILE.fullmatch(path.name))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise CredentialsError(f"{self._directory}: cannot be listed: {error.strerror}") from error

    def read(self, name: str) -> bytes | None:
        try:
            return (self._directory / name).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise CredentialsError(f"{self.place(name)}: cannot be read: {error.strerror}") from error

    def place(self, name: str) -> str:
        return str(self._directory / name)

    @contextmanager
    def held(self, name: str) -> Iterator[RecordFiles]:
        """One lock for all names."""
        try:
            descriptor = os.open(self._directory / ".lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise CredentialsError(f"{self._directory}: cannot be locked: {error.strerror}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield self
        finally:
            os.close(descriptor)

    def write(self, name: str, data: bytes) -> None:
        # Only the holder of the lock uses this name. A file that is there was left by a process that was killed.
        aside = self._directory / ".new"
        try:
            aside.unlink(missing_ok=True)
            write_durably(self._directory / name, data, aside=aside)
        except OSError as error:
            raise CredentialsError(f"{self.place(name)}: cannot be written: {error.strerror}") from error

    def remove(self, name: str) -> bool:
        try:
            (self._directory / name).unlink()
        except FileNotFoundError:
            return False
        except OSError as error:
            raise CredentialsError(f"{self.place(name)}: cannot be removed: {error.strerror}") from error
        sync_directory(self._directory)
        return True
