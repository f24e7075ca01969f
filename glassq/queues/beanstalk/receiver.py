"""Reserves jobs of beanstalkd and settles them with its commands.

beanstalkd cannot change a job's body. So a delivery's next form is a new job: the new job is put first, then the old
one is deleted, never the other way round. A crash between the two makes a duplicate, never a loss.

Leases do not protect a connection that holds several jobs: beanstalkd 1.12 often leaves a job reserved long after its
lease has ended if the same connection has reserved another job since. Closing the connection frees all of them at once.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from glassq.errors import JobNotFound
from glassq.queues.base import Reservation
from glassq.queues.beanstalk.connection import whole_seconds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from glassq.queues.beanstalk.connection import BeanstalkConnection

# The form to be buried is put with this delay, in seconds, and then buried. After a crash in between, it becomes ready,
# still marked as buried, and the next consumer buries it.
BURY_DELAY = 60


class BeanstalkReceiver:
    """See `glassq.queues.base.Receiver`."""

    def __init__(self, connection: BeanstalkConnection) -> None:
        self._connection = connection

    def reserve(self, tubes: Sequence[str], wait: float, finished: Reservation | None = None) -> Reservation | None:
        if finished is not None:
            self.complete(finished)
        job = self._connection.reserve(whole_seconds(wait), tubes)
        if job is None:
            return None
        stats = self._connection.stats_job(job.id)
        return Reservation(
            ref=str(job.id),
            tube=stats.tube,
            body=job.body,
            lease=float(stats.ttr),
            losses=stats.lost,
            kicked=stats.kicks > 0,
            undelayed=not (stats.delay or stats.kicks),
            durable=stats.file > 0,
        )

    def extend(self, reservation: Reservation) -> None:
        self._connection.touch(int(reservation.ref))

    def complete(self, reservation: Reservation) -> None:
        self._connection.delete(int(reservation.ref), held=True)

    def retry(self, reservation: Reservation, body: bytes, *, delay: float, tube: str) -> str:
        self._connection.check_held(int(reservation.ref))
        following = self._connection.put(body, delay=whole_seconds(delay), tube=tube)
        self._hand_over(reservation, following)
        return str(following)

    def bury(self, reservation: Reservation, body: bytes | None = None) -> str:
        if body is None:
            self._connection.bury(int(reservation.ref))
            return reservation.ref
        self._connection.check_held(int(reservation.ref))
        # The new job is delayed until it is buried, so that no consumer works it meanwhile.
        following = self._connection.put(body, delay=BURY_DELAY, tube=reservation.tube)
        self._connection.reserve_job(following)
        self._connection.bury(following)
        self._hand_over(reservation, following)
        return str(following)

    def release(self, reservation: Reservation) -> None:
        # Without a delay: a full disk has no room to record one, and beanstalkd would lose track of the job.
        self._connection.release(int(reservation.ref))

    def close(self) -> None:
        self._connection.close()

    def close_inherited(self) -> None:
        self._connection.close_inherited()

    def _hand_over(self, reservation: Reservation, following: int) -> None:
        """Deletes the old job. If another consumer has it by now, its attempt counts, and the new job is deleted."""
        try:
            self.complete(reservation)
        except JobNotFound:
            with suppress(JobNotFound):
                self._connection.delete(following)
            raise
