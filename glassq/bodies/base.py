"""What glassq asks of a store of large bodies. The delivery's id is a body's key.

A body is durable in the store before its delivery is put anywhere, and leaves it after the job has: whatever ends in
between leaves a body that nobody names (an orphan, see sweep.py), never a job without its body.

Every call may raise BodyError; a key that is not there raises BodyLost.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, BinaryIO, Literal, NamedTuple, Protocol

from glassq.errors import BodyError

if TYPE_CHECKING:
    import mmap
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from glassq.bodies.holders import Holder
    from glassq.delivery import StoredBody

# Maximum size of a ping's body in a job, in bytes. With the story of its attempts (24 KiB), it fits into the smallest
# job that any engine of ours takes (delivery.MAX_JOB).
INLINE = 32 << 10

# The `free` of a store that knows no limit, in bytes.
NO_LIMIT = 1 << 62
# "unfinished": it is being written; "live": a job may name it; "done": its job is over, a replay may want it.
BodyState = Literal["unfinished", "live", "done"]


# How long a body may take on its way to a store far away, where nobody waits for it; in seconds.
UPLOAD = 60.0
KEY = re.compile(r"[0-9A-Za-z][0-9A-Za-z_-]{0,63}")
# The length of a delivery's id.
_ID = 36


def checked(key: str) -> str:
    """The key: they become names of files and objects, and nothing else may. Raises BodyError."""
    if not KEY.fullmatch(key):
        raise BodyError("bodies: not a key")
    return key


def owner(key: str) -> str:
    """The id of the delivery to which a body belongs: keys of its steps' results begin with it."""
    return key[:_ID]


def by_owner(store: BodyStore) -> dict[str, list[str]]:
    """The keys of all bodies, by the delivery that they belong to. Raises BodyError."""
    keys: dict[str, list[str]] = {}
    for info in store.list():
        keys.setdefault(owner(info.key), []).append(info.key)
    return keys


class BodyInfo(NamedTuple):
    """A body in the store: `size` in bytes; `touched` is when it was written or touched last (Unix time)."""

    key: str
    size: int
    touched: float
    state: BodyState


class BodyWriter(Protocol):
    """A body that is being written, for one thread at a time. Nobody can open it before `finish`."""

    @property
    def key(self) -> str: ...

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Appends to the body."""

    def view(self) -> mmap.mmap:
        """What was written so far, to read; there is at least one byte. The caller closes it."""

    def finish(self) -> StoredBody:
        """On return the body is durable, and can be opened under its key."""

    def discard(self) -> None:
        """Removes it, unless it is finished. Never raises; may be called twice."""


class BodyStore(Protocol):
    """A store for all threads and processes. It may be made before a fork and used after it."""

    def prepare(self) -> None:
        """Makes what is missing, for who writes. Raises BodyError if the store cannot be written."""

    def begin(self, key: str, size: int = 0) -> BodyWriter:
        """A new body, of `size` bytes if that is known. Raises BodyError if there is no room for it."""

    def open(self, key: str) -> BinaryIO:
        """The body, live or done, to read. The caller closes it."""

    def touch(self, key: str) -> None:
        """Who puts a new form of a delivery calls this before the put: its job moves, and no sweep can see it there.

        A body that is done is live again. Nothing happens if it is not there.
        """

    def link(self, key: str, new: str) -> None:
        """Makes the body durable under another key as well. Deleting one of them leaves the other."""

    def retire(self, key: str) -> None:
        """The job is over: from now on the body is "done". Nothing happens if it is not live."""

    def delete(self, key: str, state: BodyState | None = None) -> None:
        """Removes the body, if it is there: in this state, or in any (None)."""

    def list(self) -> Iterator[BodyInfo]:
        """All bodies, in no order."""

    def hold(self, holder: str, since: float | None, about: str) -> None:
        """This journal or queue names no body that was touched before `since` (None: as before); see holders.py."""

    def holders(self) -> Iterator[Holder]:
        """The journals and queues that may name bodies."""

    def let_go(self, holder: str) -> None:
        """This journal or queue names no bodies any more."""

    def free(self) -> int:
        """How many bytes more it takes now; NO_LIMIT where it does not know."""

    def exists(self) -> bool:
        """Whether anybody has ever written here; True where only a store that is far away could say."""

    def alone(self) -> AbstractContextManager[bool]:
        """Whether nobody else sweeps the store meanwhile, on any host."""

    def looked(self) -> float:
        """When all jobs were looked at for it last, on any host (Unix time; 0: never)."""

    def note_look(self, when: float) -> None:
        """All jobs were looked at then."""


class RemoteBodyStore(BodyStore, Protocol):
    """A store that may be away for a while, unlike a disk."""

    def put(self, key: str, file: BinaryIO, size: int, within: float) -> None:
        """On return the content of the file, so many bytes from its start on, is a live body, durably.

        One of that key is replaced. Raises BodyError if it is not so within this number of seconds.
        """
