"""A word of shared memory for each slot: what its child has claimed, such as a key that it works.

Only the child in a slot writes that slot's word, by one store and under the lock of the gates; the parent clears the
words of a child that died. So no death leaves a claim behind, or half a change.
"""

from __future__ import annotations

import hashlib
import sys
from functools import lru_cache

WORD = 8


class SlotWords:
    """The words of all slots; 0: nothing is claimed."""

    def __init__(self, words: memoryview, used: memoryview) -> None:
        """`words` has a word (format Q) for each slot; the first word of `used` says how many may have had a child."""
        self._words = words
        self._used = used

    def take(self, slot: int, word: int, most: int) -> bool:
        """Claims it for the slot, which has no other claim then, unless `most` slots have it. Call under the lock."""
        others = count(self.all(), word) - (self._words[slot] == word)
        if others >= most:
            return False
        self._words[slot] = word
        return True

    def taken(self, word: int) -> bool:
        """Whether a slot has claimed it."""
        return count(self.all(), word) > 0

    def of(self, slot: int) -> int:
        """What the slot has claimed."""
        claimed: int = self._words[slot]
        return claimed

    def clear(self, slot: int) -> None:
        """The slot claims nothing."""
        self._words[slot] = 0

    def all(self) -> bytes:
        """All words as they are now, for `count`."""
        return self._words[: self._used[0]].tobytes()


def count(words: bytes, word: int) -> int:
    """How often the word is among these."""
    pattern, found, at = word.to_bytes(WORD, sys.byteorder), 0, -WORD
    while (at := words.find(pattern, at + WORD)) >= 0:
        if at % WORD:
            # two halves that look like it
            at -= WORD - 1
        else:
            found += 1
    return found


@lru_cache(8192)
def word_of(text: str) -> int:
    """The text, hashed, as a number that one store can write; never 0."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=WORD).digest()) | 1
