"""How counts went on: the last minutes in full, a day by the minute. In memory, since the console started."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable

    from glassq.queues.base import TubeCounts

# Five minutes of samples of 5 s; a day of minutes.
RECENT, MINUTES = 60, 24 * 60


class CountSample(msgspec.Struct, frozen=True, gc=False):
    """The counts at one moment, a Unix time."""

    at: float
    ready: int
    working: int
    delayed: int
    buried: int

    @property
    def backlog(self) -> int:
        """All that is still to be worked."""
        return self.ready + self.working + self.delayed


def sample(at: float, tubes: Iterable[TubeCounts]) -> CountSample:
    """The sum of these tubes."""
    rows = list(tubes)
    return CountSample(
        at,
        sum(tube.ready for tube in rows),
        sum(tube.reserved for tube in rows),
        sum(tube.delayed for tube in rows),
        sum(tube.buried for tube in rows),
    )


@dataclass(slots=True)
class Curve:
    """The samples of one tube, or of all."""

    recent: deque[CountSample] = field(default_factory=lambda: deque(maxlen=RECENT))
    minutes: deque[CountSample] = field(default_factory=lambda: deque(maxlen=MINUTES))

    def add(self, sample: CountSample) -> None:
        """One more; the first of each minute is kept for a day."""
        self.recent.append(sample)
        if not self.minutes or sample.at // 60 > self.minutes[-1].at // 60:
            self.minutes.append(sample)

    def since(self, at: float) -> list[CountSample]:
        """The samples from then on, oldest first: of the last five minutes all, before these one a minute."""
        # another thread may add one meanwhile
        recent, minutes = list(self.recent), list(self.minutes)
        begin = recent[0].at if recent else 0.0
        return [each for each in (*(old for old in minutes if old.at < begin), *recent) if each.at >= at]
