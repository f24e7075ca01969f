"""How often somebody may ask, and try to sign in."""

from __future__ import annotations

import math
import threading
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

from glassq.console.troubles import refused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Of more than this many, those that have been quiet are forgotten.
_MOST = 10_000
# After how many seconds a place may be free again.
RETRY = 2


class RequestRate:
    """At most `rate` requests a second for each key, after a burst of so many."""

    def __init__(self, rate: float, burst: float, clock: Callable[[], float]) -> None:
        self._rate, self._burst, self._clock = rate, burst, clock
        self._lock = threading.Lock()
        # how much is left, and when that was
        self._left: dict[str, tuple[float, float]] = {}

    def admit(self, key: str) -> int:
        """0 if it may ask now; else after how many seconds it may."""
        now = self._clock()
        with self._lock:
            left, at = self._left.get(key, (self._burst, now))
            left = min(self._burst, left + (now - at) * self._rate)
            if left < 1:
                return math.ceil((1 - left) / self._rate)
            self._left[key] = left - 1, now
            if len(self._left) > _MOST:
                full = self._burst / self._rate
                self._left = {each: (much, since) for each, (much, since) in self._left.items() if now - since < full}
        return 0


class ConcurrencyLimit:
    """So many may do something slow at a time, and so many of one key: threads are left for what cannot wait."""

    def __init__(self, most: int, each: int, what: str) -> None:
        """`what` they do, in words."""
        self._most, self._each, self._what = most, each, what
        self._lock = threading.Lock()
        self._taken: Counter[str] = Counter()

    @contextmanager
    def one(self, key: str) -> Iterator[None]:
        """A place while the block goes on. Raises Refused at once where all are taken."""
        with self._lock:
            own = self._taken[key]
            if own >= self._each or self._taken.total() >= self._most:
                which = f"{own} of yours" if own >= self._each else f"{self._taken.total()}"
                words = f"as many {self._what} go on as may: {which}"
                raise refused(429, words, "try again in a moment", RETRY)
            self._taken[key] += 1
        try:
            yield
        finally:
            with self._lock:
                self._taken[key] -= 1
                self._taken += Counter()


class Tries:
    """After so many failed tries of one key, none is looked at for `pause` seconds."""

    def __init__(self, most: int, pause: float, clock: Callable[[], float]) -> None:
        self._most, self._pause, self._clock = most, pause, clock
        self._lock = threading.Lock()
        # how many failed, and when the last one did
        self._failed: dict[str, tuple[int, float]] = {}

    def blocked(self, key: str) -> int:
        """0 if it may try now; else after how many seconds it may."""
        with self._lock:
            failed, at = self._failed.get(key, (0, 0.0))
            left = at + self._pause - self._clock()
            if left <= 0:
                self._failed.pop(key, None)
                return 0
            return math.ceil(left) if failed >= self._most else 0

    def failed(self, key: str) -> None:
        """One more try failed."""
        now = self._clock()
        with self._lock:
            self._failed[key] = self._failed.get(key, (0, 0.0))[0] + 1, now
            if len(self._failed) > _MOST:
                self._failed = {each: told for each, told in self._failed.items() if now - told[1] < self._pause}

    def succeeded(self, key: str) -> None:
        """Its failures count no longer."""
        with self._lock:
            self._failed.pop(key, None)
