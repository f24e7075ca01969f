"""How much of a segment is left to be moved on, without reading it whole; also while another process writes it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from glassq.journal.notes import read_notes
from glassq.journal.record import HEAD, head_at, key_at
from glassq.journal.segment import notes_path, segment_id

if TYPE_CHECKING:
    from pathlib import Path

# Enough for a record's head and key, in bytes.
_START = HEAD + 256


class Survey(NamedTuple):
    """`left` records are to be moved on, `first` is the key of the first one; "" where there is none.

    `uncounted`: its notes do not say how many there are.
    """

    left: int
    first: str
    uncounted: bool = False


def survey(path: Path) -> Survey:
    """What is left in a segment; nothing in one that is gone. Raises OSError.

    Where the notes are lost or old, what they lack is counted by the records' heads, without looking at their CRC.
    """
    own_id = segment_id(path)
    noted = read_notes(notes_path(path), own_id)
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return Survey(0, "")
    try:
        more = _uncounted(file, own_id, noted.end)
        left = noted.number + more - noted.done
        if left <= 0:
            return Survey(0, "")
        first = noted.first_left()
        start = os.pread(file, _START, first)
        key = key_at(start, 0) if head_at(start, 0, own_id, first) else ""
        return Survey(left, key, uncounted=more > 0)
    finally:
        os.close(file)


def _uncounted(file: int, own_id: bytes, end: int) -> int:
    """How many records follow from `end` on."""
    if not head_at(os.pread(file, HEAD, end), 0, own_id, end):
        return 0
    data = os.pread(file, os.fstat(file).st_size - end, end)
    number = at = 0
    while head := head_at(data, at, own_id, end):
        number, at = number + 1, head[0]
    return number
