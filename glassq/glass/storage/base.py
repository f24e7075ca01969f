"""The interface of every photo storage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

# Maximum length of a name, in bytes. Buckets would allow 1,024, but photos must be movable to a Linux file system.
MAX_NAME = 255


@dataclass(frozen=True, slots=True)
class Stored:
    """One stored object.

    `url` is gs://BUCKET/NAME or file:///DIRECTORY/NAME, with the name not percent-encoded once more. `size` is in
    bytes. `created` is False if it was stored before, so that nothing was written.
    """

    url: str
    size: int
    created: bool


class PhotoStorage(Protocol):
    """Objects by name. Methods raise Retry or Bury, with a reason for the operator.

    A name has 1 to MAX_NAME bytes, no "/" or NUL, and no "." at its start. Other names raise ValueError.
    """

    def find(self, name: str) -> Stored | None:
        """The object of this name, or None. Call it before a download."""
        ...

    def write(
        self, name: str, chunks: Iterable[bytes], *, content_type: str, metadata: Mapping[str, str], timeout: float
    ) -> Stored:
        """Stores the bytes of `chunks`, completely or not at all; never overwrites an object.

        Memory does not grow with the size. `timeout` is in seconds, for reading `chunks` and writing together.
        An exception raised by `chunks` is passed on unchanged, and nothing is stored.
        """
        ...

    def delete(self, name: str) -> bool:
        """Deletes the object; returns False if there was none."""
        ...

    def names(self, prefix: str) -> Iterator[str]:
        """The stored names that start with `prefix`, sorted. They may be deleted during the iteration."""
        ...

    def close(self) -> None:
        """Closes connections. The storage must not be used afterwards."""
        ...


def checked(name: str) -> str:
    """The name itself. Raises ValueError if it is not valid."""
    if not name or name.startswith(".") or "/" in name or "\0" in name or len(name.encode()) > MAX_NAME:
        raise ValueError(f"not a name to store under: {name[:MAX_NAME]!r}")
    return name
