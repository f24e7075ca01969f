"""The table of task names, how its database is opened, and each step of a name as it runs inside one transaction."""

from __future__ import annotations

import sqlite3
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Literal

import sqlalchemy as sa

from glassq import backoff
from glassq.errors import SettingsError
from glassq.ledger.schema import BUSY, Moment, meta, open_engine

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from typing import Any

    from sqlalchemy.engine import URL, Connection, Engine


# When you change the table below: raise VERSION, and let `_prepare` bring a database of the version before to the new
# one (it runs in a transaction that no other process can enter).
VERSION = 1
# How long a name stays taken after its task is gone, or was heard of last.
KEEP = timedelta(days=9)
# An eta may be 30 days ahead; a row that is kept for longer was written by a clock that was wrong.
MAX_HOLD = timedelta(days=39)
# What a touch would move by less than this is not written.
WORTH_WRITING = timedelta(hours=1)
# How soon SQLite is asked again whether it is our turn to write: between these, in seconds.
TURN = 0.001, 0.01

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


def open_for_names(url: URL) -> Engine:
    """An engine on the database, which is created where that is needed.

    Raises SettingsError where the schema is of another version, OSError or SQLAlchemyError where it cannot be opened.
    """
    return open_engine(url, _prepare, connected=_set_up, begin=_begin)


def claim(
    connection: Connection, queue: str, wanted: Sequence[Wanted], stale: Mapping[str, str]
) -> tuple[dict[str, State], dict[str, str]]:
    """The names that are taken, and the claims that must be waited for (name to delivery).

    Where there is nothing to wait for, all others are claimed, else none. `stale` are claims that are taken over.
    """
    now = datetime.now(UTC)
    taken: dict[str, State] = {}
    pending: dict[str, str] = {}
    for name, row in _rows(connection, queue, [each.name for each in wanted]).items():
        if row.free <= now or (row.state == "claimed" and stale.get(name) == row.delivery):
            _delete(connection, queue, name)
        elif row.state == "claimed":
            pending[name] = row.delivery
        else:
            taken[name] = row.state
    # what has gone from the table by now was free anyway
    for each in sorted(wanted, key=lambda each: each.name):
        if not pending and each.name not in taken:
            _insert(connection, queue, each.name, each.delivery, "claimed", now, max(now, each.eta) + KEEP)
    return taken, pending


def confirm(connection: Connection, queue: str, deliveries: Mapping[str, str]) -> set[str]:
    """Marks these names (name to delivery) as put. The result are names that others took over."""
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
            # only the state: the claim knew the eta
            _change(connection, queue, name, state="put", since=now)
    return lost


def withdraw(connection: Connection, queue: str, deliveries: Mapping[str, str]) -> None:
    """Frees these names (name to delivery) where the claim is still theirs."""
    for name, delivery in sorted(deliveries.items()):
        ours = (_COLUMNS.delivery == delivery, _COLUMNS.state == "claimed")
        connection.execute(task_names.delete().where(_COLUMNS.queue == queue, _COLUMNS.name == name, *ours))


def note(connection: Connection, queue: str, names: Collection[str], state: State) -> None:
    """Writes down that these names' tasks are alive ("put"), or gone. One that is gone does not rise again."""
    now = datetime.now(UTC)
    rows = _rows(connection, queue, names)
    for name in sorted(set(names)):
        row = rows.get(name)
        if row is None:
            _insert(connection, queue, name, "", state, now, now + KEEP)
        elif state == "gone":
            _change(connection, queue, name, state="gone", since=now, free=now + KEEP)
        elif row.state == "claimed" or (row.state == "put" and row.free < now + KEEP - WORTH_WRITING):
            _change(connection, queue, name, state="put", free=max(row.free, now + KEEP))


def prune(connection: Connection, most: int) -> int:
    """Deletes up to `most` rows that are free; returns how many."""
    now = datetime.now(UTC)
    connection.execute(task_names.update().where(_COLUMNS.free > now + MAX_HOLD + KEEP).values(free=now + MAX_HOLD))
    keys = (_COLUMNS.queue, _COLUMNS.name)
    old = connection.execute(sa.select(*keys).where(_COLUMNS.free <= now).limit(most)).all()
    for queue, name in old:
        _delete(connection, queue, name)
    return len(old)


def _set_up(connection: Any, _record: object) -> None:
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
            time.sleep(backoff.between(*TURN))
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
