"""How often somebody may ask, and try to sign in."""

from __future__ import annotations

import math
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

# Of more than this many, those that have been quiet are forgotten.
_MOST = 10_000


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
