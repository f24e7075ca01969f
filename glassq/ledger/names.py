"""Which names of tasks are taken, in a database that all who add tasks, and the pool, share.

A name goes this way, in one row per queue and name:

    claim -> claimed -> put (its task is in the queue) -> gone (it succeeded or was deleted; a tombstone for 9 days)
                |
                +-> withdrawn (the put failed for sure)

Between claim and put the adder may die, and nobody can tell: so whoever wants the same name waits until the claim has
been confirmed or withdrawn, or has stood still for CONFIRM seconds and is taken over. The one who claimed puts within
less than that or not at all, so a put of a claim that was taken over does not come later. Both measure on their own
monotonic clock from what they saw themselves: a step of a wall clock, here or on another host, changes nothing.

Names are kept by wall clock, for days. A row that nobody touched for 9 days after its eta is free again.
"""

from __future__ import annotations

import logging
import os
import random
import sqlite3
import threading
import time
import weakref
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Literal

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from glassq.errors import NamesUnavailable, SettingsError
from glassq.ledger.schema import BUSY, Moment, meta, parse_url, set_up_sqlite, sqlite_file
from glassq.log import kv

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from typing import Any

    from sqlalchemy.engine import URL, Connection, Engine

    from glassq.settings import Push

log = logging.getLogger("glassq.ledger")

# When you change the table below: raise VERSION, and let `_prepare` bring a database of the version before to the new
# one (it runs in a transaction that no other process can enter).
VERSION = 1
# How long a name stays taken after its task is gone, or was heard of last.
KEEP = timedelta(days=9)
# An eta may be 30 days ahead; a row that is kept for longer was written by a clock that was wrong.
LONGEST = timedelta(days=39)
# Seconds after which a claim that stands still is taken over, and how much earlier its own put must be over.
CONFIRM, MARGIN = 6.0, 0.25
# How often a claim is looked at meanwhile: from the first to the second, in seconds.
LOOK, LOOK_CAP = 0.02, 0.25
# Claims of others may follow one another: so many times CONFIRM is waited in all.
PATIENCE = 3
# What a touch would move by less than this is not written.
WORTH_WRITING = timedelta(hours=1)
# How soon SQLite is asked again whether it is our turn to write: between these, in seconds.
TURN = 0.001, 0.01
# How long a thread waits for the others of its process, in seconds.
TAKE_TURNS = 2 * BUSY
# Pruning: first within this after the start, then about so often, in seconds; so many rows a transaction.
PRUNE_SOON, PRUNE_EVERY, PRUNE_ROWS = 60.0, 3600.0, 500

metadata = sa.MetaData()

# `state` is claimed, put or gone; `delivery` made the claim ("": not known any more); from `free` on nobody minds.
task_names = sa.Table(
    "task_names",
    metadata,
    sa.Column("queue", sa.String(100), primary_key=True),
    sa.Column("name", sa.String(500), primary_key=True),
    sa.Column("delivery", sa.String(64), nullable=False),
    sa.Column("state", sa.String(8), nullable=False),
    sa.Column("since", Moment, nullable=False),
    sa.Column("free", Moment, nullable=False, index=True),
)

State = Literal["claimed", "put", "gone"]
_COLUMNS = task_names.c


