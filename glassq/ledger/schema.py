"""The ledger's two tables, and how a database is opened for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from glassq.database import engine as database
from glassq.database.schema import Moment, Needs, checked_version, versions, write_version
from glassq.ledger.version import ACTIVITIES, JOBS_ARE_TEXT, KEY, OLDEST, missing, unwritable
from glassq.ledger.version import VERSION as VERSION

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy.engine import URL, Connection, Engine

    from glassq.settings import LedgerSettings

# When you change a table below: raise VERSION in version.py, list the new columns there, and let `prepare` bring a
# database of the previous version to the new one (it runs in a transaction that no other process can enter).
metadata = sa.MetaData()

# One row per delivery: its latest outcome. The columns are those of Entry.
deliveries = sa.Table(
    "deliveries",
    metadata,
    sa.Column("delivery", sa.String(64), primary_key=True),
    sa.Column("source", sa.String(64), nullable=False),
    sa.Column("received", Moment, nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("updated", Moment, nullable=False, index=True),
    sa.Column("duration", sa.Float, nullable=False),
    # a number before version 5; an SQLite file of that time still calls it one, and keeps text in it all the same
    sa.Column("job", sa.String(128), nullable=False),
    sa.Column("result", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    # since version 2
    sa.Column("started", Moment),
    sa.Column("fingerprint", sa.String(64), nullable=False, server_default="", index=True),
    sa.Column("event", sa.String(64), nullable=False, server_default="", index=True),
    # since version 3
    sa.Column("tube", sa.String(200), nullable=False, server_default=""),
    # since version 4; large columns come last, so that SQLite need not read past them. The length selects MySQL's type.
    sa.Column("replayed", sa.String(64), nullable=False, server_default=""),
    sa.Column("labels", sa.Text(1 << 20).with_variant(sa.Text(), "postgresql")),
    sa.Column("body", sa.LargeBinary(1 << 20)),
    # since version 6
    sa.Column("kept", sa.Text),
    # since version 7
    sa.Column("story", sa.Text(1 << 20).with_variant(sa.Text(), "postgresql")),
)
# They have no index on some rows alone, as _OPEN_INDEX is.
_WITHOUT_PARTIAL_INDEX = ("mysql", "mariadb")
_STATES = sa.Index("deliveries_state", deliveries.c.state, deliveries.c.updated).ddl_if(
    callable_=lambda *_, dialect, **__: dialect.name in _WITHOUT_PARTIAL_INDEX
)

# Since version 7: who did what. The columns are those of Activity, but for `left`, which is a word of SQL. The name
# says that the table is ours, as it may be in a database with others.
activities = sa.Table(
    "glassq_activity",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("at", Moment, nullable=False, index=True),
    sa.Column("ended", Moment),
    sa.Column("actor", sa.String(200), nullable=False),
    sa.Column("via", sa.String(16), nullable=False),
    sa.Column("did", sa.String(32), nullable=False),
    sa.Column("command", sa.Text, nullable=False),
    sa.Column("filter", sa.Text, nullable=False),
    sa.Column("chosen", sa.Integer, nullable=False),
    sa.Column("done", sa.Integer, nullable=False),
    sa.Column("failed", sa.Integer, nullable=False),
    sa.Column("remaining", sa.Integer, nullable=False),
    sa.Column("run", sa.String(64), nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("note", sa.Text, nullable=False),
    sa.Column("cause", sa.String(64), nullable=False, index=True),
)

NEEDS = Needs((deliveries.name, activities.name), "schema", VERSION)
# Open deliveries are few among all: counting them must not read every row.
_OPEN_INDEX = "CREATE INDEX IF NOT EXISTS deliveries_open ON deliveries (updated) WHERE state IN ('buried', 'retrying')"


def parse_url(text: str) -> URL:
    """The ledger's URL. Raises SettingsError if it is not a URL, or if its Python driver is missing."""
    return database.parse_url(text, KEY)


def open_for_writing(url: URL) -> Engine:
    """An engine on the ledger, which is created, or brought to VERSION, if necessary.

    Raises SettingsError if the schema is newer than ours, OSError or SQLAlchemyError if it cannot be opened.
    """
    return database.open_engine(url, prepare)


def open_for_reading(url: URL) -> tuple[Engine, int] | None:
    """An engine that changes nothing, and the version of the schema; None for a database without any table (yet).

    The version may be older than ours until the pool writes to the ledger.
    Raises SettingsError if it is newer, SQLAlchemyError if this is not a ledger.
    """
    engine = database.open_read_only(url)
    try:
        with engine.connect() as connection:
            tables = sa.inspect(connection).get_table_names()
            # a database of the queue's has other tables, perhaps before it has these
            shared = connection.dialect.name == "postgresql" and deliveries.name not in tables
            if tables and not shared:
                found = checked_version(connection, "schema", VERSION, url, KEY)
                return engine, min(found or VERSION, VERSION)
    except BaseException:
        engine.dispose()
        raise
    engine.dispose()
    return None


def execute(settings: LedgerSettings, statement: str, values: Mapping[str, Any]) -> None:
    """Has one plain SQL statement done, in a ledger that is brought to VERSION if necessary.

    Raises LedgerError if it cannot be written, and SettingsError.
    """
    url = parse_url(settings.url)
    try:
        engine = open_for_writing(url)
        try:
            with engine.begin() as connection:
                connection.execute(sa.text(statement), dict(values))
        finally:
            engine.dispose()
    except (SQLAlchemyError, OSError) as error:
        raise unwritable(url, database.reason_of(error)) from None


def prepare(connection: Connection, url: URL) -> None:
    """Creates what is missing, inside the caller's transaction. Raises SettingsError if the schema is newer."""
    metadata.create_all(connection)
    versions.create(connection, checkfirst=True)
    if connection.dialect.name == "sqlite" or (connection.dialect.name == "postgresql" and not _has_index(connection)):
        # needs no new version: a glassq that does not know the index works as well
        connection.exec_driver_sql(_OPEN_INDEX)
    found = checked_version(connection, "schema", VERSION, url, KEY)
    if found is not None and found < VERSION:
        _add_columns(connection, missing(found))
        if found < ACTIVITIES and connection.dialect.name in _WITHOUT_PARTIAL_INDEX:
            _STATES.create(connection)
        if found < JOBS_ARE_TEXT:
            _make_jobs_text(connection)
    write_version(connection, "schema", VERSION, OLDEST)


def _has_index(connection: Connection) -> bool:
    """Whether PostgreSQL has the index: only the table's owner may ask for it to be made if it is not there."""
    return connection.exec_driver_sql("SELECT to_regclass('deliveries_open')").scalar() is not None


def _add_columns(connection: Connection, names: frozenset[str]) -> None:
    for column in deliveries.columns:
        if column.name in names:
            words = sa.schema.CreateColumn(column).compile(dialect=connection.dialect)
            connection.exec_driver_sql(f"ALTER TABLE {deliveries.name} ADD COLUMN {words}")
    for index in deliveries.indexes:
        if names.intersection(index.columns.keys()):
            index.create(connection)


def _make_jobs_text(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("ALTER TABLE deliveries ALTER COLUMN job TYPE VARCHAR(128) USING job::text")
    elif connection.dialect.name in _WITHOUT_PARTIAL_INDEX:
        connection.exec_driver_sql("ALTER TABLE deliveries MODIFY job VARCHAR(128) NOT NULL")
