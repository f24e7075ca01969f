"""What a test of the journal and the other processes in it work with; these do without pytest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from glassq import delivery as envelope
from glassq.journal import Journal, JournalRecord

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from glassq.errors import QueueError


class Sink:
    """A queue that remembers what was put; it refuses for good the bodies in `refuses`, and raises `fails` once."""

    def __init__(self) -> None:
        self.packets: list[list[JournalRecord]] = []
        self.refuses: dict[bytes, QueueError] = {}
        self.fails: list[QueueError] = []

    def put(self, packet: Sequence[JournalRecord]) -> Mapping[str, QueueError]:
        if self.fails:
            raise self.fails.pop()
        refused = {record.key: self.refuses[record.body] for record in packet if record.body in self.refuses}
        self.packets.append([record for record in packet if record.key not in refused])
        return refused

    def keys(self) -> list[str]:
        return [record.key for packet in self.packets for record in packet]

    def bodies(self) -> list[bytes]:
        return [record.body for packet in self.packets for record in packet]


def some(number: int, body: bytes = b"{}") -> list[JournalRecord]:
    """So many records, oldest first; each body is unlike the others."""
    keys = sorted(envelope.new_id() for _ in range(number))
    return [JournalRecord(key, b"%d %b" % (index, body)) for index, key in enumerate(keys)]


def opened(directory: Path, max_size: int = 1 << 30, min_free: int = 0) -> Journal:
    return Journal(directory, max_size=max_size, min_free=min_free)