@dataclass(frozen=True, slots=True)
class Wanted:
    """A name that somebody wants, the delivery that is to have it, and when its task may run (now, or its eta)."""

    name: str
    delivery: str
    eta: datetime


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
        self._file = sqlite_file(url)
        self._engine: Engine | None = None
        self._identity: tuple[int, int] | None = None
        self._lock = threading.Lock()
        self._told = False
        # on time.monotonic(); jittered, as the pool's children start together
        self._prune_at = time.monotonic() + random.uniform(0.0, PRUNE_SOON)  # noqa: S311 - jitter, no secret
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
        now = datetime.now(UTC)
        lost = set()
        with self._transaction() as connection:
            rows = _rows(connection, queue, deliveries)
            for name, delivery in sorted(deliveries.items()):
                row = rows.get(name)
                if row is None:
                    _insert(connection, queue, name, delivery, "put", now, now + KEEP)
                elif row.delivery not in (delivery, ""):
                    lost.add(name)
                elif row.state == "claimed":
                    # only the state: the claim knew the eta
                    _change(connection, queue, name, state="put", since=now)
        return lost

    def withdraw(self, queue: str, deliveries: Mapping[str, str]) -> None:
        """Frees these names, whose tasks were certainly not put: name to delivery. Raises NamesUnavailable."""
        with self._transaction() as connection:
            for name, delivery in sorted(deliveries.items()):
                ours = (_COLUMNS.delivery == delivery, _COLUMNS.state == "claimed")
                connection.execute(task_names.delete().where(_COLUMNS.queue == queue, _COLUMNS.name == name, *ours))

    def touch(self, queue: str, name: str) -> None:
        """The task of this name is tried now, so it is alive. Never raises: it is only written down."""
        self._note(queue, name, "put")

    def gone(self, queue: str, name: str) -> None:
        """The task of this name succeeded, or was deleted. Never raises: it is only written down."""
        self._note(queue, name, "gone")

    def close(self) -> None:
        """Closes the connection; the next use opens another."""
        if self._lock.acquire(timeout=TAKE_TURNS):
            self._close()
            self._lock.release()

    def _try(self, queue: str, wanted: Sequence[Wanted], stale: Mapping[str, str]) -> Claimed | dict[str, str]:
        """All claimed that can be; or else the claims that must be waited for, name to delivery, and none claimed."""
        now = datetime.now(UTC)
        taken: dict[str, State] = {}
        pending: dict[str, str] = {}
        try:
            with self._transaction() as connection:
                # from before others can see the claim
                until = time.monotonic() + self._confirm * (1 - MARGIN)
                for name, row in _rows(connection, queue, [each.name for each in wanted]).items():
                    if row.free <= now or (row.state == "claimed" and stale.get(name) == row.delivery):
                        _delete(connection, queue, name)
                    elif row.state == "claimed":
                        pending[name] = row.delivery
                    else:
                        taken[name] = row.state
                if pending:
                    # what has gone from the table was free anyway
                    return pending
                for each in sorted(wanted, key=lambda each: each.name):
                    if each.name not in taken:
                        free = max(now, each.eta) + KEEP
                        _insert(connection, queue, each.name, each.delivery, "claimed", now, free)
        except NamesUnavailable as error:
            if isinstance(error.__cause__, IntegrityError):
                # (not in SQLite) somebody claimed between our look and our insert: look again
                return {each.name: "" for each in wanted}
            raise
        return Claimed(taken, until)

    def _note(self, queue: str, name: str, state: State) -> None:
        try:
            self._write_down(queue, name, state)
            self._prune()
        except Exception as error:
            if not self._told:
                log.warning("task names cannot be written; the work goes on %s", kv(url=self._url, error=error))
            self._told = True
        else:
            self._told = False

    def _write_down(self, queue: str, name: str, state: State) -> None:
        now = datetime.now(UTC)
        with self._transaction() as connection:
            row = _rows(connection, queue, [name]).get(name)
            if row is None:
                _insert(connection, queue, name, "", state, now, now + KEEP)
            elif state == "gone":
                _change(connection, queue, name, state="gone", since=now, free=now + KEEP)
            elif row.state == "claimed" or (row.state == "put" and row.free < now + KEEP - WORTH_WRITING):
                _change(connection, queue, name, state="put", free=max(row.free, now + KEEP))

    def _prune(self) -> None:
        """Deletes some rows that are free, where that is due; soon again while there are more."""
        if time.monotonic() < self._prune_at:
            return
        now = datetime.now(UTC)
        with self._transaction() as connection:
            wrong = task_names.update().where(_COLUMNS.free > now + LONGEST + KEEP).values(free=now + LONGEST)
            connection.execute(wrong)
            keys = (_COLUMNS.queue, _COLUMNS.name)
            old = connection.execute(sa.select(*keys).where(_COLUMNS.free <= now).limit(PRUNE_ROWS)).all()
            for queue, name in old:
                _delete(connection, queue, name)
        wait = LOOK_CAP if len(old) >= PRUNE_ROWS else PRUNE_EVERY
        self._prune_at = time.monotonic() + wait * random.uniform(0.75, 1.25)  # noqa: S311 - jitter, no secret

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        """A transaction that is committed when the block ends well. Raises NamesUnavailable or SettingsError."""
        if not self._lock.acquire(timeout=TAKE_TURNS):
            raise NamesUnavailable("other threads hold the connection")
        try:
            with self._open().begin() as connection:
                yield connection
        except (SQLAlchemyError, OSError, ValueError) as error:
            self._close()
            # SQLAlchemy's own message repeats the statement and what was to be written
            raise NamesUnavailable(f"{type(error).__name__}: {getattr(error, 'orig', None) or error}") from error
        except BaseException:
            # an interrupt in the middle of a statement: the connection may be out of step
            self._close()
            raise
        finally:
            self._lock.release()

    def _open(self) -> Engine:
        if self._engine is not None and self._identity != self._look():
            # SQLite would go on writing to the file that nobody sees any more
            log.warning("task names' file was moved or removed: another one is begun %s", kv(file=self._file))
            self._close()
        if self._engine is None:
            self._engine = _open_engine(self._url)
            self._identity = self._look()
        return self._engine

    def _look(self) -> tuple[int, int] | None:
        """Which file the path names now; None where there is none."""
        try:
            found = self._file.stat() if self._file is not None else None
        except OSError:
            return None
        return (found.st_dev, found.st_ino) if found is not None else None

    def _close(self) -> None:
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.dispose()


