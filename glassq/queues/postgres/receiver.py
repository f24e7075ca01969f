"""Reserves and settles jobs in PostgreSQL: each end of a reservation is one statement, and so one transaction.

A reserve, an extended lease, a release and the end of a job that is done need not be durable: what a crash of the
server takes back is reserved again, and worked twice at worst. A next form is durable before it is answered.
"""

from __future__ import annotations

import secrets
import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from glassq.database.postgres import Unreplicated
from glassq.errors import JobNotFound, QueueError, QueueUnavailable
from glassq.queues.ahead import EndsTogether
from glassq.queues.base import Reservation
from glassq.queues.postgres import schema, statements
from glassq.queues.postgres.limits import LIMITS
from glassq.queues.postgres.waiting import Waiting, about

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from glassq.database.postgres import PostgresSession
    from glassq.queues.postgres.waking import Waker

# At most so many jobs come with a statement. What waits for longer than QUICK seconds behind others goes back, and what
# is done by then is deleted.
MOST, QUICK = 8, 0.02
# A busy receiver looks this often, in seconds, for jobs whose holder is gone, and for jobs due before `since`.
SWEEP = 1.0
_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


class PostgresReceiver:
    """See `glassq.queues.base.Receiver`."""

    def __init__(self, session: PostgresSession, waker: Waker, *, lease: float) -> None:
        self._session = session
        self._waker = waker
        self._lease = float(lease)
        # this session's number, and the tokens of what it holds, by their references
        self._holder = 0
        self._held: dict[str, int] = {}
        self._ahead = EndsTogether[tuple[int, int]](MOST, QUICK)
        # where the index of a tube begins to be of use
        self._since: dict[str, datetime] = {}
        self._sweep_at = 0.0
        self._waiting = Waiting(session)

    # -- reserving --------------------------------------------------------------------------------------------------

    def reserve(self, tubes: Sequence[str], wait: float) -> Reservation | None:
        if self._ahead.is_stale:
            self._give_back()
        if self.has_next:
            return self._ahead.jobs.popleft()
        self.finish()
        waiting, wanted = self._waiting, tuple(tubes)
        until = time.monotonic() + wait
        waiting.begin(wanted, wait)
        waited = False
        while True:
            if waiting.is_over and (job := self._look(wanted)) is not None:
                waiting.found()
                if waited and waiting.interrupted:
                    self.release(job)
                    return None
                return job
            if waiting.interrupted or time.monotonic() >= until:
                return None
            waited = True
            waiting.wait(wanted, until)

    @property
    def has_next(self) -> bool:
        self._notice()
        return bool(self._ahead.jobs)

    def filled(self, prefixes: tuple[str, ...]) -> list[str]:
        return sorted({tube for prefix in prefixes for tube in self._names(statements.FILLED, prefix)})

    def named(self, prefix: str) -> list[str]:
        return sorted(self._names(statements.NAMED, prefix))

    def is_paused(self, tube: str) -> bool:
        [(paused,)] = self._rows(statements.PAUSED, [tube])
        return bool(paused)

    def interrupt(self) -> None:
        self._waiting.interrupt()

    # -- what becomes of it -----------------------------------------------------------------------------------------

    def examine(self, reservation: Reservation) -> Reservation:
        found = self._rows(statements.EXAMINE, self._ours(reservation))
        if not found:
            raise self._lost(reservation)
        [(tube, losses, kicked)] = found
        return Reservation(reservation.ref, tube, reservation.body, self._lease, losses, kicked)

    def extend(self, reservation: Reservation) -> float:
        if not self._rows(statements.EXTEND, [self._lease, *self._ours(reservation)]):
            raise self._lost(reservation)
        return self._lease

    def complete(
        self,
        reservation: Reservation,
        *,
        then: Sequence[str] = (),
        meanwhile: Callable[[], None] | None = None,
        failed: Callable[[QueueError], None] | None = None,
    ) -> None:
        if then and not self.has_next:
            self._complete_all(reservation, then, meanwhile, 1 if failed is None else self._ahead.most)
        elif then and failed is not None:
            self._end(reservation, failed)
        else:
            self._settle(reservation, statements.COMPLETE, [], [], (), meanwhile)

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
        if error := LIMITS.fault(body, tube, delay):
            raise error
        ref = self._settle_durably(reservation, statements.RETRY, [body, tube, float(delay)], then)
        if not delay:
            self._waker.tell([tube])
        return ref

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
        self.retry(reservation, body, delay=0, tube=tube, then=then)
        put(tube)

    def begin(self) -> None:
        self.tend()

    @property
    def unproven(self) -> int:
        return self._ahead.may_hold

    def tend(self) -> None:
        if self._ahead.is_late:
            self._give_back()
            self.finish()

    def finish(self) -> None:
        def end(ended: list[tuple[int, int]]) -> list[QueueError | None]:
            return _still_there(ended, {number for (number,) in self._rows(statements.COMPLETE_ALL, _values(ended))})

        self._ahead.end_all(end)

    def bury(self, reservation: Reservation, body: bytes | None = None, *, then: Sequence[str] = ()) -> str:
        if body is None:
            return self._settle_durably(reservation, statements.BURY_AS_IT_IS, [], then)
        if error := LIMITS.bad_size(body):
            raise error
        return self._settle_durably(reservation, statements.BURY, [body], then)

    def release(self, reservation: Reservation) -> None:
        self._settle(reservation, statements.RELEASE, [], [])
        self._waker.tell([reservation.tube])

    # -- the connection ---------------------------------------------------------------------------------------------

    def free(self, handle: str) -> None:
        """What a dead process held is free with its connection."""

    def close(self) -> None:
        with suppress(QueueError):
            self.finish()
        with suppress(QueueError):
            self._give_back()
        self._forget()
        self._session.close()
        self._waker.close()
        self._waiting.close()

    def close_inherited(self) -> None:
        self._session.close_inherited()
        self._ahead.drop_ended()
        self._forget()

    def prepare(self, session: PostgresSession) -> None:
        """Makes a new session ours: its lock says that what it holds is held."""
        schema.check(session)
        self._forget()
        locked = False
        while not locked:
            self._holder = secrets.randbelow(2**31)
            [(locked, *_)] = session.rows(statements.RECEIVER_SESSION, [self._holder])

    # -- how --------------------------------------------------------------------------------------------------------

    def _look(self, tubes: tuple[str, ...]) -> Reservation | None:
        """The next job that is ready, if there is one; else it is known when to look again."""
        if time.monotonic() >= self._sweep_at:
            self._since.clear()
        job = self._take(tubes)
        freed = self._sweep()
        if job is None and (freed or self._since):
            self._since.clear()
            job = self._take(tubes)
        if job is None:
            self._waiting.found_nothing(tubes)
        return job

    def _sweep(self) -> bool:
        """If it is due: frees what nobody holds, and looks from the beginning again. Whether it has freed something."""
        now = time.monotonic()
        if now < self._sweep_at:
            return False
        self._sweep_at = now + SWEEP * about()
        self._since.clear()
        return bool(self._rows(statements.FREE))

    def _take(self, tubes: Sequence[str]) -> Reservation | None:
        found = self._rows(statements.RESERVE, self._wanted(tubes))
        return self._reserved(found[0]) if found else None

    def _settle_durably(self, reservation: Reservation, statement: str, values: list[Any], then: Sequence[str]) -> str:
        return self._settle(reservation, statement, values, [self._session.durable_commit], then)

    def _settle(
        self,
        reservation: Reservation,
        statement: str,
        before: list[Any],
        after: list[Any],
        then: Sequence[str] = (),
        meanwhile: Callable[[], None] | None = None,
    ) -> str:
        """Ends the reservation; what the statement returned. `before` and `after` are its values around which job."""
        values = [*before, *self._ours(reservation), *after]
        if then and not self.has_next:
            # who always finds work never looks otherwise
            self._sweep()
            at = time.monotonic()
            [(ended, *job)] = self._rows(statements.and_next(statement), [*values, *self._wanted(then)], meanwhile)
            if job[0] is not None:
                self._ahead.hold([self._reserved(tuple(job))], at)
        else:
            found = self._rows(statement, values, meanwhile)
            ended = found[0][0] if found else None
        if ended is None:
            raise self._lost(reservation)
        self._held.pop(reservation.ref, None)
        return str(ended)

    def _complete_all(
        self, reservation: Reservation, then: Sequence[str], meanwhile: Callable[[], None] | None, most: int
    ) -> None:
        """Ends this one, and what is done and not deleted, and reserves up to `most`. Raises JobNotFound."""
        why: list[QueueError] = []
        self._end(reservation, why.append)
        # who always finds work never looks otherwise
        self._sweep()

        def end(ended: list[tuple[int, int]]) -> list[QueueError | None]:
            values = [*_values(ended), *self._wanted(then), most, most]
            at = time.monotonic()
            rows = self._rows(statements.COMPLETE_ALL_AND_NEXT, values, meanwhile)
            came = sorted((row[1:] for row in rows if row[1] is not None), key=lambda row: (row[6], row[0]))
            self._ahead.hold([self._reserved(row) for row in came], at)
            self._ahead.asked(most)
            return _still_there(ended, {int(number) for number in (rows[0][0] or "").split()})

        self._ahead.end_all(end)
        if why:
            raise why[0]

    def _end(self, reservation: Reservation, failed: Callable[[QueueError], None]) -> None:
        number, token = self._ours(reservation)
        self._ahead.end((number, token), failed)
        self._held.pop(reservation.ref, None)

    def _give_back(self) -> None:
        """What was reserved ahead is ready again, before what is due later."""
        self._notice()
        refs = [job.ref for job in self._ahead.take_late() if job.ref in self._held]
        if not refs:
            return
        self._since.clear()
        numbers, tokens = [int(ref) for ref in refs], [self._held.pop(ref) for ref in refs]
        if tubes := {tube for (tube,) in self._rows(statements.RELEASE_ALL, [numbers, tokens, numbers])}:
            self._waker.tell(sorted(tubes))

    def _wanted(self, tubes: Sequence[str]) -> list[Any]:
        since = [self._since.get(tube, _LONG_AGO) for tube in tubes]
        return [self._number(), self._lease, list(tubes), since]

    def _number(self) -> int:
        if not self._session.connected:
            self._session.connect()
        return self._holder

    def _reserved(self, row: tuple[Any, ...]) -> Reservation:
        ref, tube, body, token, losses, kicked, due = row
        self._held[str(ref)] = token
        self._since[tube] = due
        return Reservation(str(ref), tube, bytes(body), self._lease, losses, kicked)

    def _ours(self, reservation: Reservation) -> list[Any]:
        self._notice()
        token = self._held.get(reservation.ref)
        if token is None:
            raise self._lost(reservation)
        return [int(reservation.ref), token]

    def _lost(self, reservation: Reservation) -> JobNotFound:
        self._held.pop(reservation.ref, None)
        return _not_ours()

    def _names(self, statement: str, prefix: str) -> list[str]:
        return [tube for (tube,) in self._session.rows(statement, {"low": prefix, "high": f"{prefix}\U0010ffff"})]

    def _rows(self, statement: str, values: Any = (), meanwhile: Callable[[], None] | None = None) -> Any:
        try:
            self._number()
            return self._session.quick_rows(statement, values, meanwhile=meanwhile)
        except Unreplicated as error:
            # committed, and not ours to take back
            self._session.close()
            raise QueueUnavailable(str(error)) from error

    def _notice(self) -> None:
        """What a connection held ended with it."""
        if not self._session.connected:
            self._forget()

    def _forget(self) -> None:
        self._held.clear()
        self._since.clear()
        self._ahead.take_late()
        self._ahead.drop_ended(QueueUnavailable("the connection broke before its end was told"))
        self._sweep_at = 0.0
        self._waiting.forget()


def _values(ended: list[tuple[int, int]]) -> list[Any]:
    """Jobs by their numbers and tokens, as the statements want them that end several."""
    numbers = [number for number, _ in ended]
    return [numbers, [token for _, token in ended], numbers]


def _still_there(ended: list[tuple[int, int]], gone: set[int]) -> list[QueueError | None]:
    return [None if number in gone else _not_ours() for number, _ in ended]


def _not_ours() -> JobNotFound:
    return JobNotFound("not reserved on this connection, or its lease has ended")
