"""Reserves jobs of beanstalkd, and turns what became of them into its commands.

beanstalkd changes no job's body. So a delivery's next form is a new job: it is put first and the old job is deleted
then, never the other way round. A crash between the two makes a duplicate, never a loss.

A lease is no safety net for a connection that holds several jobs: beanstalkd 1.12 often leaves a job reserved long
after its lease where the same connection has reserved another one since. The end of the connection frees all at once.
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

# A delivery being buried is put with this delay, in seconds, until it is really buried. Should we die in between, it
# comes back ready, still marked as buried, and is buried then.
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
        # The new job is delayed until it is buried, so that nobody works it meanwhile.
        following = self._connection.put(body, delay=BURY_DELAY, tube=reservation.tube)
        self._connection.reserve_job(following)
        self._connection.bury(following)
        self._hand_over(reservation, following)
        return str(following)

    def release(self, reservation: Reservation) -> None:
        # Without a delay: a full disk has no room to write one down, and beanstalkd would lose hold of the job.
        self._connection.release(int(reservation.ref))

    def close(self) -> None:
        self._connection.close()

    def close_inherited(self) -> None:
        self._connection.close_inherited()

    def _hand_over(self, reservation: Reservation, following: int) -> None:
        """Ends the old job. Where somebody else has it by now, that attempt goes on alone, without the new one."""
        try:
            self.complete(reservation)
        except JobNotFound:
            with suppress(JobNotFound):
                self._connection.delete(following)
            raise
