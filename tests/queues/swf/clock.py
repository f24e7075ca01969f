"""The time of the SWF of tests, which tests may move on, and what is to happen at which time."""

from __future__ import annotations

import heapq
import time
from itertools import count
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Clock:
    """One for the whole service. All is called with the service's lock held."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._ahead = 0.0
        self._numbers = count()
        self._due: list[tuple[float, int, Callable[[], None]]] = []

    def now(self) -> float:
        """In seconds since 1970."""
        return self._clock() + self._ahead

    def skip(self, seconds: float) -> None:
        """So much time passes at once."""
        self._ahead += seconds

    def after(self, seconds: float, what: Callable[[], None]) -> None:
        heapq.heappush(self._due, (self.now() + seconds, next(self._numbers), what))

    def strike(self) -> bool:
        """Does what is due, in order; whether there was anything."""
        struck = False
        while self._due and self._due[0][0] <= self.now():
            heapq.heappop(self._due)[2]()
            struck = True
        return struck

    def until_next(self, most: float) -> float:
        """The time until something is due, in seconds; at most so much."""
        left = self._due[0][0] - self.now() if self._due else most
        return min(max(left, 0.0), most)
