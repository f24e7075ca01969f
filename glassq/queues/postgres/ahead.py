"""Jobs reserved ahead of the current one, and finished jobs whose deletes are batched.

Where one job after the other is worked in no time, several come with one statement, and their ends go with the next.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from glassq.errors import JobNotFound, QueueError
from glassq.queues.ahead import JobsAhead

if TYPE_CHECKING:
    from collections.abc import Callable

    from glassq.queues.base import Reservation

# At most so many come with a statement. What waits for longer than QUICK seconds behind others goes back, and what is
# done by then is deleted.
MOST, QUICK = 8, 0.02


class Ended(NamedTuple):
    """A job that is done, as it was at its reserve; `failed` is told why it could not be deleted."""

    number: int
    token: int
    failed: Callable[[QueueError], None]


def lost() -> JobNotFound:
    return JobNotFound("not reserved on this connection, or its lease has ended")


class Ahead(JobsAhead):
    """Those of one receiver."""

    def __init__(self) -> None:
        super().__init__(MOST, QUICK)
        self._ended: list[Ended] = []

    @property
    def may_hold(self) -> int:
        """As in JobsAhead; with those that are done and not deleted."""
        return len(self._ended) + super().may_hold

    @property
    def is_late(self) -> bool:
        """Whether something has waited for too long."""
        return bool(self.jobs or self._ended) and self.is_over

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
