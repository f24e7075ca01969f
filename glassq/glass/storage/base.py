"""What every storage does, whatever it stores in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

# In bytes. The limit of Linux file systems holds for buckets too (theirs is 1,024), so that photos can move.
MAX_NAME = 255


@dataclass(frozen=True, slots=True)
class Stored:
    """One stored object.

    `url` is gs://BUCKET/NAME or file:///DIRECTORY/NAME with the name as it is, not percent-encoded once more;
    `size` is in bytes; `created` is False where it had been stored before and nothing was written.
    """

    url: str
    size: int
    created: bool


class Storage(Protocol):
    """Objects by name. What goes wrong is raised as Retry or Bury, with words for the operator.

    A name is 1 to MAX_NAME bytes, without "/" or NUL and without "." at its start: ValueError otherwise.
    """

    def find(self, name: str) -> Stored | None:
        """What is stored under `name`: look here before downloading."""
        ...

    def write(
        self, name: str, chunks: Iterable[bytes], *, content_type: str, metadata: Mapping[str, str], timeout: float
    ) -> Stored:
        """Stores the bytes of `chunks`, whole or not at all, and never over what is stored already.

        Memory does not grow with the size. `timeout` is in seconds, for reading `chunks` and writing together.
        What `chunks` raises leaves nothing behind and comes through unchanged.
        """
        ...

    def delete(self, name: str) -> bool:
        """Deletes what is stored under `name`; False where there was nothing."""
        ...

    def names(self, prefix: str) -> Iterator[str]:
        """The stored names that start with `prefix`, sorted. They may be deleted on the way."""
        ...

    def close(self) -> None:
        """Closes connections. The storage is not used afterwards."""
        ...


def checked(name: str) -> str:
    """The name itself. Raises ValueError where a storage must not take it."""
    if not name or name.startswith(".") or "/" in name or "\0" in name or len(name.encode()) > MAX_NAME:
        raise ValueError(f"not a name to store under: {name[:MAX_NAME]!r}")
    return name
