"""Jobs that a receiver has reserved ahead of the current one, how many may come at once, and those that are done.

Where one job after the other is worked in no time, several come with the end of one: twice as many each time, while
there are as many and the last ones were worked in time. Their ends may go together with the next request.
"""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Generic, TypeVar

from glassq.errors import QueueError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from glassq.queues.base import Reservation

T = TypeVar("T")


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

    def take_late(self) -> list[Reservation]:
        """Those that wait, which shall go back. The next one comes alone."""
        jobs = list(self.jobs)
        self.jobs.clear()
        self.most = 1
        return jobs


class EndsTogether(JobsAhead, Generic[T]):
    """Those of one receiver, and its jobs that are done and not deleted yet; T is what an engine knows of such a job.

    What is done has `quick` seconds, as what waits.
    """

    def __init__(self, limit: int, quick: float) -> None:
        super().__init__(limit, quick)
        # each with whom to tell why it could not be deleted
        self._ended: list[tuple[T, Callable[[QueueError], None]]] = []

    @property
    def may_hold(self) -> int:
        """As in JobsAhead; with those that are done and not deleted."""
        return len(self._ended) + super().may_hold

    @property
    def is_late(self) -> bool:
        """Whether something has waited for too long."""
        return bool(self.jobs or self._ended) and self.is_over

    def end(self, job: T, failed: Callable[[QueueError], None]) -> None:
        """This one is done."""
        self._ended.append((job, failed))

    def end_all(self, end: Callable[[list[T]], Sequence[QueueError | None]]) -> None:
        """Ends all that are done: `end` returns for each why it may still be there.

        What has gone wrong is told to `failed` of each. Raises the QueueError of `end`.
        """
        ended, self._ended = self._ended, []
        if not ended:
            return
        try:
            errors = end([job for job, _ in ended])
        except QueueError as error:
            for _, failed in ended:
                failed(error)
            raise
        for (_, failed), why in zip(ended, errors, strict=True):
            if why is not None:
                failed(why)

    def drop_ended(self, why: QueueError | None = None) -> None:
        """Those that are done are not deleted, for this reason; None: they are somebody else's."""
        ended, self._ended = self._ended, []
        for _, failed in ended:
            if why is not None:
                failed(why)
