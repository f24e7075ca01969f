"""What every schema of ours shares: how a column holds a time, and the table of versions."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.types import TypeDecorator

from glassq.database.plain import check_version, oldest_of, stamp
from glassq.database.rights import Rights

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection, Dialect

    from glassq.database.rights import Trouble


class Moment(TypeDecorator[datetime]):
    """A time as text in UTC, of one width: readable in any SQL shell, and it sorts and compares as time does."""

    impl = sa.String(27)
    cache_ok = True

    def process_bind_param(self, value: datetime | str | None, dialect: Dialect) -> str | None:
        return stamp(value) if isinstance(value, datetime) else value

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        return None if value is None else datetime.fromisoformat(value)


# The version of each schema in the database: the ledger's is called "schema", the task names' "names".
versions = sa.Table(
    "meta",
    sa.MetaData(),
    sa.Column("name", sa.String(16), primary_key=True),
    sa.Column("value", sa.Integer, nullable=False),
)


@dataclass(frozen=True, slots=True)
class Needs:
    """The tables that a schema needs beside `versions`, and its name there; `version` is that of the calling code."""

    tables: tuple[str, ...]
    name: str
    version: int

    def trouble(self, connection: Connection) -> Trouble | None:
        """What keeps the role of this connection, to PostgreSQL, from writing; None if nothing does."""
        tables = (*self.tables, versions.name)
        rights = Rights.of(lambda asked: connection.exec_driver_sql(asked).fetchall(), tables, connection.engine.url)
        found = None if rights.missing or rights.lacking else read_version(connection, self.name)
        return rights.trouble(older=found is not None and found < self.version)


def read_version(connection: Connection, name: str) -> int | None:
    """The version of this schema; None if the database does not have it."""
    found: int | None = connection.scalar(sa.select(versions.c.value).where(versions.c.name == name))
    return found


def checked_version(connection: Connection, name: str, known: int, url: object, key: str) -> int | None:
    """The same, where `known` is the version of the calling code. Raises SettingsError if it must not use this one."""
    found = read_version(connection, name)
    oldest = read_version(connection, oldest_of(name)) if found is not None and found > known else None
    check_version(found, known, url, key, oldest)
    return found


def write_version(connection: Connection, name: str, version: int, oldest: int) -> None:
    """Records the version of this schema, inside the caller's transaction; a newer one stays.

    `oldest` is the oldest version of the code that may use it, so that both can run during an upgrade.
    """
    found = read_version(connection, name)
    if found is not None and found > version:
        return
    _write(connection, name, version)
    if oldest < version or read_version(connection, oldest_of(name)) is not None:
        _write(connection, oldest_of(name), oldest)


def _write(connection: Connection, name: str, value: int) -> None:
    found = read_version(connection, name)
    if found is None:
        connection.execute(versions.insert().values(name=name, value=value))
    elif found != value:
        connection.execute(versions.update().where(versions.c.name == name).values(value=value))
