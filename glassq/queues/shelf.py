"""Deliveries that an engine itself cannot keep so: buried ones, and those that are due later than its longest delay.

A table by SQLAlchemy in the ledger's database; where that is an SQLite file, in a file of its own beside it, shelf.db,
which syncs each transaction. Unlike the ledger it must be durable. A row is written before the engine's message is
deleted, and the message of a row that is due is sent before the row is deleted: what a crash leaves in between is there
twice rather than never. Which tubes are paused stands here as well.
"""

from __future__ import annotations

import os
import re
import threading
import time
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import msgspec
import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from glassq.database.engine import ReopeningEngine, open_engine, parse_url, reason_of, sqlite_file
from glassq.database.schema import checked_version, versions, write_version
from glassq.errors import QueueRefused

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from sqlalchemy.engine import URL, Connection, Engine

T = TypeVar("T")

VERSION = 1
_KEY = "[ledger] url"
FILE = "shelf.db"
# A row that is being sent is nobody else's for so long, in seconds: if its mover dies over it, another one sends it.
CLAIM = 60.0
# So many rows are read, or written, at once.
BATCH = 200
# The largest job of any engine that uses the shelf; MySQL chooses the column's type by it.
_LARGEST = 1 << 20
# Of 63 bits at most.
_REF = re.compile(r"shelf-([1-9][0-9]{0,17})")
# An option of a connection: its transaction only reads.
_READS = "glassq_reads"

metadata = sa.MetaData()

# Times are in seconds since 1970. `claimed` is until when somebody is sending the row; `kicked` and `losses` are as in
# Reservation.
shelf = sa.Table(
    "glassq_shelf",
    metadata,
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True, autoincrement=True),
    sa.Column("tube", sa.String(200), nullable=False),
    sa.Column("state", sa.String(8), nullable=False),
    sa.Column("put_at", sa.Float(53), nullable=False),
    sa.Column("due", sa.Float(53), nullable=False, index=True),
    sa.Column("claimed", sa.Float(53), nullable=False, server_default="0"),
    sa.Column("losses", sa.Integer, nullable=False, server_default="0"),
    sa.Column("kicked", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("body", sa.LargeBinary(_LARGEST), nullable=False),
    sqlite_autoincrement=True,
)
pauses = sa.Table(
    "glassq_pauses",
    metadata,
    sa.Column("tube", sa.String(200), primary_key=True),
    sa.Column("until", sa.Float(53), nullable=False),
)
_ROW = shelf.c


class Shelved(msgspec.Struct, frozen=True):
    """A row of the shelf; `id` is 0 before it is there. The fields are columns."""

    tube: str
    state: Literal["delayed", "buried"]
    body: bytes
    due: float = 0.0
    put_at: float = 0.0
    losses: int = 0
    kicked: bool = False
    id: int = 0


_COLUMNS = [_ROW[name] for name in Shelved.__struct_fields__]


