"""The gates of a pool, in shared memory: who works which key, what is parked where, which routes are paused."""

from __future__ import annotations

import mmap
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from glassq.worker.bucket import LOCK_TIMEOUT
from glassq.worker.gates.claims import WORD, SlotWords
from glassq.worker.gates.parked import PARKED_BYTES, ParkedTubes
from glassq.worker.gates.rows import ROWS_BYTES, BreakerRows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from glassq.worker.bucket import ProcessLock

# How often one child of the pool looks for parking tubes that the table does not have, in seconds; and how often while
# the table was too small.
LOOK, LOOK_FOR_MORE = 60.0, 5.0
# Looks that are wanted, and those that were done; when the last was, in microseconds; whether the table was full.
_WANTED, _DONE, _AT, _FULL = range(4)
_HEAD = 4 * WORD


class Gates:
    """Made by the pool's parent before it forks; only the parent calls `clear`.

    `keys` are the keys that slots work, `probes` the routes whose breaker they try; both hashed.
    """

    def __init__(
        self, slots: int, lock: ProcessLock, used: memoryview, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """The first word of `used` says how many of the slots may have had a child."""
        # pages that nobody touches take no memory
        memory = mmap.mmap(-1, _HEAD + 2 * slots * WORD + PARKED_BYTES + ROWS_BYTES)
        view, words = memoryview(memory), slots * WORD
        self._lock = lock
        self.clock = clock
        self._head = view[:_HEAD].cast("Q")
        self.keys = SlotWords(view[_HEAD : _HEAD + words].cast("Q"), used)
        self.probes = SlotWords(view[_HEAD + words : _HEAD + 2 * words].cast("Q"), used)
        self.parked = ParkedTubes(memory, _HEAD + 2 * words)
        self.breakers = BreakerRows(memory, _HEAD + 2 * words + PARKED_BYTES)
        # what the last pool has parked
        self._head[_WANTED] = 1

    def clear(self, slot: int) -> None:
        """The child in this slot is gone: it works no key. What it has parked last may not be in the table."""
        self.keys.clear(slot)
        self.probes.clear(slot)
        self.look_again()

    def look_again(self) -> None:
        """The table may lack a tube: one child shall look soon."""
        self._head[_WANTED] += 1

    @contextmanager
    def locked(self) -> Iterator[bool]:
        """Holds the lock; False if a process has it that does not run: then change nothing."""
        locked = self._lock.acquire(LOCK_TIMEOUT)
        try:
            yield locked
        finally:
            if locked:
                self._lock.release()

    def look_is_due(self) -> bool:
        """Whether this child shall look for parking tubes now: True for one child alone."""
        if not self._due():
            return False
        with self.locked() as locked:
            if not locked or not self._due():
                return False
            self._head[_DONE], self._head[_AT] = self._head[_WANTED], int(self.clock() * 1e6)
            self._head[_FULL] = 0
            return True

    def note(self, tube: str) -> bool:
        """Something may be parked in this tube. False if that could not be written down."""
        with self.locked() as locked:
            if not locked:
                return False
            if not self.parked.add(tube):
                self._head[_FULL] = 1
            return True

    def _due(self) -> bool:
        if self._head[_DONE] != self._head[_WANTED]:
            return True
        passed = self.clock() - self._head[_AT] / 1e6
        return passed >= (LOOK_FOR_MORE if self._head[_FULL] else LOOK)
