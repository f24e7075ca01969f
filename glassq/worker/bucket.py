"""One tube's token bucket in shared memory, and the lock that guards it. throttle.py describes the whole."""

from __future__ import annotations

import fcntl
import math
import os
import struct
import tempfile
import threading
import time
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from glassq import descriptors
from glassq.values import Rate

if TYPE_CHECKING:
    import mmap
    from collections.abc import Callable

# The pace is the share of a tube's rate and capacity that is in force. An overloaded target halves it, down to
# MIN_PACE, at most once in ADJUST_INTERVAL seconds. An answer without overload adds PACE_STEP, if the pace has not
# changed for ADJUST_INTERVAL seconds. The pace doubles after each RECOVERY_INTERVAL seconds without a change, so that
# a tube without answers recovers too.
ADJUST_INTERVAL, RECOVERY_INTERVAL = 1.0, 30.0
MIN_PACE, PACE_STEP = 1 / 64, 1 / 16

# A slot's entry in a bucket is one word: tokens consumed so far << 24 | running attempts << 12 | claims. The sum of all
# entries has the same fields.
_CLAIMED, _RUNNING, _CONSUMED = 1, 1 << 12, 1 << 24
_FIELD = (1 << 12) - 1
# The memory of a bucket in words of 8 bytes: its limit, which copy of the state is valid, the two copies, until
# when a place is left for an attempt that must be alone, until when the limit is ours (0: for good), and when a child
# last wanted more than it allows.
_RATE, _CAPACITY, _MAX_RUNNING, _VALID, _COPIES, _LEFT_UNTIL, _OURS_UNTIL, _WANTED_AT = 0, 1, 2, 3, 4, 16, 17, 18
_WORDS, _WORD = 19, 8
# The memory that a bucket takes, and the entry of one slot in it; in bytes.
BUCKET_BYTES, ENTRY_BYTES = _WORDS * _WORD, _WORD
# tokens, time of the last refill, tokens consumed by then, pace, when it changed, when it was last halved
_STATE = struct.Struct("@6d")
_PACE = 3
# The rate of a tube that only `max_running` limits, in tokens per second.
UNLIMITED = float(Rate.MAX)
# Rounding may leave the sum of fractions this much short of a whole token.
_ROUNDING = 1e-9
# A child that waits for tokens or places asks at least once in this time, in seconds.
_ASKS = 2.0
# How long a place is left for an attempt that must be alone and found none, in seconds.
LEAVE = 10.0
# How long a child waits for the lock, in seconds. A process has it for microseconds.
LOCK_TIMEOUT = 0.02
# The pause between two tries for the lock, in seconds.
LOCK_RETRY = 0.0002


@dataclass(frozen=True, slots=True)
class Limit:
    """The limit of one tube.

    `rate` is in tokens per second (0: nothing is delivered). `bucket` is the capacity of the bucket in tokens, 1 or
    more. `max_running` is how many attempts may run at once (None: any number). `shared`: it is the limit of all hosts,
    and a process beside the children takes this one's share (host_shares.py).
    """

    tube: str
    rate: float
    bucket: int
    max_running: int | None = None
    shared: bool = False


@dataclass(frozen=True, slots=True)
class Demand:
    """What a host's children make of a limit.

    `in_use` attempts run, or may begin at any moment; `consumed` tokens in all so far; `hungry`: a child has wanted
    more than the limit allows, and that was now.
    """

    in_use: int
    consumed: int
    hungry: bool


