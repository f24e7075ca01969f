"""Jobs reserved ahead of the current one, and finished jobs whose deletes are batched.

Where one job after the other is worked in no time, several come with one statement, and their ends go with the next.
"""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from glassq.errors import JobNotFound, QueueError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from glassq.queues.base import Reservation

# As many jobs come with a statement as the last one has brought and were worked in time, times two, up to MOST. What
# waits for longer than QUICK seconds behind others goes back, and what is done by then is deleted.
MOST, QUICK = 8, 0.02


class Ended(NamedTuple):
    """A job that is done, as it was at its reserve; `failed` is told why it could not be deleted."""

    number: int
    token: int
    failed: Callable[[QueueError], None]


def lost() -> JobNotFound:
    return JobNotFound("not reserved on this connection, or its lease has ended")


class Ahead:
    """Those of one receiver."""

    def __init__(self) -> None:
        self.jobs: deque[Reservation] = deque()
        #: how many may come with the next statement
        self.most = 1
        self._ended: list[Ended] = []
        self._until = self._fresh_until = 0.0

    @property
    def may_hold(self) -> int:
        """How many jobs beside the one in hand are reserved, or may be once that ends."""
        return len(self._ended) + (len(self.jobs) or self.most - 1)

    @property
    def is_late(self) -> bool:
        """Whether something has waited for too long."""
        return bool(self.jobs or self._ended) and time.monotonic() > self._until

    @property
    def is_stale(self) -> bool:
        """Whether half of the lease of what waits is over: who begins with it now may lose it before an extension."""
        return bool(self.jobs) and time.monotonic() > self._fresh_until

    def came(self, jobs: Sequence[Reservation], asked: int, at: float) -> None:
        """These came with a statement that asked for so many, and began at this time.monotonic()."""
        self.hold(jobs, at)
        self.most = min(MOST, 2 * asked) if len(jobs) == asked else max(1, len(jobs))
        self._until = time.monotonic() + QUICK

    def hold(self, jobs: Sequence[Reservation], at: float) -> None:
        """The next reserves return these; their leases began after `at`."""
        self.jobs.extend(jobs)
        self._fresh_until = at + min((job.lease for job in jobs), default=0.0) / 2

    def end(self, ended: Ended) -> None:
        self._ended.append(ended)

    def end_all(self, end: Callable[[list[int], list[int]], list[int]]) -> None:
        """Ends all that are done, by their numbers and tokens: `end` returns the numbers of those that were there.

        What has gone wrong is told to `failed` of each. Raises the QueueError of `end`.
        """
        if not (ended := self.take_ended()):
            return
        try:
            gone = set(end([each.number for each in ended], [each.token for each in ended]))
        except QueueError as error:
            for each in ended:
                each.failed(error)
            raise
        for each in ended:
            if each.number not in gone:
                each.failed(lost())

    def take_ended(self) -> list[Ended]:
        """Those that are done and not deleted; nobody else will see them."""
        ended, self._ended = self._ended, []
        return ended

    def take_late(self) -> list[Reservation]:
        """Those that wait, which shall go back. The next one comes alone."""
        jobs = list(self.jobs)
        self.jobs.clear()
        self.most = 1
        return jobs
