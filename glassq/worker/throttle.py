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

import math
import mmap
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from glassq import backoff
from glassq.errors import SettingsError
from glassq.log import fields, logger
from glassq.worker.bucket import BYTES, MARK, Bucket, Limit, Lock
from glassq.worker.scoreboard import MAX_SLOTS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

log = logger("glassq.worker")

# When to look again for a token, in seconds: not before the first, that no wait is a busy loop; not after the second
# where jobs may come from other tubes meanwhile, as a reserve that does not wait sees them only then; else the third.
SOONEST, LATEST, RELAXED = 0.005, 0.05, 0.25
# What is due later than this, in seconds, does not keep a reserve from waiting for its usual length.
FAR = 1.0
# How long the lock is waited for, in seconds. Its holders need microseconds.
PATIENCE = 0.02


@dataclass(frozen=True, slots=True)
class Admission:
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
        self._lock = Lock()
        # untouched pages cost nothing
        self._marks = memoryview(mmap.mmap(-1, tubes * slots * MARK)).cast("Q")
        self._cells = mmap.mmap(-1, tubes * BYTES)
        self._slots = slots
        self._buckets: dict[str, Bucket] = {}

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

    def limiter(self, slot: int, free: Sequence[str], limited: Sequence[str]) -> TubeLimiter:
        """What admits the child in this slot. `limited` are tubes that have been `set`, `free` those without limit."""
        return TubeLimiter(slot, tuple(free), [self._buckets[tube] for tube in limited], self._lock)

    def _bucket(self, limit: Limit) -> Bucket:
        index = len(self._buckets)
        marks = self._marks[index * self._slots : (index + 1) * self._slots]
        bucket = Bucket(limit.tube, marks, self._cells, index * BYTES, self._clock)
        bucket.fill(limit)
        return bucket


class TubeLimiter:
    """Lets one child reserve from the tubes that have a token, and a place, for it.

    Single-threaded. A round is `admit`, then `began` when a job is to be worked, then `finish` whatever came.
    """

    def __init__(self, slot: int, free: tuple[str, ...], buckets: list[Bucket], lock: Lock) -> None:
        """Made by `Throttle.limiter`, in the child."""
        self._slot = slot
        self._free = free
        self._buckets = {bucket.tube: bucket for bucket in buckets}
        self._lock = lock
        self._always = Admission(free)
        self._held: list[Bucket] = []
        self._at_work: Bucket | None = None
        self._patience = PATIENCE
        # looks in a row at which others were in the way
        self._crowded = 0

    def admit(self) -> Admission:
        """Takes hold of what can be had now; never blocks for long."""
        if not self._buckets:
            return self._always
        due, crowded = math.inf, True
        if self._locked():
            try:
                due, crowded = self._acquire_all()
            finally:
                self._lock.free()
        if crowded:
            # Who gets a job is out of the way in a millisecond; who is not waits for one, as we would.
            again = backoff.ceiling(self._crowded, SOONEST, math.inf)
            due = min(due, again if again <= LATEST else math.inf)
        self._crowded = self._crowded + 1 if crowded else 0
        tubes = (*self._free, *[bucket.tube for bucket in self._held])
        return Admission(tubes, _wait(due, LATEST if tubes else RELAXED, bool(tubes)))

    def began(self, tube: str) -> None:
        """A job of this tube is worked now: its token is used, its place taken. Other rights go back."""
        bucket = self._buckets.get(tube)
        if bucket is not None:
            # Used from this store on. Without the lock the bucket only begins to fill again a little later.
            bucket.use(self._slot)
            self._at_work = bucket
        self.release_tokens()
        self._crowded = 0
        if bucket is not None and self._locked():
            try:
                bucket.settle()
            finally:
                self._lock.free()

    def release_tokens(self) -> None:
        """No job came: all rights go back."""
        for bucket in self._held:
            bucket.release(self._slot)
        self._held.clear()

    def finish(self, *, slow_down: bool = False) -> None:
        """The round is over, whether or not a job was worked in it: all rights go back, and the place is free.

        With `slow_down` the one who was asked is overloaded.
        """
        self.release_tokens()
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
            told = fields(tube=bucket.tube, rate=f"{bucket.rate * pace:.3g}/s", full=f"{bucket.rate:.3g}/s")
            log.warning("target is overloaded: its tube is slowed down %s", told)

    def _acquire_all(self) -> tuple[float, bool]:
        """Under the lock. Seconds until the next token for us, and whether others are in the way of one."""
        due, crowded = math.inf, False
        for bucket in self._buckets.values():
            if bucket in self._held:
                continue
            wait = bucket.acquire(self._slot)
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


def _wait(due: float, latest: float, some: bool) -> float | None:
    """When to look again for what is due in so many seconds; None: after a reserve of usual length."""
    if due > FAR:
        return None if some else latest
    # in equal parts: a short last one would be stretched to SOONEST, and the token come late
    return max(SOONEST, due / math.ceil(due / latest))
