"""Which names of tasks are taken, in a database that all who add tasks, and the pool, share.

A name goes this way, in one row per queue and name:

    claim -> claimed -> put (its task is in the queue) -> gone (it succeeded or was deleted; a tombstone for 9 days)
                |
                +-> withdrawn (the put failed for sure)

Between claim and put the adder may die, and nobody can tell: so whoever wants the same name waits until the claim has
been confirmed or withdrawn, or has stood still for CONFIRM seconds and is taken over. The one who claimed puts within
less than that or not at all, so a put of a claim that was taken over does not come later. But it may have come before,
unconfirmed: unless an attempt of that task has begun by then, which confirms it too, there are two. At least once.
Both measure on their own monotonic clock from what they saw themselves: a step of a wall clock, here or on another
host, changes nothing.

Names are kept by wall clock, for days. A row that nobody touched for 9 days after its eta is free again.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from glassq import backoff
from glassq.errors import NamesUnavailable
from glassq.ledger import names_table as table
from glassq.ledger.schema import BUSY, Lasting, parse_url
from glassq.log import fields, logger

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sqlalchemy.engine import URL, Connection

    from glassq.ledger.names_table import State, Wanted
    from glassq.settings import Push

T = TypeVar("T")
log = logger("glassq.ledger")

# Seconds after which a claim that stands still is taken over, and how much earlier its own put must be over.
CONFIRM, MARGIN = 6.0, 0.25
# How often a claim is looked at meanwhile: from the first to the second, in seconds.
LOOK, LOOK_CAP = 0.02, 0.25
# Claims of others may follow one another: so many times CONFIRM is waited in all.
PATIENCE = 3
# How long a thread waits for the others of its process, in seconds.
TAKE_TURNS = 2 * BUSY
# For so many seconds after a failure nothing is noted: each try may wait for BUSY, and the work would wait with it.
SKIP = 10.0
# Pruning: first within this after the start, then about so often, in seconds; so many rows a transaction.
PRUNE_SOON, PRUNE_EVERY, PRUNE_ROWS = 60.0, 3600.0, 500


@dataclass(frozen=True, slots=True)
class Claimed:
    """`taken` are the names that are somebody's, each "put" or "gone"; the others are ours.

    Their puts must be over by `until` (time.monotonic()).
    """

    taken: Mapping[str, State]
    until: float


def open_names(settings: Push) -> Names:
    """The names' database of the settings. Nothing is connected before the first use.

    Raises SettingsError where the URL cannot be used; never because the database is not there.
    """
    return Names(parse_url(settings.names, "[push] names"))


class Names:
    """One connection to the database, used by one thread at a time; any thread may ask.

    SQLite's connections do not survive a fork, and one that is merely open in both processes can cost the database:
    so no transaction runs during a fork, and both sides open anew.
    """

    def __init__(self, url: URL, *, confirm: float = CONFIRM) -> None:
        """`confirm` is in seconds."""
        self._url = url
        self._confirm = confirm
        self._database = Lasting(url, table.open_for_names, "task names' file")
        # its release refuses where the thread does not hold it, which an interrupted one cannot know otherwise
        self._lock = threading.RLock()
        self._told = False
        # on time.monotonic(): until when nothing is noted; and when to prune, jittered, as children start together
        self._skip_until = 0.0
        self._prune_at = time.monotonic() + backoff.between(0.0, PRUNE_SOON)
        _close_at_fork(self)

    def claim(self, queue: str, wanted: Sequence[Wanted]) -> Claimed:
        """Claims all names that are free, in one step; before it, waits for claims of others to be settled.

        Raises NamesUnavailable, and has then claimed nothing (unless the commit's answer was lost: that goes stale).
        """
        self._prune()
        start = time.monotonic()
        watched: dict[str, tuple[str, float]] = {}
        look = LOOK
        while True:
            now = time.monotonic()
            stale = {name: delivery for name, (delivery, seen) in watched.items() if now - seen >= self._confirm}
            found = self._try(queue, wanted, stale)
            if isinstance(found, Claimed):
                return found
            seen_at = time.monotonic()
            watched = {
                name: watched[name] if watched.get(name, ("",))[0] == delivery else (delivery, seen_at)
                for name, delivery in found.items()
            }
            if seen_at - start > PATIENCE * self._confirm:
                raise NamesUnavailable(f"names that others are adding again and again: {', '.join(sorted(found))}")
            time.sleep(look)
            look = min(LOOK_CAP, look * 1.5)

    def confirm(self, queue: str, deliveries: Mapping[str, str]) -> set[str]:
        """Says that these names' tasks were put: name to delivery. The result are names that others took over.

        Raises NamesUnavailable.
        """
        return self._transact(lambda connection: table.confirm(connection, queue, deliveries))

    def withdraw(self, queue: str, deliveries: Mapping[str, str]) -> None:
        """Frees these names, whose tasks were certainly not put: name to delivery. Raises NamesUnavailable."""
        self._transact(lambda connection: table.withdraw(connection, queue, deliveries))

    def touch(self, queue: str, name: str) -> None:
        """The task of this name is tried now, so it is alive.

        Never raises: it is only written down, and for some seconds after a failure it is not.
        """
        self._note(queue, (name,), "put")

    def gone(self, queue: str, *names: str) -> bool:
        """The tasks of these names succeeded, or were deleted; whether that is written. Never raises, like `touch`."""
        return self._note(queue, names, "gone")

    def close(self) -> None:
        """Closes the connection; the next use opens another."""
        try:
            self._alone(self._database.close)
        except NamesUnavailable as error:
            log.debug("task names stay open %s", fields(error=error))

    def _try(self, queue: str, wanted: Sequence[Wanted], stale: Mapping[str, str]) -> Claimed | dict[str, str]:
        """All claimed that can be; or else the claims that must be waited for, name to delivery, and none claimed."""

        def step(connection: Connection) -> Claimed | dict[str, str]:
            # from before others can see the claim
            until = time.monotonic() + self._confirm * (1 - MARGIN)
            taken, pending = table.claim(connection, queue, wanted, stale)
            return pending or Claimed(taken, until)

        try:
            return self._transact(step)
        except NamesUnavailable as error:
            if isinstance(error.__cause__, IntegrityError):
                # (not in SQLite) somebody claimed between our look and our insert: look again
                return {each.name: "" for each in wanted}
            raise

    def _note(self, queue: str, names: Sequence[str], state: State) -> bool:
        if not names:
            return True
        if time.monotonic() < self._skip_until:
            return False
        try:
            self._transact(lambda connection: table.note(connection, queue, names, state))
            self._prune()
        except Exception as error:
            self._skip_until = time.monotonic() + SKIP
            if not self._told:
                log.warning("task names cannot be written; the work goes on %s", fields(url=self._url, error=error))
            self._told = True
            return False
        self._told = False
        return True

    def _prune(self) -> None:
        """Deletes some rows that are free, where that is due; soon again while there are more."""
        if time.monotonic() < self._prune_at:
            return
        found = self._transact(lambda connection: table.prune(connection, PRUNE_ROWS))
        wait = LOOK_CAP if found >= PRUNE_ROWS else PRUNE_EVERY
        self._prune_at = time.monotonic() + backoff.between(0.75 * wait, 1.25 * wait)

    def _transact(self, step: Callable[[Connection], T]) -> T:
        """Runs the step in a transaction, which is committed when it ends well.

        Raises NamesUnavailable or SettingsError.
        """
        return self._alone(lambda: self._one_transaction(step))

    def _one_transaction(self, step: Callable[[Connection], T]) -> T:
        try:
            with self._database.engine().begin() as connection:
                return step(connection)
        except (SQLAlchemyError, OSError, ValueError) as error:
            self._database.close()
            # SQLAlchemy's own message repeats the statement and what was to be written
            raise NamesUnavailable(f"{type(error).__name__}: {getattr(error, 'orig', None) or error}") from error
        except BaseException:
            # an interrupt in the middle of a statement: the connection may be out of step
            self._database.close()
            raise

    def _alone(self, work: Callable[[], T]) -> T:
        """Runs it while no other thread does. Raises NamesUnavailable where those go on for too long."""
        try:
            if not self._lock.acquire(timeout=TAKE_TURNS):
                raise NamesUnavailable("other threads hold the connection")
            return work()
        finally:
            # An interrupt (errors.Interrupt) comes after any call, also between taking the lock and knowing of it. So
            # whether it is ours is asked by the release, and nothing is called before that.
            try:  # noqa: SIM105
                self._lock.release()
            except RuntimeError:
                pass


def _close_at_fork(names: Names) -> None:
    """Before every fork of this process: waits for the transaction that runs, and closes the connection."""
    known = weakref.ref(names)
    # whose lock is held over the fork: the object may go while the fork is under way, or be made then
    held: list[Names] = []

    def before() -> None:
        if (found := known()) is not None and found._lock.acquire(timeout=TAKE_TURNS):
            held.append(found)
            found._database.close()

    def after() -> None:
        while held:
            held.pop()._lock.release()

    os.register_at_fork(before=before, after_in_parent=after, after_in_child=after)