class Shelf:
    """The shelf of a database, for all threads of a process, before a fork and after it.

    Each method is one transaction, durable when it returns. It raises QueueRefused if that fails: nothing that depends
    on it may be deleted then.
    """

    def __init__(self, ledger: str, *, makes: bool = True) -> None:
        """`ledger` is [ledger] url. Raises SettingsError if it cannot be used; nothing is connected yet.

        An SQLite file that is missing is made with the first row; not so with `makes` False: it would belong to the
        operator, and the pool could not write it.
        """
        self.url = _beside(parse_url(ledger, _KEY))
        self._makes = makes
        self._lock = threading.Lock()
        self._opened: tuple[int, ReopeningEngine | None] = (0, None)

    @property
    def is_file(self) -> bool:
        """Whether it is a file of this host alone."""
        return sqlite_file(self.url) is not None

    def put(self, rows: Sequence[Shelved]) -> list[str]:
        """Adds the rows, in order; their references."""

        def act(connection: Connection) -> list[int]:
            return [_insert(connection, row) for row in rows]

        return [ref_of(number) for number in self._run(act)]

    def replace(self, old: Shelved, new: Shelved) -> str:
        """Puts `new` in the place of `old`; its reference. "" if `old` is not there as it was, or is being sent."""
        number = self._run(lambda connection: _insert(connection, new) if _delete(connection, old) else 0)
        return ref_of(number) if number else ""

    def delete(self, row: Shelved) -> bool:
        """Deletes the row; False if it is no longer there as it was, or is being sent."""
        return self._run(lambda connection: _delete(connection, row))

    def claim(self, row: Shelved) -> bool:
        """Takes the row to send it; False as `delete`. It is deleted by `remove`, or free again after CLAIM seconds."""
        return self._run(lambda connection: _claim(connection, row, time.time()))

    def claim_due(self, before: float, *, after: Shelved | None = None, without: Collection[str] = ()) -> list[Shelved]:
        """Takes delayed rows that are due before this time (since 1970), the first ones; at most BATCH.

        Those that come `after` that row, and of other tubes than `without`.
        """

        def act(connection: Connection) -> list[Shelved]:
            now = time.time()
            query = sa.select(*_COLUMNS).where(_ROW.state == "delayed", _ROW.due <= before, _ROW.claimed < now)
            query = query.where(_ROW.tube.not_in(without))
            if after is not None:
                later = sa.and_(_ROW.due == after.due, _ROW.id > after.id)
                query = query.where(_ROW.due >= after.due, sa.or_(_ROW.due > after.due, later))
            found = [Shelved(*row) for row in connection.execute(query.order_by(_ROW.due, _ROW.id).limit(BATCH))]
            return [row for row in found if _claim(connection, row, now)]

        return self._run(act)

    def remove(self, rows: Iterable[Shelved]) -> None:
        """Deletes rows that were claimed: their messages are sent."""
        ids = [row.id for row in rows]
        self._run(lambda connection: connection.execute(shelf.delete().where(_ROW.id.in_(ids))))

    def give_up(self, rows: Iterable[Shelved]) -> None:
        """Rows that were claimed are free again: their messages were not sent."""
        ids = [row.id for row in rows]
        self._run(lambda connection: connection.execute(shelf.update().where(_ROW.id.in_(ids)).values(claimed=0.0)))

    def by_id(self, ids: Sequence[int]) -> dict[int, Shelved]:
        """The rows with these ids that are there."""
        query = sa.select(*_COLUMNS).where(_ROW.id.in_(ids))
        return self._read(lambda connection: {row.id: Shelved(*row) for row in connection.execute(query)}, {})

    def by_ref(self, ref: str) -> Shelved | None:
        """The row with this reference; None if there is none."""
        number = id_of(ref)
        return self.by_id([number]).get(number) if number else None

    def ids(self, states: Iterable[str], tubes: Sequence[str], since: int = 0) -> list[int]:
        """The ids of all rows of these tubes in these states after `since`, newest first."""
        query = sa.select(_ROW.id).where(_ROW.state.in_(list(states)), _ROW.tube.in_(tubes), _ROW.id > since)
        return self._read(lambda connection: list(connection.scalars(query.order_by(_ROW.id.desc()))), [])

    def first(self, state: str, tube: str) -> Shelved | None:
        """The tube's first row in this state: the next that is due, or the one that was buried first."""
        query = sa.select(*_COLUMNS).where(_ROW.state == state, _ROW.tube == tube).order_by(_ROW.due, _ROW.id).limit(1)
        found = self._read(lambda connection: connection.execute(query).first(), None)
        return None if found is None else Shelved(*found)

    def newest(self) -> int:
        """The highest id there is: that of a later row is higher."""
        return int(self._read(lambda connection: connection.scalar(sa.select(sa.func.max(_ROW.id))), 0) or 0)

    def counts(self) -> dict[tuple[str, str], int]:
        """How many rows there are, by tube and state."""
        query = sa.select(_ROW.tube, _ROW.state, sa.func.count()).group_by(_ROW.tube, _ROW.state)
        return self._read(lambda connection: {(row[0], row[1]): row[2] for row in connection.execute(query)}, {})

    def paused(self) -> dict[str, float]:
        """The tubes that are paused now, each with the time until it goes on, in seconds."""
        now = time.time()
        query = sa.select(pauses.c.tube, pauses.c.until).where(pauses.c.until > now)
        return self._read(lambda connection: {tube: until - now for tube, until in connection.execute(query)}, {})

    def pause(self, tube: str, seconds: float) -> None:
        """Pauses the tube for this time; 0 ends the pause."""

        def act(connection: Connection) -> None:
            connection.execute(pauses.delete().where(pauses.c.tube == tube))
            if seconds:
                connection.execute(pauses.insert().values(tube=tube, until=time.time() + seconds))

        self._run(act)

    def check(self, *, needed: bool = True) -> None:
        """Raises QueueRefused if nothing can be written now. Leaves no row.

        Unless it is `needed` now, it may be missing: the pool makes it when it starts.
        """
        if not needed and not self._makes and self._is_missing():
            return

        def act(connection: Connection) -> None:
            row = Shelved("glassq-probe", "buried", b"")
            _delete(connection, msgspec.structs.replace(row, id=_insert(connection, row)))

        self._run(act)

    def close(self) -> None:
        """Closes the connections; the next call opens others."""
        with self._lock:
            (pid, database), self._opened = self._opened, (0, None)
        if database is not None and pid == os.getpid():
            database.close()

    def _engine(self) -> Engine:
        with self._lock:
            pid, database = self._opened
            if database is None or pid != os.getpid():
                # what a parent has opened is the parent's: to close it here would drop its locks (fcntl(2))
                database = ReopeningEngine(self.url, _open, "shelf")
                self._opened = (os.getpid(), database)
            return database.engine()

    def _read(self, act: Callable[[Connection], T], nothing: T) -> T:
        """What is there; `nothing` where there is no file yet: who only looks makes none."""
        return nothing if self._is_missing() else self._run(act, reads=True)

    def _is_missing(self) -> bool:
        file = sqlite_file(self.url)
        return file is not None and not file.exists()

    def _run(self, act: Callable[[Connection], T], *, reads: bool = False) -> T:
        if not self._makes and self._is_missing():
            raise QueueRefused(f'there is no shelf yet beside {_KEY} = "{self.url}": a pool makes it when it starts')
        try:
            with self._engine().connect().execution_options(**{_READS: reads}) as connection, connection.begin():
                return act(connection)
        except (SQLAlchemyError, OSError) as error:
            # the next call opens it anew
            self.close()
            words = reason_of(error) if isinstance(error, SQLAlchemyError) else error.strerror or str(error)
            raise QueueRefused(f'the shelf ({_KEY} = "{self.url}") cannot be used: {words}') from error


