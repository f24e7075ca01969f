"""What every schema of ours shares: how a column holds a time, and the table of versions."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.types import TypeDecorator

from glassq.database.plain import stamp

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection, Dialect


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


def read_version(connection: Connection, name: str) -> int | None:
    """The version of this schema; None if the database does not have it."""
    found: int | None = connection.scalar(sa.select(versions.c.value).where(versions.c.name == name))
    return found


def write_version(connection: Connection, name: str, version: int) -> None:
    """Records the version of this schema, inside the caller's transaction."""
    found = read_version(connection, name)
    if found is None:
        connection.execute(versions.insert().values(name=name, value=version))
    elif found != version:
        connection.execute(versions.update().where(versions.c.name == name).values(value=version))
