"""Reserves jobs of beanstalkd and settles them with its commands.

beanstalkd cannot change a job's body. So a delivery's next form is a new job: the new job is put and proven first, then
the old one is deleted, never the other way round. A crash between the two makes a duplicate, never a loss.

Leases do not protect a connection that holds several jobs: beanstalkd 1.12 often leaves a job reserved long after its
lease has ended if the same connection has reserved another job since. Closing the connection frees all of them at once.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from glassq.errors import JobNotFound, JobTooBig, NoProof, NotDurable, QueueError, QueueRefused
from glassq.queues.ahead import JobsAhead
from glassq.queues.base import MAX_UNPROVEN, MAX_UNPROVEN_MOVES, Reservation
from glassq.queues.beanstalk import commands
from glassq.queues.beanstalk.connection import whole_seconds
from glassq.queues.beanstalk.handover import HandOver, HandOvers
from glassq.queues.beanstalk.proof import prove

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

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
# While one job after the other is moved, so many are reserved at once at most: their packet costs little more than that
# of one. They are so few that they are moved long before their leases end.
MAX_AHEAD = 32
# At most so many quick jobs come in a packet. Those that have waited for more than QUICK seconds behind others go back.
MOST_QUICK, QUICK = 16, 0.05
# The proof of moved jobs is asked for after so long, in seconds, so that it serves those that come meanwhile.
ASK_AFTER = 0.1
_GONE = "not reserved on this connection"


class _Move(NamedTuple):
    """A job that goes into another tube, once `_send_moves` is called on the same `connection`."""

    reservation: Reservation
    connection: int
    body: bytes
    tube: str
    put: Callable[[str], None]
    failed: Callable[[QueueError], None]


class BeanstalkReceiver:
    """See `glassq.queues.base.Receiver`."""

    def __init__(self, connection: BeanstalkConnection, prover: Prover | None = None) -> None:
        """`prover` asks the syncer; None: there is no syncer, and beanstalkd's answers are proof enough."""
        self._connection = connection
        self._prover = prover
        # reserved in a packet that ended or moved other jobs, oldest first; and what is to be moved with the next one
        self._ahead = JobsAhead(MOST_QUICK, QUICK)
        self._moving: list[_Move] = []
        # how many have been moved since a handler worked one
        self._moved = 0
        # next forms whose proof is not awaited; and why some of them could not be proven, for the next `reserve`
        self._hand_overs = None if prover is None else HandOvers(prover)
        self._failure: QueueError | None = None

    def reserve(self, tubes: Sequence[str], wait: float) -> Reservation | None:
        self._raise_failure()
        ahead = self._ahead.jobs
        if self._ahead.is_stale:
            self._send_moves(())
        if not ahead:
            self._send_moves(tubes)
        if self._hand_overs:
            self._settle(wait=False, then=tubes)
            if not ahead and self._hand_overs and (job := self._connection.reserve(0, tubes)):
                return _reservation(job, tubes)
            # there is nothing to do but to wait for proofs
            while not ahead and self._hand_overs:
                self._settle(wait=True, then=tubes)
            self._raise_failure()
        while ahead:
            held = ahead.popleft()
            if self._connection.holds(int(held.ref)):
                return held
        job = self._connection.reserve(whole_seconds(wait), tubes)
        return None if job is None else _reservation(job, tubes)

    @property
    def has_next(self) -> bool:
        return bool(self._ahead.jobs)

    def begin(self) -> None:
        moved, self._moved = self._moved, 0
        if moved:
            self._send_moves(())
        else:
            self._give_back_late()

    def filled(self, prefixes: tuple[str, ...]) -> list[str]:
        names = [name for name in self._connection.tubes() if name.startswith(prefixes)]
        found = map(self._connection.stats_tube, names)
        return [tube.name for tube in found if tube.ready or tube.reserved or tube.delayed or tube.buried]

    def named(self, prefix: str) -> list[str]:
        return [name for name in self._connection.tubes() if name.startswith(prefix)]

    def is_paused(self, tube: str) -> bool:
        return self._connection.stats_tube(tube).paused_for > 0

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
        self,
        reservation: Reservation,
        *,
        then: Sequence[str] = (),
        meanwhile: Callable[[], None] | None = None,
        failed: Callable[[QueueError], None] | None = None,
    ) -> None:
        old = int(reservation.ref)
        if self._ahead.jobs and failed is not None:
            self._connection.begin_delete(old, failed)
            return
        if not then or self._ahead.jobs:
            self._connection.delete(old, held=True)
            return
        self._connection.check_held(old)
        most = 1 if failed is None or self._ahead.is_over else self._ahead.most
        (deleted,) = self._delete([old], then, most, meanwhile)
        self._ahead.asked(most)
        if deleted is not None:
            raise deleted

    def retry(
        self,
        reservation: Reservation,
        body: bytes,
        *,
        delay: float,
        tube: str,
        then: Sequence[str] = (),
        failed: Callable[[QueueError], None] | None = None,
    ) -> str:
        server = self._hold(reservation)
        following = self._connection.put(body, delay=whole_seconds(delay), tube=tube)
        if failed is None or self._hand_overs is None:
            self._hand_over(reservation, following, server, then)
            return str(following)
        number = self._connection.number
        self._hand_overs.add(HandOver(reservation, number, following, server, failed, time.monotonic() + PROOF))
        if len(self._hand_overs) >= MAX_UNPROVEN:
            self._settle(wait=True, then=then)
        return str(following)

    def move(
        self,
        reservation: Reservation,
        body: bytes,
        *,
        tube: str,
        put: Callable[[str], None],
        then: Sequence[str] = (),
        failed: Callable[[QueueError], None] | None = None,
    ) -> None:
        if failed is None or self._hand_overs is None or self._connection.ttr < LONG_LEASE:
            self.retry(reservation, body, delay=0, tube=tube, then=then)
            put(tube)
            return
        self._connection.check_held(int(reservation.ref))
        self._moving.append(_Move(reservation, self._connection.number, body, tube, put, failed))
        self._moved += 1
        if not self._ahead.jobs:
            self._send_moves(then)

    @property
    def unproven(self) -> int:
        proven_later = 0 if self._hand_overs is None else len(self._hand_overs)
        return proven_later + self._ahead.may_hold + len(self._moving) + self._connection.begun_deletes

    def tend(self) -> None:
        self._give_back_late()
        self._connection.end_deletes()
        if self._hand_overs:
            self._settle(wait=False)

    def bury(self, reservation: Reservation, body: bytes | None = None, *, then: Sequence[str] = ()) -> str:
        if body is None:
            self._connection.bury(int(reservation.ref))
            return reservation.ref
        server = self._hold(reservation)
        # The new job is delayed until it is buried, so that no consumer works it meanwhile.
        following = self._connection.put(body, delay=BURY_DELAY, tube=reservation.tube)
        packet: list[Command[object]] = [commands.reserve_job(following), commands.bury(following)]
        for answer in self._connection.pipeline(packet):
            if isinstance(answer, QueueRefused):
                # The disk is full: it took the put and has no room for the bury. beanstalkd 1.12 has lost track of the
                # job now: no command reaches it until a restart, where it is found again, delayed and marked as buried,
                # and is buried beside whatever has become of the old form. No command tells before whether there is
                # room. Another beanstalkd still knows the job.
                self._withdraw(following, server)
            if isinstance(answer, QueueError):
                raise answer
        # one proof for both records, of the put and of the bury
        self._hand_over(reservation, following, server, then)
        return str(following)

    def release(self, reservation: Reservation) -> None:
        # Without a delay: a full disk has no room to record one, and beanstalkd would lose track of the job.
        self._connection.release(int(reservation.ref))

    def finish(self) -> None:
        self._connection.end_deletes()
        self._send_moves((), give_back=False)
        while self._hand_overs:
            self._settle(wait=True)
        self._raise_failure()

    def free(self, handle: str) -> None:
        """What a dead process held is free with its connection."""

    def close(self) -> None:
        with suppress(QueueError):
            self.finish()
        with suppress(QueueError):
            self._send_moves(())
        self._moving.clear()
        self._connection.close()
        if self._prover is not None:
            self._prover.close()

    def close_inherited(self) -> None:
        self._connection.close_inherited()
        if self._hand_overs is not None:
            self._hand_overs.abandon()
        if self._prover is not None:
            self._prover.close_inherited()

    def _hold(self, reservation: Reservation) -> str:
        """Nobody else gets the old form while the new one is proven. Raises JobNotFound if somebody has it.

        Returns the `id` of the server that has it. It is asked before the put: later the server may be another one.
        """
        self._connection.check_held(int(reservation.ref))
        if self._connection.ttr < LONG_LEASE:
            self.extend(reservation)
        return self._connection.server_id()

    def _hand_over(self, reservation: Reservation, following: int, server: str, then: Sequence[str]) -> None:
        """Proves the new job, then deletes the old one. The new one is deleted where that fails.

        If another consumer has the old job by now, its attempt counts.
        """
        try:
            prove(self._connection, [following], self._prover, within=PROOF)
            self.complete(reservation, then=then)
        except (NotDurable, NoProof, JobNotFound):
            self._withdraw(following, server)
            raise

    def _give_back_late(self) -> None:
        """Jobs that have waited behind others for too long go back: the job in hand is not as quick as these were."""
        if self._ahead.is_late:
            self._ahead.most = 1
            self._send_moves(())

    def _send_moves(self, then: Sequence[str], *, give_back: bool = True) -> None:
        """Puts what is to be moved, and reserves jobs of the tubes `then` with it; those reserved ahead go back.

        Raises what breaks the connection; nobody knows then what was put, and all that we had reserved is ready again.
        """
        if not self._moving and not (self._ahead.jobs and give_back):
            return
        holds = self._connection.holds
        moves = [each for each in self._moving if self._is_ours(each)]
        # as in _hold; an error leaves the moves for the next time
        server = self._connection.server_id() if moves else ""
        self._moving.clear()
        released: list[int] = []
        if give_back:
            released = [int(each.ref) for each in self._ahead.jobs if holds(int(each.ref))]
            self._ahead.jobs.clear()
        # no more than half of those that were moved have to go back
        most = min(MAX_AHEAD, max(1, self._moved // 2)) if then else 0
        puts = [(each.body, each.tube) for each in moves]
        at = time.monotonic()
        placed, jobs = self._connection.put_and_reserve(puts, released, then, most)
        self._came(jobs, then, at)
        self._moves_sent(list(zip(moves, placed, strict=True)), server)

    def _moves_sent(self, sent: Sequence[tuple[_Move, int | QueueError]], server: str) -> None:
        """What has become of the moves of one packet: the new job of each on this server, or its error."""
        now, failures = time.monotonic(), []
        for tube, put in {move.tube: move.put for move, placed in sent if isinstance(placed, int)}.items():
            put(tube)
        for move, placed in sent:
            if isinstance(placed, QueueError):
                failures.append((move, placed))
            elif self._hand_overs is not None:
                old, number = move.reservation, move.connection
                made = HandOver(old, number, placed, server, move.failed, now + PROOF, now + ASK_AFTER)
                self._hand_overs.add(made)
        for move, error in failures:
            if isinstance(error, QueueRefused):
                self._failure = error
                self._give_back([move], error)
            elif isinstance(error, JobTooBig):
                move.failed(error)
            else:
                raise error
        if self._hand_overs and len(self._hand_overs) >= MAX_UNPROVEN_MOVES:
            self._settle(wait=True)

    def _settle(self, *, wait: bool, then: Sequence[str] = ()) -> None:
        """Deletes the old jobs whose next forms are proven by now, and reserves a job of the tubes `then` with it.

        With `wait` at least one is settled.
        """
        assert self._hand_overs is not None
        # no proof of today's server is about what an earlier connection has put
        for each in self._hand_overs.drop_others(self._connection.number):
            self._lost(each, JobNotFound(_GONE))
        try:
            done = self._hand_overs.proven(wait=wait)
        except (NotDurable, NoProof) as error:
            self._failure = error
            left = self._hand_overs.abandon()
            for each in left:
                self._withdraw(each.following, each.server)
            self._give_back(left, error)
            return
        ours = [each for each in done if self._is_ours(each)]
        # before anything that may connect anew: there the same ids may be other jobs'
        errors = (
            self._delete([int(each.reservation.ref) for each in ours], () if self._ahead.jobs else then) if ours else []
        )
        lost = [(each, error) for each, error in zip(ours, errors, strict=True) if error is not None]
        for each, refusal in lost + [(each, JobNotFound(_GONE)) for each in done if each not in ours]:
            self._lost(each, refusal)

    def _is_ours(self, made: HandOver | _Move) -> bool:
        """Whether its old job is still reserved: on the next connection the same id may be another reservation."""
        return made.connection == self._connection.number and self._connection.holds(int(made.reservation.ref))

    def _give_back(self, made: Iterable[HandOver | _Move], error: QueueError) -> None:
        """Their next forms are not there: somebody works the old ones."""
        for each in made:
            with suppress(QueueError):
                self.release(each.reservation)
            each.failed(error)

    def _lost(self, made: HandOver, error: QueueError) -> None:
        """Another consumer has the old job by now: its attempt counts. Or the connection broke, and nobody knows."""
        if isinstance(error, JobNotFound):
            self._withdraw(made.following, made.server)
        made.failed(error)

    def _delete(
        self, jobs: Sequence[int], then: Sequence[str], most: int = 1, meanwhile: Callable[[], None] | None = None
    ) -> list[QueueError | None]:
        """Deletes jobs and reserves the next ones, as many as `most`; the error of each delete."""
        at = time.monotonic()
        errors, found = self._connection.delete_and_reserve(jobs, then, most, meanwhile)
        self._came(found, then, at)
        return errors

    def _came(self, jobs: Sequence[JobBody], tubes: Sequence[str], at: float) -> None:
        """These were reserved ahead of the job in hand, by a packet that was sent at `at` (time.monotonic())."""
        self._ahead.hold([_reservation(job, tubes) for job in jobs], at)

    def _raise_failure(self) -> None:
        failure, self._failure = self._failure, None
        if failure is not None:
            # nobody reserves for a while
            with suppress(QueueError):
                self._send_moves(())
            raise failure

    def _withdraw(self, following: int, server: str) -> None:
        """Deletes a next form, as far as that is possible. Since the server's restart the id may be another job's."""
        # the connection is in step, unless it broke meanwhile
        with suppress(QueueError):
            if self._connection.server_id() == server:
                self._connection.delete(following)


def _reservation(job: JobBody, tubes: Sequence[str]) -> Reservation:
    return Reservation(str(job.id), tubes[0] if len(tubes) == 1 else "", job.body, SHORTEST_LEASE)
