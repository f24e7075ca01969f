"""One tube's token bucket in shared memory, and the lock under which it is counted. See throttle.py for the rules."""

from __future__ import annotations

import fcntl
import math
import os
import struct
import tempfile
import time
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import mmap
    from collections.abc import Callable

# An overloaded target: the tube's rate and bucket are halved, at most once in BREATH seconds, down to a SLOWEST part.
# They grow by STEP of the whole with an answer that is not overloaded, when nothing has changed for BREATH seconds; and
# double when nothing has changed for QUIET seconds, so that a tube without answers recovers too.
BREATH, QUIET = 1.0, 30.0
SLOWEST, STEP = 1 / 64, 1 / 16

# A mark: tokens used in all << 24 | attempts that run << 12 | rights held. The sum over all slots has the same fields.
_HELD, _RUNNING, _USED = 1, 1 << 12, 1 << 24
_FIELD = (1 << 12) - 1
# A bucket's memory: its limit, which copy of the state is valid, and the two copies; in words of 8 bytes.
_RATE, _SIZE, _MOST, _VALID, _COPIES = 0, 1, 2, 3, 4
_WORDS, _WORD = 16, 8
# So much memory each bucket takes, and each slot's mark on one, in bytes.
BYTES, MARK = _WORDS * _WORD, _WORD
# tokens, when they were counted, tokens used by then, pace, when it changed, when it was last halved
_STATE = struct.Struct("@6d")
_PACE = 3
# A sum of fractions may fall short of one by so little.
_ALMOST = 1e-9
# How often the lock is tried while it is waited for, in seconds.
RETRY_LOCK = 0.0002


@dataclass(frozen=True, slots=True)
class Limit:
    """What one tube is held to.

    `rate` is in tokens a second (0: nothing is delivered), `bucket` how many tokens there are at the most (1 or more),
    `most` how many attempts run at once (None: any number).
    """

    tube: str
    rate: float
    bucket: int
    most: int | None = None


class Bucket:
    """One tube's limit and tokens, as every process of the pool sees them."""

    def __init__(self, tube: str, marks: memoryview, cells: mmap.mmap, start: int, clock: Callable[[], float]) -> None:
        self.tube = tube
        self._clock = clock
        self._marks = marks
        self._cells = cells
        self._start = start
        self._words = memoryview(cells)[start : start + _WORDS * _WORD].cast("d")

    # -- the parent's -------------------------------------------------------------------------------------------------

    def fill(self, limit: Limit) -> None:
        """Makes it, full of tokens."""
        self.limit(limit)
        now = self._clock()
        self._keep(float(limit.bucket), now, 0.0, 1.0, now, -math.inf)

    def limit(self, limit: Limit) -> None:
        """Replaces its limit."""
        self._words[_RATE] = limit.rate
        self._words[_SIZE] = float(limit.bucket)
        self._words[_MOST] = math.inf if limit.most is None else float(limit.most)

    # -- the mark of one slot: one store, no lock ---------------------------------------------------------------------

    def use(self, slot: int) -> None:
        """A job came: the right, if there is one, becomes a used token and an attempt that runs."""
        self._marks[slot] = (self._marks[slot] & ~_HELD | _RUNNING) + _USED

    def release(self, slot: int) -> None:
        """The right is given back."""
        self._marks[slot] &= ~_HELD

    def leave(self, slot: int) -> None:
        """Nothing is held, nothing runs."""
        self._marks[slot] &= ~(_HELD | _RUNNING)

    # -- under the lock -----------------------------------------------------------------------------------------------

    def acquire(self, slot: int) -> float | None:
        """0: the slot holds a right now; else in how many seconds there may be a token for it; None: others decide."""
        tokens, marks = self.settle()
        held, running = marks & _FIELD, marks >> 12 & _FIELD
        pace = self._state()[_PACE]
        rate = self.rate * pace
        if rate <= 0:
            return math.inf
        if held + running >= self._words[_MOST]:
            return None
        if tokens - held >= 1 - _ALMOST:
            self._marks[slot] |= _HELD
            return 0.0
        # with all the bucket can hold in the hands of others, time alone brings no token
        return (held + 1 - tokens) / rate if held + 1 <= self._room(pace) else None

    def settle(self) -> tuple[float, int]:
        """Counts what has come in and what was used since the last time. Returns the tokens, and all marks together."""
        tokens, at, seen, pace, changed, halved = self._state()
        marks: int = sum(self._marks.tolist())
        used = float(marks // _USED)
        # The time after the marks: counted from before a token was used, its place in the bucket would fill too early.
        now = max(self._clock(), at)
        tokens = min(self._room(pace), tokens + (now - at) * self.rate * pace) - (used - seen)
        if pace < 1 and now - changed >= QUIET:
            quiet = (now - changed) // QUIET
            pace, changed = min(1.0, pace * 2.0 ** min(quiet, 10)), changed + quiet * QUIET
        self._keep(tokens, now, used, pace, changed, halved)
        return tokens, marks

    def answered(self, *, overloaded: bool) -> float | None:
        """What an answer makes of the pace: the new one, or None where it stays."""
        self.settle()
        tokens, at, seen, before, changed, halved = self._state()
        pace = before
        if overloaded and at - halved >= BREATH:
            pace, changed, halved = max(SLOWEST, before / 2), at, at
        elif not overloaded and at - changed >= BREATH:
            pace, changed = min(1.0, before + STEP), at
        self._keep(tokens, at, seen, pace, changed, halved)
        return pace if pace != before else None

    @property
    def rate(self) -> float:
        """Tokens a second while it is not slowed."""
        rate: float = self._words[_RATE]
        return rate

    @property
    def slowed(self) -> bool:
        """Whether its target was overloaded lately."""
        return self._state()[_PACE] < 1

    def _room(self, pace: float) -> float:
        room: float = self._words[_SIZE] * pace
        return max(1.0, room)

    def _state(self) -> tuple[float, float, float, float, float, float]:
        return _STATE.unpack_from(self._cells, self._copy(int(self._words[_VALID])))

    def _keep(self, *state: float) -> None:
        other = 1 - int(self._words[_VALID])
        _STATE.pack_into(self._cells, self._copy(other), *state)
        self._words[_VALID] = float(other)

    def _copy(self, number: int) -> int:
        return self._start + _COPIES * _WORD + number * _STATE.size


class Lock:
    """One at a time, among processes. It belongs to a process: no child inherits it, and no death keeps it."""

    def __init__(self) -> None:
        self._file, path = tempfile.mkstemp(prefix="glassq-lock-")
        Path(path).unlink()
        weakref.finalize(self, os.close, self._file)

    def take(self, patience: float) -> bool:
        """Takes the lock; False when somebody else still has it after so many seconds."""
        over = 0.0
        while True:
            try:
                fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            except (BlockingIOError, PermissionError):
                # POSIX lets a system say either
                over = over or time.monotonic() + patience
                if time.monotonic() >= over:
                    return False
            time.sleep(RETRY_LOCK)

    def free(self) -> None:
        """Gives it back."""
        fcntl.lockf(self._file, fcntl.LOCK_UN)