class TokenBucket:
    """The limit and the tokens of one tube, shared by all processes of the pool."""

    def __init__(
        self,
        tube: str,
        entries: memoryview,
        used: memoryview,
        memory: mmap.mmap,
        start: int,
        clock: Callable[[], float],
    ) -> None:
        """`entries` has a word for each slot; the first word of `used` says how many of them there are to look at.

        The bucket's own memory begins at `start`.
        """
        self.tube = tube
        self._clock = clock
        self._entries = entries
        self._used = used
        self._memory = memory
        self._start = start
        self._words = memoryview(memory)[start : start + _WORDS * _WORD].cast("d")

    # -- for the parent -----------------------------------------------------------------------------------------------

    def fill(self, limit: Limit) -> None:
        """Sets the limit of a new bucket, and fills the bucket."""
        self.set_limit(limit)
        now = self._clock()
        self._words[_OURS_UNTIL] = -1.0 if limit.shared else 0.0
        self._store(float(limit.bucket), now, 0.0, 1.0, now, -math.inf)

    def set_limit(self, limit: Limit) -> None:
        """Replaces the limit."""
        self._words[_RATE] = limit.rate
        self._words[_CAPACITY] = float(limit.bucket)
        self._words[_MAX_RUNNING] = math.inf if limit.max_running is None else float(limit.max_running)

    def adjust(self, limit: Limit, until: float) -> None:
        """Sets this host's share of a limit, which is ours until then. Call under the lock."""
        self.refill()
        self.set_limit(limit)
        self._words[_OURS_UNTIL] = until

    def demand(self) -> Demand:
        """What the children make of it. Call under the lock."""
        entries = self._sum()
        in_use = (entries & _FIELD) + (entries >> 12 & _FIELD)
        wanted = self._words[_WANTED_AT]
        return Demand(in_use, entries // _CONSUMED, wanted > 0 and self._clock() - wanted < _ASKS)

    # -- without the lock: one store into the slot's entry ------------------------------------------------------------

    def consume(self, slot: int) -> None:
        """A job came: a token is consumed, the slot's claim on it ends, and an attempt runs."""
        self._entries[slot] = (self._entries[slot] & ~_CLAIMED | _RUNNING) + _CONSUMED

    def release(self, slot: int) -> None:
        """Releases the slot's claim."""
        self._entries[slot] &= ~_CLAIMED

    def end_attempt(self, slot: int) -> None:
        """The slot's attempt is over."""
        self._entries[slot] &= ~_RUNNING

    def clear(self, slot: int) -> None:
        """The slot has neither a claim nor a running attempt."""
        self._entries[slot] &= ~(_CLAIMED | _RUNNING)

    # -- under the lock -----------------------------------------------------------------------------------------------

    def acquire(self, slot: int) -> float | None:
        """Claims a token for the slot; 0 if that worked.

        Else the number of seconds until there may be a token, or None if that depends on claims and attempts of others.
        """
        tokens, entries = self.refill()
        claims, running = entries & _FIELD, entries >> 12 & _FIELD
        pace = self._load()[_PACE]
        rate = self.rate * pace
        now = self._clock()
        if rate <= 0 or 0 != self._words[_OURS_UNTIL] < now:
            self._words[_WANTED_AT] = now
            return math.inf
        left = self._words[_LEFT_UNTIL] > now
        if claims + running + left >= self._places(pace):
            self._words[_WANTED_AT] = now
            return None
        if tokens - claims >= 1 - _ROUNDING:
            self._entries[slot] |= _CLAIMED
            return 0.0
        self._words[_WANTED_AT] = now
        # Time alone brings no token while the claims of others cover all that the bucket can hold.
        return (claims + 1 - tokens) / rate if claims + 1 <= self._capacity(pace) else None

    def acquire_alone(self, slot: int) -> bool:
        """Claims a place for an attempt that is worked alone. If there is none, the next one is left for it."""
        entries = self._sum()
        if (entries & _FIELD) + (entries >> 12 & _FIELD) >= self._words[_MAX_RUNNING]:
            self._words[_LEFT_UNTIL] = self._clock() + LEAVE
            return False
        self._words[_LEFT_UNTIL] = 0.0
        self._entries[slot] |= _CLAIMED
        return True

    def crowded(self) -> bool:
        """Whether more attempts run than may."""
        running = self._sum() >> 12 & _FIELD
        return running > float(self._words[_MAX_RUNNING])

    def refill(self) -> tuple[float, int]:
        """Adds the tokens of the time since the last refill, and subtracts those consumed since then.

        Returns the tokens, which claims have not reduced, and the sum of all entries.
        """
        tokens, at, counted, pace, changed, halved = self._load()
        entries = self._sum()
        consumed = float(entries // _CONSUMED)
        # Read the clock after the entries: an earlier time would refill the place of a token that is consumed only now.
        now = max(self._clock(), at)
        tokens = min(self._capacity(pace), tokens + (now - at) * self.rate * pace) - (consumed - counted)
        if pace < 1 and now - changed >= RECOVERY_INTERVAL:
            intervals = (now - changed) // RECOVERY_INTERVAL
            pace, changed = min(1.0, pace * 2.0 ** min(intervals, 10)), changed + intervals * RECOVERY_INTERVAL
        self._store(tokens, now, consumed, pace, changed, halved)
        return tokens, entries

    def adjust_pace(self, *, overloaded: bool) -> float | None:
        """Adjusts the pace to an answer of the target; the new pace, or None if it stays."""
        self.refill()
        tokens, at, counted, before, changed, halved = self._load()
        pace = before
        if overloaded and at - halved >= ADJUST_INTERVAL:
            pace, changed, halved = max(MIN_PACE, before / 2), at, at
        elif not overloaded and at - changed >= ADJUST_INTERVAL:
            pace, changed = min(1.0, before + PACE_STEP), at
        self._store(tokens, at, counted, pace, changed, halved)
        return pace if pace != before else None

    @property
    def rate(self) -> float:
        """Tokens per second at full pace."""
        rate: float = self._words[_RATE]
        return rate

    @property
    def paced(self) -> bool:
        """Whether tokens may run out: else only the number of attempts is limited, and no refill need be exact."""
        return self.rate < Rate.MAX

    @property
    def slowed(self) -> bool:
        """Whether an overloaded target has reduced the pace."""
        return self._load()[_PACE] < 1

    def in_words(self, pace: float) -> dict[str, str]:
        """What a pace makes of the limit, for the log."""
        if self.rate < UNLIMITED:
            return {"rate": f"{self.rate * pace:.3g}/s", "full": f"{self.rate:.3g}/s"}
        return {"at_once": f"{self._places(pace):.0f}", "full": f"{self._words[_MAX_RUNNING]:.0f}"}

    def _sum(self) -> int:
        """The sum of all entries. Most slots never have a child, and to add them up would take longer than all else."""
        found: int = sum(self._entries[: self._used[0]].tolist())
        return found

    def _places(self, pace: float) -> float:
        """How many attempts may run at once. Where nothing limits the rate, an overloaded target gets fewer of them."""
        most: float = self._words[_MAX_RUNNING]
        return most if pace >= 1 or self.rate < UNLIMITED else max(1.0, most * pace // 1)

    def _capacity(self, pace: float) -> float:
        capacity: float = self._words[_CAPACITY] * pace
        return max(1.0, capacity)

    def _load(self) -> tuple[float, float, float, float, float, float]:
        return _STATE.unpack_from(self._memory, self._copy(int(self._words[_VALID])))

    def _store(self, *state: float) -> None:
        """Writes the copy that is not valid, then makes it the valid one by a single store."""
        other = 1 - int(self._words[_VALID])
        _STATE.pack_into(self._memory, self._copy(other), *state)
        self._words[_VALID] = float(other)

    def _copy(self, number: int) -> int:
        return self._start + _COPIES * _WORD + number * _STATE.size


class ProcessLock:
    """A lock among processes, and the threads of each. The kernel frees it when its process dies.

    A forked child does not inherit it.
    """

    def __init__(self) -> None:
        # the kernel knows processes only
        self._threads = threading.Lock()
        made, path = tempfile.mkstemp(prefix="glassq-lock-")
        Path(path).unlink()
        self._file = descriptors.aside(made)
        weakref.finalize(self, os.close, self._file)
        descriptors.own(self, "the lock of the limits")

    def fileno(self) -> int:
        """The descriptor of its file."""
        return self._file

    def acquire(self, timeout: float) -> bool:
        """Takes the lock; False if another process still has it after `timeout` seconds."""
        if not self._threads.acquire(timeout=timeout):
            return False
        if self._acquire_file(timeout):
            return True
        self._threads.release()
        return False

    def release(self) -> None:
        """Frees the lock."""
        fcntl.lockf(self._file, fcntl.LOCK_UN)
        self._threads.release()

    def _acquire_file(self, timeout: float) -> bool:
        deadline = 0.0
        while True:
            try:
                fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            except (BlockingIOError, PermissionError):
                # POSIX allows either error
                deadline = deadline or time.monotonic() + timeout
                if time.monotonic() >= deadline:
                    return False
            time.sleep(LOCK_RETRY)
