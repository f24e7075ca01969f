"""Reserves jobs of beanstalkd and settles them with its commands.

beanstalkd cannot change a job's body. So a delivery's next form is a new job: the new job is put and proven first, then
the old one is deleted, never the other way round. A crash between the two makes a duplicate, never a loss.

Leases do not protect a connection that holds several jobs: beanstalkd 1.12 often leaves a job reserved long after its
lease has ended if the same connection has reserved another job since. Closing the connection frees all of them at once.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from glassq.errors import JobNotFound, NoProof, NotDurable, QueueError, QueueRefused
from glassq.queues.base import Reservation
from glassq.queues.beanstalk import commands
from glassq.queues.beanstalk.connection import whole_seconds
from glassq.queues.beanstalk.proof import prove

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from glassq.queues.beanstalk.commands import Command
    from glassq.queues.beanstalk.connection import BeanstalkConnection
    from glassq.queues.beanstalk.protocol import JobBody
    from glassq.queues.beanstalk.prover import Prover

# The form to be buried is put with this delay, in seconds, and then buried. After a crash in between, it becomes ready,
# still marked as buried, and the next consumer buries it.
BURY_DELAY = 60
# How long a proof may take, in seconds: less than the shortest lease.
PROOF = 4.5
# Who works a job extends its lease every third of it. Of a lease from this length on more is left than a proof takes.
LONG_LEASE = 10
# The shortest lease that the settings allow, in seconds. Only stats-job tells the lease of a job that was put earlier.
SHORTEST_LEASE = 5.0


class BeanstalkReceiver:
    """See `glassq.queues.base.Receiver`."""

    def __init__(self, connection: BeanstalkConnection, prover: Prover | None = None) -> None:
        """`prover` asks the syncer; None: there is no syncer, and beanstalkd's answers are proof enough."""
        self._connection = connection
        self._prover = prover
        # came with the end of another job
        self._next: Reservation | None = None

    def reserve(self, tubes: Sequence[str], wait: float) -> Reservation | None:
        if self._next is not None:
            held, self._next = self._next, None
            with suppress(JobNotFound):
                self._connection.check_held(int(held.ref))
                return held
        job = self._connection.reserve(whole_seconds(wait), tubes)
        return None if job is None else _reservation(job, tubes)

    @property
    def has_next(self) -> bool:
        return self._next is not None

    def filled(self, prefix: str) -> list[str]:
        names = [name for name in self._connection.tubes() if name.startswith(prefix)]
        found = map(self._connection.stats_tube, names)
        return [tube.name for tube in found if tube.ready or tube.reserved or tube.delayed or tube.buried]

    def interrupt(self) -> None:
        self._connection.interrupt()

    def examine(self, reservation: Reservation) -> Reservation:
        stats = self._connection.stats_job(int(reservation.ref))
        return Reservation(
            ref=reservation.ref,
            tube=stats.tube,
            body=reservation.body,
            lease=float(stats.ttr),
            losses=stats.lost,
            kicked=stats.kicks > 0,
        )

    def extend(self, reservation: Reservation) -> float:
        return float(self._connection.touch(int(reservation.ref)))

    def complete(
        self, reservation: Reservation, *, then: Sequence[str] = (), meanwhile: Callable[[], None] | None = None
    ) -> None:
        old = int(reservation.ref)
        if not then or self._next is not None:
            self._connection.delete(old, held=True)
            return
        self._connection.check_held(old)
        deleted, job = self._connection.delete_and_reserve(old, then, meanwhile)
        if job is not None:
            self._next = _reservation(job, then)
        if deleted is not None:
            raise deleted

    def retry(self, reservation: Reservation, body: bytes, *, delay: float, tube: str, then: Sequence[str] = ()) -> str:
        self._hold(reservation)
        following = self._connection.put(body, delay=whole_seconds(delay), tube=tube)
        self._hand_over(reservation, following, then)
        return str(following)

    def bury(self, reservation: Reservation, body: bytes | None = None, *, then: Sequence[str] = ()) -> str:
        if body is None:
            self._connection.bury(int(reservation.ref))
            return reservation.ref
        self._hold(reservation)
        # The new job is delayed until it is buried, so that no consumer works it meanwhile.
        following = self._connection.put(body, delay=BURY_DELAY, tube=reservation.tube)
        packet: list[Command[object]] = [commands.reserve_job(following), commands.bury(following)]
        for answer in self._connection.pipeline(packet):
            if isinstance(answer, QueueRefused):
                # The disk is full. beanstalkd 1.12 has lost track of the job now, and finds it again as it starts.
                self._withdraw(following)
            if isinstance(answer, QueueError):
                raise answer
        # one proof for both records, of the put and of the bury
        self._hand_over(reservation, following, then)
        return str(following)

    def release(self, reservation: Reservation) -> None:
        # Without a delay: a full disk has no room to record one, and beanstalkd would lose track of the job.
        self._connection.release(int(reservation.ref))

    def close(self) -> None:
        held, self._next = self._next, None
        if held is not None:
            with suppress(QueueError):
                self.release(held)
        self._connection.close()
        if self._prover is not None:
            self._prover.close()

    def close_inherited(self) -> None:
        self._connection.close_inherited()
        if self._prover is not None:
            self._prover.close_inherited()

    def _hold(self, reservation: Reservation) -> None:
        """Nobody else gets the old form while the new one is proven. Raises JobNotFound if somebody has it."""
        self._connection.check_held(int(reservation.ref))
        if self._connection.ttr < LONG_LEASE:
            self.extend(reservation)

    def _hand_over(self, reservation: Reservation, following: int, then: Sequence[str]) -> None:
        """Proves the new job, then deletes the old one. The new one is deleted where that fails.

        If another consumer has the old job by now, its attempt counts.
        """
        try:
            prove(self._connection, [following], self._prover, within=PROOF)
            self.complete(reservation, then=then)
        except (NotDurable, NoProof, JobNotFound):
            self._withdraw(following)
            raise

    def _withdraw(self, following: int) -> None:
        # the connection is in step, unless it broke meanwhile
        with suppress(QueueError):
            self._connection.delete(following)


def _reservation(job: JobBody, tubes: Sequence[str]) -> Reservation:
    return Reservation(str(job.id), tubes[0] if len(tubes) == 1 else "", job.body, SHORTEST_LEASE)