def _close_at_fork(names: Names) -> None:
    """Before every fork of this process: waits for the transaction that runs, and closes the connection."""
    known = weakref.ref(names)
    # whose lock is held over the fork: the object may go while the fork is under way, or be made then
    held: list[Names] = []

    def before() -> None:
        if (found := known()) is not None and found._lock.acquire(timeout=TAKE_TURNS):
            held.append(found)
            found._close()

    def after() -> None:
        while held:
            held.pop()._lock.release()

    os.register_at_fork(before=before, after_in_parent=after, after_in_child=after)


def _open_engine(url: URL) -> Engine:
    """An engine on the database, which is created where that is needed.

    Raises SettingsError where the schema is of another version, OSError or SQLAlchemyError where it cannot be opened.
    """
    file = sqlite_file(url)
    if file is not None:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # SQLite would use the umask alone, and gives its -wal and -shm the mode of this file
        os.close(os.open(file, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
    engine = sa.create_engine(url, pool_pre_ping=file is None)
    if url.get_backend_name() == "sqlite":
        sa.event.listen(engine, "connect", set_up_sqlite)
        sa.event.listen(engine, "connect", _set_up_names)
        sa.event.listen(engine, "begin", _begin)
    try:
        with engine.begin() as connection:
            _prepare(connection, url)
    except BaseException:
        engine.dispose()
        raise
    return engine


def _set_up_names(connection: Any, _record: object) -> None:
    # a claim that a power cut undid would let its name be put twice
    for pragma in ("synchronous = FULL", f"busy_timeout = {int(TURN[1] * 1000)}"):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin(connection: Connection) -> None:
    """Waits for other processes' transactions, up to BUSY seconds.

    SQLite would look ten times a second only: whoever has waited longest then starves beside those who come often.
    """
    raw = connection.connection.driver_connection
    over = time.monotonic() + BUSY
    while raw is not None and time.monotonic() < over:
        try:
            raw.execute("BEGIN IMMEDIATE").close()
            return
        except sqlite3.Error as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                break
            time.sleep(random.uniform(*TURN))  # noqa: S311 - jitter, no secret
    # what it says now is in SQLAlchemy's own exceptions
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _prepare(connection: Connection, url: URL) -> None:
    """Creates what is missing, inside the caller's transaction."""
    metadata.create_all(connection)
    meta.create(connection, checkfirst=True)
    found = connection.scalar(sa.select(meta.c.value).where(meta.c.name == "names"))
    if found is None:
        connection.execute(meta.insert().values(name="names", value=VERSION))
    elif found > VERSION:
        raise SettingsError(
            f'[push] names = "{url}": its schema is version {found}, this glassq knows {VERSION}: '
            "install the glassq that wrote it, or name another database"
        )


def _rows(connection: Connection, queue: str, names: Collection[str]) -> dict[str, sa.Row[Any]]:
    where = (_COLUMNS.queue == queue, _COLUMNS.name.in_(names))
    found = connection.execute(sa.select(task_names).where(*where).order_by(_COLUMNS.name).with_for_update())
    return {row.name: row for row in found}


def _insert(
    connection: Connection, queue: str, name: str, delivery: str, state: State, now: datetime, free: datetime
) -> None:
    values = {"queue": queue, "name": name, "delivery": delivery, "state": state, "since": now, "free": free}
    connection.execute(task_names.insert().values(values))


def _change(connection: Connection, queue: str, name: str, **values: object) -> None:
    connection.execute(task_names.update().where(_COLUMNS.queue == queue, _COLUMNS.name == name).values(values))


def _delete(connection: Connection, queue: str, name: str) -> None:
    connection.execute(task_names.delete().where(_COLUMNS.queue == queue, _COLUMNS.name == name))
