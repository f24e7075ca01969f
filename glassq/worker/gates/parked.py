"""Which parking tubes may hold deliveries: a table in shared memory, so that every child can serve any of them.

The table is a list of hints. A tube that is not in it is found by the next look at the queue's tubes (`Gates`), and one
that is in it and empty is taken out by whoever finds it empty, unless something has been parked there meanwhile. It is
written under the lock of the gates; each entry becomes valid, or not, by one store.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, NamedTuple

from glassq.worker.gates.claims import WORD, count, word_of

if TYPE_CHECKING:
    import mmap
    from collections.abc import Iterator

# More tubes than a pool could serve in turn; those beyond are found once others are empty.
MAX_PARKED = 4096
_NAME = 200
# The size of a table, in bytes: how many entries are used; then the hashes of names, the stamps, and the names.
PARKED_BYTES = WORD + MAX_PARKED * (2 * WORD + _NAME)
_USED, _HASHES, _STAMPS = 0, 1, 1 + MAX_PARKED
_NAMES = WORD * (1 + 2 * MAX_PARKED)


class TableEntry(NamedTuple):
    """Entry `number`: a tube in which something was parked. `stamp` changes whenever something is parked there."""

    number: int
    tube: str
    stamp: int


class ParkedTubes:
    """The table."""

    def __init__(self, memory: mmap.mmap, start: int) -> None:
        """It has PARKED_BYTES of the memory, from `start` on."""
        self._memory = memory
        self._words = memoryview(memory)[start : start + _NAMES].cast("Q")
        self._names = start + _NAMES

    @property
    def used(self) -> int:
        """How many entries have to be looked at; 0: nothing is parked."""
        used: int = self._words[_USED]
        return used

    def has(self, tube: str) -> bool:
        """Whether the tube is in the table."""
        return self.used > 0 and count(self._hashes(), word_of(tube)) > 0

    def add(self, tube: str) -> bool:
        """Something was parked in this tube. False if the table is full. Call under the lock."""
        word, hashes = word_of(tube), self._hashes()
        entry = _find(hashes, word)
        if entry is None:
            entry = _find(hashes, 0)
            entry = self.used if entry is None else entry
            if entry >= MAX_PARKED:
                return False
            at = self._names + entry * _NAME
            self._memory[at : at + _NAME] = tube.encode("ascii", "replace")[:_NAME].ljust(_NAME, b"\0")
        self._words[_STAMPS + entry] += 1
        self._words[_HASHES + entry] = word
        self._words[_USED] = max(self.used, entry + 1)
        return True

    def remove(self, entry: TableEntry) -> None:
        """The tube was found empty, unless something has been parked there since. Call under the lock."""
        if (
            self._words[_HASHES + entry.number] != word_of(entry.tube)
            or self._words[_STAMPS + entry.number] != entry.stamp
        ):
            return
        self._words[_HASHES + entry.number] = 0
        used = self.used
        while used and not self._words[_HASHES + used - 1]:
            used -= 1
        self._words[_USED] = used

    def look(self, start: int, most: int) -> Iterator[TableEntry]:
        """At most so many entries, the one after the entry `start` first, each once."""
        used = self.used
        for step in range(min(used, most)):
            entry = (start + 1 + step) % used
            word, stamp = self._words[_HASHES + entry], self._words[_STAMPS + entry]
            at = self._names + entry * _NAME
            tube = self._memory[at : at + _NAME].rstrip(b"\0").decode("ascii", "replace")
            # another child may have written a new name meanwhile
            if word and word == word_of(tube):
                yield TableEntry(entry, tube, stamp)

    def _hashes(self) -> bytes:
        return self._words[_HASHES : _HASHES + self.used].tobytes()


def _find(words: bytes, word: int) -> int | None:
    """The number of the first of these words that is this one."""
    pattern, at = word.to_bytes(WORD, sys.byteorder), -1
    while (at := words.find(pattern, at + 1)) >= 0:
        if at % WORD == 0:
            return at // WORD
    return None
