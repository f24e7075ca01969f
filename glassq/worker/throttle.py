"""How fast, and how many at once: what tubes with a limit are held to by all children of one pool together.

Each such tube has a token bucket, in shared memory that the parent makes before it forks. A child holds a right to a
token before it reserves from the tube, and uses the token when a job has come. A right that is held keeps others from
the token but does not drain the bucket: however long children wait, and whatever ends them, no more than
`bucket + rate * t` jobs begin within any t seconds.

No death leaves anything half done, or taken for ever:
- A slot's mark on a tube (rights held, attempts that run, tokens used in all) is one word, written by the child in that
  slot only, with one store for each change. What a dead child held the parent takes away. Using a token needs no lock.
- A bucket has two copies of its state. Under the lock the idle one is written, then one store makes it the valid one.
- The kernel takes the lock from whoever dies. Nobody waits long for one who is stopped: the tubes without limit go on.
Times are time.monotonic(), which all processes of a machine share.
"""

from __future__ import annotations

import fcntl
import logging
import math
import mmap
import os
import struct
import tempfile
import time
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from glassq.errors import SettingsError
from glassq.log import kv
from glassq.worker.scoreboard import MAX_SLOTS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

log = logging.getLogger("glassq.worker")

# When to look again for a token, in seconds: not before the first, that no wait is a busy loop; not after the second
# where jobs may come from other tubes meanwhile, as a reserve that does not wait sees them only then; else the third.
SOONEST, LATEST, RELAXED = 0.005, 0.05, 0.25
# What is due later than this, in seconds, does not keep a reserve from waiting for its usual length.
FAR = 1.0
# How long the lock is waited for, and how often it is tried, in seconds. Its holders need microseconds.
PATIENCE, RETRY_LOCK = 0.02, 0.0002

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
# tokens, when they were counted, tokens used by then, pace, when it changed, when it was last halved
_STATE = struct.Struct("@6d")
_PACE = 3
# A sum of fractions may fall short of one by so little.
_ALMOST = 1e-9


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


@dataclass(frozen=True, slots=True)
class Opening:
    """Which tubes may be reserved from now; perhaps none.

    `wait` is None where a reserve may wait for its usual length of a second. Else it must not wait, and when nothing
    came it is worth looking again after so many seconds.
    """

    tubes: tuple[str, ...]
    wait: float | None = None


