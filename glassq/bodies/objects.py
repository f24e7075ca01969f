"""Bodies as objects of a bucket, at Google or Amazon or whoever speaks S3, for all hosts that reach it.

PREFIX/data/KEY        the bytes
PREFIX/live/KEY        empty: a job may name it; when it was written is when the body was touched last
PREFIX/done/KEY        empty: its job is over
PREFIX/holders/KEY     the journals and queues that may name bodies (holders.py)
PREFIX/looked          empty: when all jobs were looked at last

An object is there as a whole or not at all. Data comes before its mark, and goes after it; without a mark it is
"unfinished". So no bucket needs versions, copies or conditions.
"""

from __future__ import annotations

import io
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, Protocol, cast

from glassq.bodies.base import KEY, NO_LIMIT, UPLOAD, BodyInfo, BodyState, checked
from glassq.bodies.holders import Holder, as_text, from_text
from glassq.bodies.writer import FileWriter, spooled, write_all
from glassq.errors import BodyLost

if TYPE_CHECKING:
    from collections.abc import Iterator

# What a reader has in memory, in bytes.
CHUNK = 1 << 20
_STATES: tuple[BodyState, ...] = ("live", "done")


class Item(NamedTuple):
    """An object of a bucket: its size in bytes, and when it was written (Unix time)."""

    name: str
    size: int
    written: float


class Bucket(Protocol):
    """What is asked of a bucket. Every call may raise BodyError."""

    #: for people
    url: str

    def put(self, name: str, file: BinaryIO, size: int, within: float) -> None:
        """Writes or replaces an object; on return it is durable."""

    def read(self, name: str, start: int, size: int) -> bytes | None:
        """These bytes of it, fewer at its end; None if there is no such object."""

    def find(self, name: str) -> Item | None:
        """None if there is no such object."""

    def list(self, prefix: str) -> Iterator[Item]:
        """The objects whose names begin so, in the order of their names."""

    def delete(self, name: str) -> None:
        """Nothing happens if there is no such object."""


class ObjectBodies:
    """The store of `[bodies] url = "gs://BUCKET/PREFIX"` or "s3://BUCKET/PREFIX". See RemoteBodyStore."""

    def __init__(self, bucket: Bucket, prefix: str = "") -> None:
        """`prefix` is "" or ends in /. Connects to nothing."""
        self._bucket = bucket
        self._prefix = prefix

    def prepare(self) -> None:
        """The bucket is not ours to make."""

    def begin(self, key: str, size: int = 0) -> FileWriter:
        return spooled(checked(key), lambda file, size: self.put(key, file, size, UPLOAD))

    def put(self, key: str, file: BinaryIO, size: int, within: float) -> None:
        until = time.monotonic() + within
        file.seek(0)
        self._bucket.put(self._name("data", key), file, size, within)
        self._mark("live", key, until - time.monotonic())

    def open(self, key: str) -> BinaryIO:
        found = self._bucket.find(self._name("data", key))
        if found is None or not any(self._bucket.find(self._name(state, key)) for state in _STATES):
            raise self._lost(key)
        return cast("BinaryIO", io.BufferedReader(_ObjectReader(self._bucket, found), CHUNK))

    def touch(self, key: str) -> None:
        if any(self._bucket.find(self._name(state, key)) is not None for state in _STATES):
            self._mark("live", key)
            self._bucket.delete(self._name("done", key))

    def link(self, key: str, new: str) -> None:
        with self.open(key) as old:
            write_all(old, self.begin(new))

    def retire(self, key: str) -> None:
        if self._bucket.find(self._name("live", key)) is not None:
            self._mark("done", key)
            self._bucket.delete(self._name("live", key))

    def delete(self, key: str, state: BodyState | None = None) -> None:
        name = self._name("data", key)
        for each in (state,) if state else _STATES:
            if each in _STATES:
                self._bucket.delete(self._name(each, key))
        # one that a restore has put back meanwhile has its other mark
        if not state or not any(self._bucket.find(self._name(each, key)) for each in _STATES):
            self._bucket.delete(name)

    def list(self) -> Iterator[BodyInfo]:
        # the marks first: what is put meanwhile has its data, but perhaps no mark, and is young
        marks: dict[str, tuple[BodyState, float]] = {}
        for state in reversed(_STATES):
            marks |= {key: (state, item.written) for key, item in self._in(state)}
        for key, item in self._in("data"):
            found, touched = marks.get(key, ("unfinished", item.written))
            yield BodyInfo(key, item.size, touched, found)

    def hold(self, holder: str, since: float | None, about: str) -> None:
        if since is None:
            known = self._holder(holder)
            since = known.since if known else 0.0
        text = as_text(since, about).encode()
        self._bucket.put(self._name("holders", holder), io.BytesIO(text), len(text), UPLOAD)

    def holders(self) -> Iterator[Holder]:
        for key, _ in self._in("holders"):
            if (found := self._holder(key)) is not None:
                yield found

    def let_go(self, holder: str) -> None:
        self._bucket.delete(self._name("holders", holder))

    def free(self) -> int:
        return NO_LIMIT

    def exists(self) -> bool:
        return True

    @contextmanager
    def alone(self) -> Iterator[bool]:
        # what two sweepers do at once is done twice
        yield True

    def looked(self) -> float:
        found = self._bucket.find(f"{self._prefix}looked")
        return min(float(self._bucket.read(found.name, 0, 32) or 0), time.time()) if found else 0.0

    def note_look(self, when: float) -> None:
        text = f"{when:.0f}".encode()
        self._bucket.put(f"{self._prefix}looked", io.BytesIO(text), len(text), UPLOAD)

    def _mark(self, state: BodyState, key: str, within: float = UPLOAD) -> None:
        self._bucket.put(self._name(state, key), io.BytesIO(), 0, within)

    def _name(self, kind: str, key: str) -> str:
        return f"{self._prefix}{kind}/{checked(key)}"

    def _in(self, kind: str) -> Iterator[tuple[str, Item]]:
        start = f"{self._prefix}{kind}/"
        for item in self._bucket.list(start):
            key = item.name.removeprefix(start)
            if KEY.fullmatch(key):
                yield key, item

    def _holder(self, key: str) -> Holder | None:
        name = self._name("holders", key)
        item = self._bucket.find(name)
        text = self._bucket.read(name, 0, 1 << 16) if item else None
        if item is None or text is None:
            return None
        return from_text(key, text.decode("utf-8", "replace"), item.written)

    def _lost(self, key: str) -> BodyLost:
        return BodyLost(f"body {key} is not in {self._bucket.url}/{self._prefix}")


class _ObjectReader(io.RawIOBase):
    """An object to read, range by range."""

    def __init__(self, bucket: Bucket, item: Item) -> None:
        super().__init__()
        self._bucket = bucket
        self._item = item
        self._at = 0

    def readable(self) -> bool:
        return True

    def readall(self) -> bytes:
        # else Python asks for 8 KiB at a time
        return b"".join(iter(lambda: self.read(CHUNK) or b"", b""))

    def readinto(self, buffer: Any) -> int:
        count = min(len(buffer), self._item.size - self._at)
        if count <= 0:
            return 0
        data = self._bucket.read(self._item.name, self._at, count)
        if data is None:
            raise BodyLost(f"{self._bucket.url}/{self._item.name} was deleted while it was read")
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)
