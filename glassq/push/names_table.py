"""The table of task names, how its database is opened, and each step in a name's life inside one transaction."""

from __future__ import annotations

import sqlite3
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, Literal

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from glassq import backoff
from glassq.database.engine import open_engine, parse_url, reason_of
from glassq.database.schema import Moment, Needs, checked_version, versions, write_version
from glassq.database.sqlite_file import BUSY
from glassq.errors import NamesUnavailable

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from typing import Any

    from sqlalchemy.engine import URL, Connection, Engine

# When you change the table below: raise VERSION, and let `_prepare` bring a database of the previous version to the new
# one (it runs in a transaction that no other process can enter).
VERSION = 1
# How long a name stays taken after its task has finished, or was last heard of.
KEEP = timedelta(days=9)
# An eta may be 30 days ahead. A row that holds its name for longer was written by a wrong clock.
MAX_HOLD = timedelta(days=39)
# A touch that would extend a name by less than this is not written.
MIN_EXTENSION = timedelta(hours=1)
# Pause before SQLite is asked again whether we may write: between these, in seconds.
TURN = 0.001, 0.01

State = Literal["claimed", "put", "gone"]
# The name of a finished task, which nobody may take again yet. The table has called it "gone" since its first version.
TOMBSTONE: Final = "gone"

metadata = sa.MetaData()

# `state` is a State; `delivery` made the claim ("": no longer known); `free` is when the name may be reused.
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
_COLUMNS = task_names.c
NEEDS = Needs((task_names.name,), "names", VERSION)


@dataclass(frozen=True, slots=True)
class NameRequest:
    """A name to claim, the delivery that wants it, and when its task may run: now, or at its eta."""

    name: str
    delivery: str
    eta: datetime


def open_for_names(url: URL) -> Engine:
    """An engine on the database, which is created if necessary.

    Raises SettingsError if the schema is newer than ours, OSError or SQLAlchemyError if it cannot be opened.
    """
    return open_engine(url, _prepare, connected=_set_up, begin=_begin)


def make(text: str) -> None:
    """Makes the table at this URL, which stands under [push] names. Raises SettingsError, and NamesUnavailable."""
    try:
        open_for_names(parse_url(text, "[push] names")).dispose()
    except (SQLAlchemyError, OSError) as error:
        raise NamesUnavailable(f"the table of names cannot be made: {reason_of(error)}") from None


def claim(
    connection: Connection, queue: str, requests: Sequence[NameRequest], stale: Mapping[str, str]
) -> tuple[dict[str, State], dict[str, str]]:
    """The names that are taken, and the claims of others that the caller must wait for (name to delivery).

    If there is nothing to wait for, all other names are claimed, else none. Claims in `stale` are taken over.
    """
    now = datetime.now(UTC)
    taken: dict[str, State] = {}
    pending: dict[str, str] = {}
    for name, row in _rows(connection, queue, [request.name for request in requests]).items():
        if row.free <= now or (row.state == "claimed" and stale.get(name) == row.delivery):
            _delete(connection, queue, name)
        elif row.state == "claimed":
            pending[name] = row.delivery
        else:
            taken[name] = row.state
    if not pending:
        # in order of names, as every process locks rows
        for request in sorted(requests, key=lambda request: request.name):
            if request.name not in taken:
                free = max(now, request.eta) + KEEP
                _insert(connection, queue, request.name, request.delivery, "claimed", now, free)
    return taken, pending


def confirm(connection: Connection, queue: str, deliveries: Mapping[str, str]) -> set[str]:
    """Marks these names (name to delivery) as put. Returns those that others have taken over."""
    now = datetime.now(UTC)
    lost = set()
    rows = _rows(connection, queue, deliveries)
    for name, delivery in sorted(deliveries.items()):
        row = rows.get(name)
        if row is None:
            _insert(connection, queue, name, delivery, "put", now, now + KEEP)
        elif row.delivery not in (delivery, ""):
            lost.add(name)
        elif row.state == "claimed":
            # `free` stays: the claim knew the eta
            _change(connection, queue, name, state="put", since=now)
    return lost


def release(connection: Connection, queue: str, deliveries: Mapping[str, str]) -> None:
    """Frees these names (name to delivery) if the claim is still theirs."""
    for name, delivery in sorted(deliveries.items()):
        ours = (_COLUMNS.delivery == delivery, _COLUMNS.state == "claimed")
        connection.execute(task_names.delete().where(_COLUMNS.queue == queue, _COLUMNS.name == name, *ours))


def record(connection: Connection, queue: str, names: Collection[str], state: State) -> None:
    """Records that these names' tasks are alive ("put") or finished (TOMBSTONE), which is final."""
    now = datetime.now(UTC)
    rows = _rows(connection, queue, names)
    for name in sorted(set(names)):
        row = rows.get(name)
        if row is None:
            _insert(connection, queue, name, "", state, now, now + KEEP)
        elif state == TOMBSTONE:
            _change(connection, queue, name, state=TOMBSTONE, since=now, free=now + KEEP)
        elif row.state == "claimed" or (row.state == "put" and row.free < now + KEEP - MIN_EXTENSION):
            _change(connection, queue, name, state="put", free=max(row.free, now + KEEP))


def prune(connection: Connection, limit: int) -> int:
    """Deletes at most `limit` rows whose names are free; returns how many."""
    now = datetime.now(UTC)
    connection.execute(task_names.update().where(_COLUMNS.free > now + MAX_HOLD + KEEP).values(free=now + MAX_HOLD))
    keys = (_COLUMNS.queue, _COLUMNS.name)
    old = connection.execute(sa.select(*keys).where(_COLUMNS.free <= now).limit(limit)).all()
    for queue, name in old:
        _delete(connection, queue, name)
    return len(old)


def _set_up(connection: Any, _record: object) -> None:
    # FULL: a claim that a power cut undoes would let its name be put twice
    for pragma in ("synchronous = FULL", f"busy_timeout = {int(TURN[1] * 1000)}"):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin(connection: Connection) -> None:
    """Waits for other processes' transactions, at most BUSY seconds.

    SQLite itself retries only ten times a second, so the process that has waited longest starves beside busy ones.
    """
    raw = connection.connection.driver_connection
    deadline = time.monotonic() + BUSY
    while raw is not None and time.monotonic() < deadline:
        try:
            raw.execute("BEGIN IMMEDIATE").close()
            return
        except sqlite3.Error as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                break
            time.sleep(backoff.between(*TURN))
    # the last try goes through SQLAlchemy, so that a failure is one of its exceptions
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _prepare(connection: Connection, url: URL) -> None:
    """Creates what is missing, inside the caller's transaction."""
    metadata.create_all(connection)
    versions.create(connection, checkfirst=True)
    checked_version(connection, "names", VERSION, url, "[push] names")
    write_version(connection, "names", VERSION, oldest=VERSION)


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
