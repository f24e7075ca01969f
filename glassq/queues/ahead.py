"""Jobs that a receiver has reserved ahead of the current one, and how many may come at once.

Where one job after the other is worked in no time, several come with the end of one: twice as many each time, while
there are as many and the last ones were worked in time.
"""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from glassq.queues.base import Reservation


class JobsAhead:
    """Those of one receiver."""

    def __init__(self, limit: int, quick: float) -> None:
        """At most `limit` come at once. Those that have waited for more than `quick` seconds behind others go back."""
        self.jobs: deque[Reservation] = deque()
        #: how many may come with the end of a quick job
        self.most = 1
        self._limit = limit
        self._quick = quick
        self._until = self._fresh_until = 0.0

    @property
    def may_hold(self) -> int:
        """How many jobs beside the one in hand are reserved, or may be once that ends."""
        return len(self.jobs) or self.most - 1

    @property
    def is_over(self) -> bool:
        """Whether the last that came had their time: what is worked now is not quick."""
        return time.monotonic() > self._until

    @property
    def is_late(self) -> bool:
        """Whether a job has waited for too long."""
        return bool(self.jobs) and self.is_over

    @property
    def is_stale(self) -> bool:
        """Whether half of the lease of what waits is over: who begins with it now may lose it before an extension."""
        return bool(self.jobs) and time.monotonic() > self._fresh_until

    def hold(self, jobs: Sequence[Reservation], at: float) -> None:
        """The next reserves return these; their leases began after `at` (time.monotonic())."""
        if jobs:
            self.jobs.extend(jobs)
            self._fresh_until = at + min(job.lease for job in jobs) / 2

    def asked(self, most: int) -> None:
        """What waits now came with the end of a job, which asked for so many."""
        self.most = min(self._limit, 2 * most) if len(self.jobs) == most else max(1, len(self.jobs))
        self._until = time.monotonic() + self._quick
