"""What operators did to deliveries outside the pool, recorded in the ledger.

Without it a deleted delivery would look lost, and a replay could put a delivery twice by mistake.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Self, TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from glassq.database.engine import reason_of
from glassq.ledger.schema import activities, deliveries, open_for_writing, parse_url
from glassq.ledger.version import unwritable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sqlalchemy.engine import Connection, Engine

    from glassq.settings import LedgerSettings

T = TypeVar("T")

# Without in_(), whose list SQLAlchemy renders anew for each row.
_OPEN = (deliveries.c.state == "buried") | (deliveries.c.state == "retrying")
_ONE = (deliveries.c.delivery == sa.bindparam("which"), _OPEN)
# The body goes as well: the delivery was removed for good.
_DELETED = (
    deliveries.update()
    .where(*_ONE)
    .values(state="deleted", job="", updated=sa.bindparam("now"), reason=sa.bindparam("why"))
    .values(body=None, labels=None, kept=None, story=None)
)
_FORGOTTEN = deliveries.delete().where(deliveries.c.delivery == sa.bindparam("which"))
_HELD = deliveries.update().where(*_ONE).values(job=sa.bindparam("holder"), tube=sa.bindparam("where"))
_REPLAYED = (
    deliveries.update()
    .where(deliveries.c.delivery == sa.bindparam("old"), deliveries.c.replayed == sa.bindparam("before"))
    .values(replayed=sa.bindparam("again"))
)


class Corrections:
    """A connection of its own to an existing ledger, for one thread.

    When a call returns, its change is written. A delivery that the ledger does not know is not added.
    Opening raises SettingsError for a URL that cannot be used. Each call raises LedgerError if the ledger cannot be
    written, and SettingsError if its schema is newer than ours.
    """

    def __init__(self, settings: LedgerSettings) -> None:
        self._url = parse_url(settings.url)
        self._engine: Engine | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._engine is not None:
            self._engine.dispose()

    def deleted(self, deliveries: Iterable[tuple[str, str]]) -> None:
        """These open deliveries (id, why) were removed for good; `why` names the operator."""
        now = datetime.now(UTC)
        rows = [{"which": delivery, "now": now, "why": why} for delivery, why in deliveries]
        self._transact(lambda connection: connection.execute(_DELETED, rows))

    def forgotten(self, deliveries: Iterable[str]) -> int:
        """These deliveries are removed, whatever state they are in; returns how many of them there were.

        SQLite overwrites what it held of them.
        """
        names = list(deliveries)
        removed = self._transact(lambda connection: _forget(connection, names)) if names else 0
        self._overwrite(removed)
        return removed

    def unnamed(self, labels: Iterable[tuple[str, str]]) -> None:
        """That something was done is kept, but not for which of these labels (name, value)."""
        told = [f"{name}={value}" for name, value in labels]
        self._overwrite(self._transact(lambda connection: _unname(connection, told)))

    def _overwrite(self, changed: int) -> None:
        """The pages as they were do not stay in SQLite's -wal file."""
        if changed and self._engine is not None and self._engine.dialect.name == "sqlite":
            with closing(self._engine.raw_connection()) as connection, suppress(sqlite3.Error):
                connection.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def held(self, deliveries: Iterable[tuple[str, str, str]]) -> None:
        """These open deliveries (id, job, tube) are in other jobs from now on."""
        rows = [{"which": name, "holder": job, "where": tube} for name, job, tube in deliveries]
        self._transact(lambda connection: connection.execute(_HELD, rows))

    def replayed(self, deliveries: Iterable[tuple[str, str, str]]) -> list[bool]:
        """These deliveries (id, again, before) were put again, under the ids `again`.

        `before` is the id that the ledger held when the caller looked ("": none). For each, False if it holds another
        one now, because somebody else has replayed the delivery meanwhile: then nothing is changed.
        """
        rows = [{"old": old, "again": again, "before": before} for old, again, before in deliveries]
        return self._transact(lambda connection: [connection.execute(_REPLAYED, row).rowcount > 0 for row in rows])

    def _transact(self, step: Callable[[Connection], T]) -> T:
        """Runs the step in a transaction."""
        try:
            self._engine = self._engine or open_for_writing(self._url)
            with self._engine.begin() as connection:
                return step(connection)
        except (SQLAlchemyError, OSError) as error:
            raise unwritable(self._url, reason_of(error)) from None


def _unname(connection: Connection, told: list[str]) -> int:
    _delete_securely(connection)
    changed = 0
    for text in told:
        columns = (activities.c.command, activities.c.filter, activities.c.note)
        named = sa.or_(*(column.contains(text, autoescape=True) for column in columns))
        changed += connection.execute(activities.update().where(named).values(command="", filter="", note="")).rowcount
    return changed


def _delete_securely(connection: Connection) -> None:
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("PRAGMA secure_delete = ON").close()


def _forget(connection: Connection, names: list[str]) -> int:
    _delete_securely(connection)
    # one by one, as not every driver counts the rows of many at once
    return sum(connection.execute(_FORGOTTEN, {"which": name}).rowcount for name in names)