class Throttle:
    """The limits of all tubes. Made by the pool's parent before it forks; `set` and `clear` are the parent's."""

    def __init__(
        self, slots: int = MAX_SLOTS, tubes: int = 256, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """For so many children, and so many tubes that ever have a limit."""
        self._tubes = tubes
        self._clock = clock
        self._lock = _Lock()
        # untouched pages cost nothing
        self._marks = memoryview(mmap.mmap(-1, tubes * slots * _WORD)).cast("Q")
        self._cells = mmap.mmap(-1, tubes * _WORDS * _WORD)
        self._slots = slots
        self._buckets: dict[str, _Bucket] = {}

    def set(self, limits: Sequence[Limit]) -> None:
        """Holds tubes to these limits, at the start and after a reload.

        A new tube starts with a full bucket. A known one keeps its tokens. One that is missing in `limits` keeps its
        last limit, for children of before still reserve from it. Raises SettingsError, and changes nothing, when there
        have been more tubes than memory was made for.
        """
        new = {limit.tube for limit in limits} - self._buckets.keys()
        if len(self._buckets) + len(new) > self._tubes:
            raise SettingsError(f"more than {self._tubes} tubes with a limit since the pool was started: restart it")
        # One who is stopped in the lock must not stop the parent. Without it, a new rate counts from the last look on.
        locked = self._lock.take(PATIENCE)
        try:
            for limit in limits:
                bucket = self._buckets.get(limit.tube)
                if bucket is None:
                    self._buckets[limit.tube] = self._bucket(limit)
                    continue
                if locked:
                    bucket.settle()
                bucket.limit(limit)
        finally:
            if locked:
                self._lock.free()

    def clear(self, slot: int) -> None:
        """The child in this slot is gone: the rights and places it had are free. The tokens it used stay used."""
        for bucket in self._buckets.values():
            bucket.leave(slot)

    def gate(self, slot: int, free: Sequence[str], limited: Sequence[str]) -> Gate:
        """The gate of the child in this slot. `limited` are tubes that have been `set`, `free` those without limit."""
        return Gate(slot, tuple(free), [self._buckets[tube] for tube in limited], self._lock)

    def _bucket(self, limit: Limit) -> _Bucket:
        index = len(self._buckets)
        marks = self._marks[index * self._slots : (index + 1) * self._slots]
        bucket = _Bucket(limit.tube, marks, self._cells, index * _WORDS * _WORD, self._clock)
        bucket.fill(limit)
        return bucket


class Gate:
    """Lets one child reserve from the tubes that have a token, and a place, for it.

    Single-threaded. A round is `open`, then `began` when a job is to be worked, then `ended` whatever came.
    """

    def __init__(self, slot: int, free: tuple[str, ...], buckets: list[_Bucket], lock: _Lock) -> None:
        """Made by `Throttle.gate`, in the child."""
        self._slot = slot
        self._free = free
        self._buckets = {bucket.tube: bucket for bucket in buckets}
        self._lock = lock
        self._always = Opening(free)
        self._held: list[_Bucket] = []
        self._at_work: _Bucket | None = None
        self._patience = PATIENCE
        # looks in a row at which others were in the way
        self._crowded = 0

    def open(self) -> Opening:
        """Takes hold of what can be had now; never blocks for long."""
        if not self._buckets:
            return self._always
        due, crowded = math.inf, True
        if self._locked():
            try:
                due, crowded = self._hold_all()
            finally:
                self._lock.free()
        if crowded:
            # Who gets a job is out of the way in a millisecond; who is not waits for one, as we would.
            again = SOONEST * 2.0 ** min(self._crowded, 10)
            due = min(due, again if again <= LATEST else math.inf)
        self._crowded = self._crowded + 1 if crowded else 0
        tubes = (*self._free, *[bucket.tube for bucket in self._held])
        return Opening(tubes, _wait(due, LATEST if tubes else RELAXED, bool(tubes)))

    def began(self, tube: str) -> None:
        """A job of this tube is worked now: its token is used, its place taken. Other rights go back."""
        bucket = self._buckets.get(tube)
        if bucket is not None:
            # Used from this store on. Without the lock the bucket only begins to fill again a little later.
            bucket.use(self._slot)
            self._at_work = bucket
        self.nothing()
        self._crowded = 0
        if bucket is not None and self._locked():
            try:
                bucket.settle()
            finally:
                self._lock.free()

    def nothing(self) -> None:
        """No job came: all rights go back."""
        for bucket in self._held:
            bucket.let_go(self._slot)
        self._held.clear()

    def ended(self, *, slow_down: bool = False) -> None:
        """The round is over, whether or not a job was worked in it: all rights go back, and the place is free.

        With `slow_down` the one who was asked is overloaded.
        """
        self.nothing()
        bucket, self._at_work = self._at_work, None
        if bucket is None:
            return
        bucket.leave(self._slot)
        if not (slow_down or bucket.slowed) or not self._locked():
            return
        try:
            pace = bucket.answered(overloaded=slow_down)
        finally:
            self._lock.free()
        if slow_down and pace is not None:
            told = kv(tube=bucket.tube, rate=f"{bucket.rate * pace:.3g}/s", full=f"{bucket.rate:.3g}/s")
            log.warning("target is overloaded: its tube is slowed down %s", told)

    def _hold_all(self) -> tuple[float, bool]:
        """Under the lock. Seconds until the next token for us, and whether others are in the way of one."""
        due, crowded = math.inf, False
        for bucket in self._buckets.values():
            if bucket in self._held:
                continue
            wait = bucket.hold(self._slot)
            if wait is None:
                crowded = True
            elif wait > 0:
                due = min(due, wait)
            else:
                self._held.append(bucket)
        return due, crowded

    def _locked(self) -> bool:
        """Takes the lock. Somebody stopped in it is waited for once, not each time."""
        taken = self._lock.take(self._patience)
        self._patience = PATIENCE if taken else 0.0
        return taken


class _Bucket:
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

    def let_go(self, slot: int) -> None:
        """The right is given back."""
        self._marks[slot] &= ~_HELD

    def leave(self, slot: int) -> None:
        """Nothing is held, nothing runs."""
        self._marks[slot] &= ~(_HELD | _RUNNING)

    # -- under the lock -----------------------------------------------------------------------------------------------

    def hold(self, slot: int) -> float | None:
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


class _Lock:
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


def _wait(due: float, latest: float, some: bool) -> float | None:
    """When to look again for what is due in so many seconds; None: after a reserve of usual length."""
    if due > FAR:
        return None if some else latest
    # in equal parts: a short last one would be stretched to SOONEST, and the token come late
    return max(SOONEST, due / math.ceil(due / latest))
