"""Rate limits: how fast, and how many at once, all children of one pool together may work the jobs of a tube.

Each limited tube has a token bucket (bucket.py) in shared memory, which the parent makes before it forks. A child
*claims* a token before it reserves from the tube, and *consumes* it when a job has come. A claim keeps the token from
other children without draining the bucket. So no more than `bucket + rate * t` jobs begin within any t seconds, however
long children wait, and however they end.

Each slot has an entry in each bucket: one word of memory, with these states:

| slot's state | event                             | next    | effect                                           |
|--------------|-----------------------------------|---------|--------------------------------------------------|
| idle         | admit: there is a token and room  | claimed | one token less for others                        |
| idle         | admit: there is none              | idle    | the child does not reserve from the tube         |
| claimed      | start: a job of this tube came    | running | the token is consumed                            |
| claimed      | start: a job of another tube came | idle    | the token is free again                          |
| claimed      | release_tokens, finish: no job    | idle    | the token is free again                          |
| idle         | start: a job came without a claim | running | a token is consumed; there may be less than none |
| running      | finish: the attempt is over       | idle    | the place is free; the token stays consumed      |
| running      | ahead: there is a token and room  | + claim | the next job may come with the end of this one   |
| any          | clear: the parent saw it die      | idle    | as by release_tokens or finish                   |

No death leaves a change half done, or a token lost:
- Only the child in a slot writes that slot's entry, by one store for each change and without a lock. The parent clears
  the entries of a child that died.
- A bucket has two copies of its state. A process that has the lock writes the unused copy, and then makes it the valid
  one by one store.
- The kernel takes the lock from a process that dies. A process that is stopped while it has the lock delays others only
  briefly: they go on with the tubes that have no limit.
Times are time.monotonic(), which is the same for all processes of a machine.
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
from glassq.worker.bucket import BUCKET_BYTES, ENTRY_BYTES, LOCK_TIMEOUT, Demand, Limit, ProcessLock, TokenBucket
from glassq.worker.gates.shared import Gates
from glassq.worker.kept import KeptPlace
from glassq.worker.scoreboard import MAX_SLOTS

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

log = logger("glassq.worker")

# The pause before a child looks for a token again, in seconds. MIN_PAUSE prevents a busy loop. MAX_PAUSE applies while
# the child may reserve from other tubes, because a reserve that does not wait finds their jobs only then; IDLE_PAUSE
# applies while there are none.
MIN_PAUSE, MAX_PAUSE, IDLE_PAUSE = 0.005, 0.05, 0.25
# While tubes without a limit keep a child busy, it looks so often for jobs of those with one that gave none last, in
# seconds: to claim a token, and to watch other tubes at each job would cost more than a quick handler.
LOOK_ASIDE = 0.005
# If no token is due within this time, in seconds, a reserve may wait as long as usual.
RESERVE_WAIT = 1.0


@dataclass(frozen=True, slots=True)
class Admission:
    """The tubes that a child may reserve from now; perhaps none.

    If `wait` is None, a reserve may wait as long as usual, a second. Else a reserve must not wait, and if it finds no
    job the child looks again after `wait` seconds.
    """

    tubes: tuple[str, ...]
    wait: float | None = None


class Throttle:
    """The limits of all tubes. The pool's parent makes it before it forks; only the parent sets and clears.

    `gates` are those of routes (gates/).
    """

    def __init__(
        self,
        slots: int = MAX_SLOTS,
        tubes: int = 256,
        *,
        used: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`slots` is the maximum number of children, `tubes` that of tubes that ever have a limit.

        `used` is how many of the first slots may have had a child (None: all), until `expect` says more.
        """
        self._tubes = tubes
        self._clock = clock
        self._lock = ProcessLock()
        # pages that nobody touches take no memory
        self._entries = memoryview(mmap.mmap(-1, tubes * slots * ENTRY_BYTES)).cast("Q")
        self._memory = mmap.mmap(-1, tubes * BUCKET_BYTES)
        self._slots = slots
        self._used = memoryview(mmap.mmap(-1, mmap.PAGESIZE)).cast("Q")
        self._used[0] = slots if used is None else used
        self.gates = Gates(slots, self._lock, self._used, clock)
        self._buckets: dict[str, TokenBucket] = {}

    def set(self, limits: Sequence[Limit]) -> None:
        """Applies these limits, at the start and after a reload.

        A new tube starts with a full bucket, a known one keeps its tokens. A tube that is missing in `limits` keeps its
        last limit, because children from before the reload still reserve from it. Raises SettingsError, and changes
        nothing, if there have been more tubes than the memory has room for.
        """
        new = {limit.tube for limit in limits} - self._buckets.keys()
        if len(self._buckets) + len(new) > self._tubes:
            raise SettingsError(f"more than {self._tubes} tubes with a limit since the pool was started: restart it")
        # A child that is stopped while it has the lock must not stop the parent. Without the lock there is no refill
        # now, so the new rate also holds for the time since the last one.
        locked = self._lock.acquire(LOCK_TIMEOUT)
        try:
            for limit in limits:
                bucket = self._buckets.get(limit.tube)
                if bucket is None:
                    self._buckets[limit.tube] = self._new_bucket(limit)
                    continue
                if limit.shared:
                    # this host's share of it is set by `adjust`
                    continue
                if locked:
                    bucket.refill()
                bucket.set_limit(limit)
        finally:
            if locked:
                self._lock.release()

    def adjust(self, share: Limit, until: float) -> None:
        """Sets this host's share of a shared limit that was `set`, until then; called by the process that takes it."""
        bucket = self._buckets[share.tube]
        locked = self._lock.acquire(LOCK_TIMEOUT)
        try:
            bucket.adjust(share, until)
        finally:
            if locked:
                self._lock.release()

    def demand(self, tube: str) -> Demand:
        """What this host's children make of the limit of a tube that was `set`."""
        locked = self._lock.acquire(LOCK_TIMEOUT)
        try:
            return self._buckets[tube].demand()
        finally:
            if locked:
                self._lock.release()

    def expect(self, slot: int) -> None:
        """This slot is about to get a child. Called by the parent before it is forked."""
        self._used[0] = max(self._used[0], slot + 1)

    def clear(self, slot: int) -> None:
        """The child in this slot is gone: its claims and places are free. The tokens it consumed stay consumed."""
        for bucket in self._buckets.values():
            bucket.clear(slot)
        self.gates.clear(slot)

    def limiter(
        self, slot: int, free: Sequence[str], limited: Sequence[str], barred: Collection[str] = ()
    ) -> TubeLimiter:
        """The limiter of the child in this slot. `limited` are tubes that were `set`, `free` those without a limit.

        `barred` are tubes that were `set` and are for other children: of these it works single jobs (`take_alone`).
        """
        others = {tube: self._buckets[tube] for tube in barred}
        return TubeLimiter(slot, tuple(free), [self._buckets[tube] for tube in limited], self._lock, others)

    def place(self, slot: int, tubes: Sequence[str]) -> KeptPlace:
        """The place of the child in this slot. `tubes` were `set`: their `max_running` children are kept for them."""
        return KeptPlace(slot, [self._buckets[tube] for tube in tubes], self._lock, self._clock)

    def _new_bucket(self, limit: Limit) -> TokenBucket:
        index = len(self._buckets)
        entries = self._entries[index * self._slots : (index + 1) * self._slots]
        bucket = TokenBucket(limit.tube, entries, self._used, self._memory, index * BUCKET_BYTES, self._clock)
        bucket.fill(limit)
        return bucket


