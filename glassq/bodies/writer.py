"""A body on its way, in a file of this machine until it is finished: to verify its sender takes all of it."""

from __future__ import annotations

import hashlib
import mmap
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, BinaryIO, Protocol

from glassq.delivery import StoredBody
from glassq.errors import BodyError

if TYPE_CHECKING:
    from collections.abc import Callable

    from glassq.bodies.base import BodyWriter

# How much of a body is in memory while it is copied, in bytes.
PART = 256 << 10


class OwnFile(Protocol):
    """A file that goes when it is left, unless it was published meanwhile."""

    @property
    def file(self) -> BinaryIO: ...

    def __exit__(self, *_: object) -> None: ...


class UnnamedFile:
    """A file that no directory knows: it goes with the process."""

    def __init__(self) -> None:
        """Raises OSError."""
        self.file: BinaryIO = TemporaryFile()  # noqa: SIM115

    def __exit__(self, *_: object) -> None:
        self.file.close()


class FileWriter:
    """See BodyWriter. `file` is where the body is until `keep` has put it where it belongs."""

    def __init__(
        self,
        key: str,
        file: OwnFile,
        keep: Callable[[int], None],
        refused: Callable[[OSError], BodyError],
    ) -> None:
        """`keep` gets the size in bytes; `refused` says in words what the file system did not do."""
        self.key = key
        self._own = file
        self._keep = keep
        self._refused = refused
        self._digest = hashlib.sha256()
        self._size = 0
        self._over = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        try:
            self._own.file.write(data)
        except OSError as error:
            raise self._refused(error) from error
        self._digest.update(data)
        self._size += len(data)

    def view(self) -> mmap.mmap:
        try:
            self._own.file.flush()
            return mmap.mmap(self._own.file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise self._refused(error) from error

    def finish(self) -> StoredBody:
        try:
            self._own.file.flush()
            self._keep(self._size)
        except OSError as error:
            raise self._refused(error) from error
        finally:
            self._over = True
            self._own.__exit__()
        return StoredBody(self._size, self._digest.hexdigest())

    def discard(self) -> None:
        if not self._over:
            self._over = True
            self._own.__exit__()


def write_all(origin: BinaryIO, writer: BodyWriter) -> None:
    """Writes what is left to read of `origin` and finishes the body; on an error nothing of it stays."""
    try:
        while part := origin.read(PART):
            writer.write(part)
        writer.finish()
    finally:
        writer.discard()


def spooled(key: str, keep: Callable[[BinaryIO, int], None]) -> FileWriter:
    """A body that goes to a store far away in one go, by `keep`, which gets the file and its size. Raises BodyError."""

    def refused(error: OSError) -> BodyError:
        return BodyError(f"bodies: the directory for temporary files cannot be written: {error.strerror}")

    try:
        own = UnnamedFile()
    except OSError as error:
        raise refused(error) from error
    return FileWriter(key, own, lambda size: keep(own.file, size), refused)
