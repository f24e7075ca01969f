"""Which tubes a receiver asks, one after the other: none that an operator has paused, and another one first each time.

These services give jobs of one tube a call.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence


class TubesInTurn:
    """Those of one receiver."""

    def __init__(self, paused: Callable[[], Iterable[str]], look: float) -> None:
        """`paused` asks which tubes are paused, and raises QueueError; its answer holds for `look` seconds."""
        self._look_at = paused
        self._look = look
        #: those that are paused, as far as was seen
        self.paused: frozenset[str] = frozenset()
        self._until = 0.0
        self._turn = 0

    def open(self, tubes: Sequence[str], *, anew: bool = False) -> list[str]:
        """Those that nobody has paused, as far as was seen lately; `anew`: as it is now."""
        now = time.monotonic()
        if anew or now >= self._until:
            # what was seen last holds where this fails
            self._until = now + self._look
            self.paused = frozenset(self._look_at())
        return [tube for tube in tubes if tube not in self.paused]

    def in_turn(self, tubes: Sequence[str]) -> list[str]:
        """As `open`; each time another one of them comes first."""
        open_tubes = self.open(tubes)
        self._turn += 1
        first = self._turn % len(open_tubes) if open_tubes else 0
        return open_tubes[first:] + open_tubes[:first]