class TubeLimiter:
    """Lets one child reserve from the tubes that have a token and room for it.

    Single-threaded. A round is `admit`, then `start` if there is a job to work, then `finish` in any case.
    """

    def __init__(
        self,
        slot: int,
        free: tuple[str, ...],
        buckets: list[TokenBucket],
        lock: ProcessLock,
        barred: Mapping[str, TokenBucket] | None = None,
    ) -> None:
        """Made by `Throttle.limiter`, in the child."""
        self._barred = barred or {}
        self._slot = slot
        self._own = self._free = free
        self._buckets = {bucket.tube: bucket for bucket in buckets}
        self._lock = lock
        self._unlimited = Admission(free)
        # the tubes of the last reserve that went with the end of a job
        self._ahead: tuple[str, ...] = ()
        self._claimed: list[TokenBucket] = []
        self._running: TokenBucket | None = None
        self._lock_timeout = LOCK_TIMEOUT
        # until when a busy child leaves out the tubes with a limit
        self._aside_until = 0.0
        # calls of `admit` in a row at which other children had what we want
        self._contended = 0

    @property
    def patient(self) -> bool:
        """Whether nothing but a job changes what the child may reserve from: a reserve may wait for long."""
        return not self._buckets

    @property
    def several(self) -> bool:
        """Whether more than one job may be reserved `ahead`: nothing has a limit."""
        return not self._buckets

    def ahead(self) -> Sequence[str]:
        """The tubes for a reserve that goes with the end of a job: those that are within their limits now.

        Their tokens stay claimed for the next round if a job comes of it (see `finish`).
        """
        if not self._buckets:
            return self._free
        now = time.monotonic()
        if not self._free or now >= self._aside_until:
            self._aside_until = now + LOOK_ASIDE
            if not self._acquire_lock():
                return ()
            try:
                self._acquire_all()
            finally:
                self._lock.release()
        self._ahead = (*self._free, *[bucket.tube for bucket in self._claimed])
        return self._ahead

    def notice(self, tubes: Sequence[str]) -> None:
        """Also reserves from these tubes, until the next call: those of them that have no limit, and are not barred."""
        tubes = [tube for tube in tubes if tube not in self._buckets and tube not in self._barred]
        if tuple(tubes) != self._free[len(self._own) :]:
            self._free = (*self._own, *tubes)
            self._unlimited = Admission(self._free)

    def nothing_came(self) -> None:
        """The tubes of the last `admit` gave no job."""

    def admit(self, has_next: bool = False) -> Admission:
        """Claims the tokens that are there now. Never blocks for long.

        `has_next`: the next job has been reserved ahead.
        """
        if not self._buckets:
            return self._unlimited
        if has_next:
            return Admission(self._ahead)
        due, contended = math.inf, True
        if self._acquire_lock():
            try:
                due, contended = self._acquire_all()
            finally:
                self._lock.release()
        if contended:
            # Other children release their claims within a millisecond if a job comes; else they wait like us.
            pause = backoff.ceiling(self._contended, MIN_PAUSE, math.inf)
            due = min(due, pause if pause <= MAX_PAUSE else math.inf)
        self._contended = self._contended + 1 if contended else 0
        tubes = (*self._free, *[bucket.tube for bucket in self._claimed])
        return Admission(tubes, _wait(due, MAX_PAUSE if tubes else IDLE_PAUSE, some=bool(tubes)))

    def take_alone(self, tube: str) -> bool:
        """Claims a place for one job of a barred tube, which has come by another one; False if there is none now."""
        bucket = self._barred.get(tube)
        if bucket is None:
            return True
        if not self._acquire_lock():
            return False
        try:
            taken = bucket.acquire_alone(self._slot)
        finally:
            self._lock.release()
        if taken:
            self._claimed.append(bucket)
        return taken

    def start(self, tube: str) -> None:
        """An attempt at a job of this tube starts: consumes its token, and releases all other claims."""
        bucket = self._buckets.get(tube) or self._barred.get(tube)
        if bucket is not None:
            # Consumed from this store on. If we do not get the lock below, the bucket only refills a little later.
            bucket.consume(self._slot)
            self._running, self._aside_until = bucket, 0.0
        self.release_tokens()
        self._contended = 0
        if bucket is not None and bucket.paced and self._acquire_lock():
            try:
                bucket.refill()
            finally:
                self._lock.release()

    def release_tokens(self) -> None:
        """Releases all claims, because no job came."""
        for bucket in self._claimed:
            bucket.release(self._slot)
        self._claimed.clear()

    def finish(self, *, slow_down: bool = False, has_next: bool = False) -> None:
        """Ends the round, with or without a job: releases the place, and all claims.

        `slow_down` says that the target is overloaded. With `has_next` the next job has been reserved `ahead`: its
        claim stays, and so do the others until it starts.
        """
        if not has_next:
            self.release_tokens()
        bucket, self._running = self._running, None
        if bucket is None:
            return
        bucket.end_attempt(self._slot)
        if not (slow_down or bucket.slowed) or not self._acquire_lock():
            return
        try:
            pace = bucket.adjust_pace(overloaded=slow_down)
        finally:
            self._lock.release()
        if slow_down and pace is not None:
            where = fields(tube=bucket.tube, **bucket.in_words(pace))
            log.warning("target is overloaded: its tube is slowed down %s", where)

    def _acquire_all(self) -> tuple[float, bool]:
        """Call under the lock. Seconds until the next token, and whether other children have one that we want."""
        due, contended = math.inf, False
        for bucket in self._buckets.values():
            if bucket in self._claimed:
                continue
            wait = bucket.acquire(self._slot)
            if wait is None:
                contended = True
            elif wait > 0:
                due = min(due, wait)
            else:
                self._claimed.append(bucket)
        return due, contended

    def _acquire_lock(self) -> bool:
        """Takes the lock. If a stopped process has it, we wait the first time only, not at each call."""
        acquired = self._lock.acquire(self._lock_timeout)
        self._lock_timeout = LOCK_TIMEOUT if acquired else 0.0
        return acquired


def _wait(due: float, longest: float, *, some: bool) -> float | None:
    """The pause before the next look for a token that is due in `due` seconds; None: after a reserve of usual length.

    `longest` is the maximum pause, `some` whether there are tubes to reserve from meanwhile.
    """
    if due > RESERVE_WAIT:
        return None if some else longest
    # Equal parts: a short last one would be stretched to MIN_PAUSE, and the token would come late.
    return max(MIN_PAUSE, due / math.ceil(due / longest))
