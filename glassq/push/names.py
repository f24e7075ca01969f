"""Which task names are taken, in a database that the pool shares with every program that adds tasks.

A name has one row per queue, and this life:

    claim -> claimed -> put (its task is in the queue) -> tombstone (it succeeded or was deleted; kept for 9 days)
                |
                +-> released (the put certainly failed)

A program may die between claim and put, and nobody can tell. So a second program that wants the name waits until the
claim is confirmed or released, and takes it over if it has not changed for CONFIRM seconds. The first program puts
within less than that or not at all, so it cannot put after its claim was taken over. It may have put before, without
confirming: then there are two tasks, unless an attempt of the first has begun and confirmed the name. At least once.
Each program measures CONFIRM on its own monotonic clock, from what it saw itself, so a step of a wall clock, here or on
another host, changes nothing.

Names are kept for days, by wall clock: a name is free again 9 days after its eta if nothing has touched its row since.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from glassq.database.engine import ReopeningEngine, parse_url, reason_of
from glassq.database.pruning import Pruning
from glassq.database.sqlite_file import BUSY
from glassq.errors import NamesUnavailable
from glassq.log import fields, logger
from glassq.push import names_table as table
from glassq.push.names_table import TOMBSTONE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sqlalchemy.engine import URL, Connection

    from glassq.push.names_table import NameRequest, State
    from glassq.settings import PushSettings

T = TypeVar("T")
log = logger("glassq.push")

# A claim that does not change for CONFIRM seconds is taken over. Its own put must be over earlier, by this share of it.
CONFIRM, MARGIN = 6.0, 0.25
# Pause between two looks at somebody else's claim, growing from the first to the second, in seconds.
POLL, POLL_CAP = 0.02, 0.25
# Claims of several others may follow one another: a claim waits at most so many times CONFIRM in all.
MAX_CONFIRMS = 3
# How long a thread waits for the other threads of its process, in seconds.
THREAD_WAIT = 2 * BUSY
# For so many seconds after a failure nothing is recorded: each try may block for BUSY, and the work with it.
SKIP = 10.0


@dataclass(frozen=True, slots=True)
class NameClaims:
    """The result of a claim: `taken` are the names that somebody else has, "put" or TOMBSTONE; the others are ours.

    Their tasks must be put by `until` (time.monotonic()), or not at all.
    """

    taken: Mapping[str, State]
    until: float


def open_names(settings: PushSettings) -> Names:
    """The names' database of the settings. Nothing is connected before the first use.

    Raises SettingsError if the URL cannot be used, but not if the database is missing.
    """
    return Names(parse_url(settings.names, "[push] names"))


class Names:
    """One connection to the database. Any thread may call; one at a time uses the connection.

    An SQLite connection does not survive a fork, and a database can be damaged if both processes merely keep it open.
    So no transaction runs during a fork, and both processes open the database again.
    """

    def __init__(self, url: URL, *, confirm: float = CONFIRM) -> None:
        """`confirm` is in seconds."""
        self._url = url
        self._confirm = confirm
        self._database = ReopeningEngine(url, table.open_for_names, "task names' file")
        # Reentrant, because its release raises in a thread that does not hold it: `_alone` relies on that.
        self._lock = threading.RLock()
        self._warned = False
        # nothing is recorded until then, on time.monotonic()
        self._skip_until = 0.0
        self._pruning = Pruning()
        _close_at_fork(self)

    def claim(self, queue: str, requests: Sequence[NameRequest]) -> NameClaims:
        """Claims all names that are free, in one step, after waiting for others to confirm or release theirs.

        Raises NamesUnavailable; then nothing is claimed. (If the answer to the commit was lost, a claim may be left,
        which is taken over after CONFIRM seconds.)
        """
        self._pruning.run_if_due(self._prune)
        start = time.monotonic()
        # name to the delivery that claims it, and since when we have seen it do so
        watched: dict[str, tuple[str, float]] = {}
        pause = POLL
        while True:
            now = time.monotonic()
            stale = {name: delivery for name, (delivery, since) in watched.items() if now - since >= self._confirm}
            found = self._try(queue, requests, stale)
            if isinstance(found, NameClaims):
                return found
            seen_at = time.monotonic()
            watched = {
                name: watched[name] if watched.get(name, (None,))[0] == delivery else (delivery, seen_at)
                for name, delivery in found.items()
            }
            if seen_at - start > MAX_CONFIRMS * self._confirm:
                raise NamesUnavailable(f"names that others are adding again and again: {', '.join(sorted(found))}")
            time.sleep(pause)
            pause = min(POLL_CAP, pause * 1.5)

    def confirm(self, queue: str, deliveries: Mapping[str, str]) -> set[str]:
        """Records that these names' tasks were put (name to delivery). Returns the names that others have taken over.

        Raises NamesUnavailable.
        """
        return self._transact(lambda connection: table.confirm(connection, queue, deliveries))

    def release(self, queue: str, deliveries: Mapping[str, str]) -> None:
        """Frees these names, whose tasks were certainly not put (name to delivery). Raises NamesUnavailable."""
        self._transact(lambda connection: table.release(connection, queue, deliveries))

    def touch(self, queue: str, name: str) -> None:
        """Records that the task of this name is being attempted, so it is alive.

        Never raises. For some seconds after a failure nothing is recorded.
        """
        self._record(queue, (name,), "put")

    def mark_finished(self, queue: str, *names: str) -> bool:
        """Records that these names' tasks succeeded or were deleted; False if it could not.

        Never raises, like `touch`.
        """
        return self._record(queue, names, TOMBSTONE)

    def close(self) -> None:
        """Closes the connection; the next use opens another."""
        try:
            self._alone(self._database.close)
        except NamesUnavailable as error:
            log.debug("task names stay open %s", fields(error=error))

    def _try(
        self, queue: str, requests: Sequence[NameRequest], stale: Mapping[str, str]
    ) -> NameClaims | dict[str, str]:
        """Claims what is free; or claims nothing, and returns the claims to wait for (name to delivery)."""

        def step(connection: Connection) -> NameClaims | dict[str, str]:
            # measured before others can see the claim
            until = time.monotonic() + self._confirm * (1 - MARGIN)
            taken, pending = table.claim(connection, queue, requests, stale)
            return pending or NameClaims(taken, until)

        try:
            return self._transact(step)
        except NamesUnavailable as error:
            if isinstance(error.__cause__, IntegrityError):
                # (not in SQLite) somebody claimed between our SELECT and our INSERT: try again
                return {request.name: "" for request in requests}
            raise

    def _record(self, queue: str, names: Sequence[str], state: State) -> bool:
        if not names:
            return True
        if time.monotonic() < self._skip_until:
            return False
        try:
            self._transact(lambda connection: table.record(connection, queue, names, state))
            self._pruning.run_if_due(self._prune)
        except Exception as error:
            self._skip_until = time.monotonic() + SKIP
            if not self._warned:
                log.warning("task names cannot be written; the work goes on %s", fields(url=self._url, error=error))
            self._warned = True
            return False
        self._warned = False
        return True

    def _prune(self, limit: int) -> int:
        return self._transact(lambda connection: table.prune(connection, limit))

    def _transact(self, step: Callable[[Connection], T]) -> T:
        """Runs the step in a transaction and commits it. Raises NamesUnavailable or SettingsError."""
        return self._alone(lambda: self._one_transaction(step))

    def _one_transaction(self, step: Callable[[Connection], T]) -> T:
        try:
            with self._database.engine().begin() as connection:
                return step(connection)
        except (SQLAlchemyError, OSError, ValueError) as error:
            self._database.close()
            raise NamesUnavailable(reason_of(error)) from error
        except BaseException:
            # an interrupt in the middle of a statement: the connection may be out of step
            self._database.close()
            raise

    def _alone(self, work: Callable[[], T]) -> T:
        """Runs it while no other thread uses the connection. Raises NamesUnavailable after THREAD_WAIT."""
        try:
            if not self._lock.acquire(timeout=THREAD_WAIT):
                raise NamesUnavailable("other threads hold the connection")
            return work()
        finally:
            # An interrupt (errors.Interrupt) may come after any call, also between taking the lock and storing that we
            # have it. So the release itself finds out whether the lock is ours, and nothing is called before it.
            try:  # noqa: SIM105
                self._lock.release()
            except RuntimeError:
                pass


def _close_at_fork(names: Names) -> None:
    """Before every fork of this process: waits for the running transaction, and closes the connection."""
    known = weakref.ref(names)
    # Those whose lock is held during the fork: the weak reference may die meanwhile.
    held: list[Names] = []

    def before() -> None:
        if (found := known()) is not None and found._lock.acquire(timeout=THREAD_WAIT):
            held.append(found)
            found._database.close()

    def after() -> None:
        while held:
            held.pop()._lock.release()

    os.register_at_fork(before=before, after_in_parent=after, after_in_child=after)