def ref_of(number: int) -> str:
    """The reference of a job that is the row with this id."""
    return f"shelf-{number}"


def id_of(ref: str) -> int:
    """The row's id; 0 if this is no reference of the shelf's."""
    found = _REF.fullmatch(ref)
    return int(found[1]) if found else 0


def _insert(connection: Connection, row: Shelved) -> int:
    values = msgspec.structs.asdict(row)
    del values["id"]
    values["put_at"] = values["put_at"] or time.time()
    made: Any = connection.execute(shelf.insert().values(values)).inserted_primary_key
    return int(made[0])


def _delete(connection: Connection, row: Shelved) -> bool:
    query = shelf.delete().where(*_same(row), _ROW.claimed < time.time())
    return connection.execute(query).rowcount == 1


def _claim(connection: Connection, row: Shelved, now: float) -> bool:
    query = shelf.update().where(*_same(row), _ROW.claimed < now).values(claimed=now + CLAIM)
    return connection.execute(query).rowcount == 1


def _same(row: Shelved) -> list[sa.ColumnElement[bool]]:
    return [_ROW.id == row.id, _ROW.tube == row.tube, _ROW.state == row.state, _ROW.body == row.body]


def _beside(url: URL) -> URL:
    file = sqlite_file(url)
    return url if file is None else url.set(database=str(file.with_name(FILE)))


def _open(url: URL) -> Engine:
    return open_engine(url, _prepare, connected=_sync_all, begin=_begin)


def _begin(connection: Connection) -> None:
    # with WAL, who reads waits for nobody; who writes takes the lock first, so that it can wait for it
    reads = connection.get_execution_options().get(_READS)
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")


def _sync_all(connection: Any, _record: object) -> None:
    # with WAL, NORMAL syncs at checkpoints only
    connection.execute("PRAGMA synchronous = FULL").close()


def _prepare(connection: Connection, url: URL) -> None:
    metadata.create_all(connection)
    versions.create(connection, checkfirst=True)
    checked_version(connection, "shelf", VERSION, url, _KEY)
    write_version(connection, "shelf", VERSION, oldest=VERSION)
