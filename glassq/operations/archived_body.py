"""Stored bodies in an archive: lines behind the line of their job, each with a part of the body.

{"part":1,"base64":"..."}
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from glassq.bodies import BodyStore
    from glassq.delivery import StoredBody

# A part's size in bytes: a line of 1 MiB.
PART = 768 << 10
BEGINNING = b'{"part":'


class BodyParts(Protocol):
    """A body that is read in parts."""

    @property
    def stored(self) -> StoredBody: ...

    def parts(self) -> Iterator[bytes]:
        """The body, in order. Raises BodyError or OSError."""


@dataclass(frozen=True, slots=True)
class BodyInStore:
    """A body of the store."""

    store: BodyStore
    key: str
    stored: StoredBody

    def parts(self) -> Iterator[bytes]:
        with self.store.open(self.key) as file:
            while part := file.read(PART):
                yield part


@dataclass(frozen=True, slots=True)
class BodyInFile:
    """A body of an archive, whose first part begins at `offset`. It was read once, and was whole."""

    path: Path
    offset: int
    stored: StoredBody

    def parts(self) -> Iterator[bytes]:
        left = self.stored.size
        with self.path.open("rb") as file:
            file.seek(self.offset)
            while left > 0:
                part = _decoded(file.readline())
                left -= len(part)
                yield part


class _Part(msgspec.Struct, frozen=True):
    part: int
    base64: str


@dataclass(slots=True)
class BodyReader:
    """Takes the lines of one body, and finds out whether they are whole."""

    body: BodyInFile
    _digest: Any = field(default_factory=hashlib.sha256)
    _size: int = 0

    def take(self, text: bytes) -> bool:
        """One more line; whether it was the last. Raises ValueError where the body is not what it was."""
        part, stored = _decoded(text), self.body.stored
        self._digest.update(part)
        self._size += len(part)
        if self._size < stored.size and part:
            return False
        if self._size != stored.size or self._digest.hexdigest() != stored.sha256:
            raise ValueError("the body that ends here is not the one that was archived")
        return True


def lines(body: BodyParts) -> Iterator[dict[str, Any]]:
    """The lines that follow the line of the job."""
    for number, part in enumerate(body.parts(), 1):
        yield {"part": number, "base64": base64.b64encode(part).decode("ascii")}


def _decoded(text: bytes) -> bytes:
    """Raises ValueError where the line is no part of a body."""
    try:
        return base64.b64decode(msgspec.json.decode(text, type=_Part).base64, validate=True)
    except (msgspec.DecodeError, UnicodeDecodeError, binascii.Error, RecursionError):
        raise ValueError("is no part of a body") from None
