"""The ledger's one table, and how a database is opened for it."""

from __future__ import annotations

import os
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.types import TypeDecorator

from glassq.errors import SettingsError
from glassq.ledger.url import file_of, unreadable
from glassq.ledger.version import JOBS_ARE_TEXT, check, missing, stamp
from glassq.ledger.version import VERSION as VERSION
from glassq.log import fields, logger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from sqlalchemy.engine import URL, Connection, Dialect, Engine

log = logger("glassq.ledger")

# When you change the table below: raise VERSION in version.py, say there which columns are new, and let `prepare` bring
# a database of the version before to the new one (it runs in a transaction that no other process can enter).
# How long SQLite waits for another process's transaction, in seconds. Shorter than the writer's patience at its end.
BUSY = 2.0


class Moment(TypeDecorator[datetime]):
    """A time as text of one width, in UTC: it reads well in any SQL shell, and sorts and compares as time does."""

    impl = sa.String(27)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> str | None:
        return None if value is None else stamp(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        return None if value is None else datetime.fromisoformat(value)


metadata = sa.MetaData()

# One row per delivery: what it came to last. The columns are those of Entry.
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
    # since version 4; the large ones last, so that SQLite reads past none of them. The length chooses MySQL's type.
    sa.Column("replayed", sa.String(64), nullable=False, server_default=""),
    sa.Column("labels", sa.Text(1 << 20)),
    sa.Column("body", sa.LargeBinary(1 << 20)),
)

meta = sa.Table(
    "meta",
    metadata,
    sa.Column("name", sa.String(16), primary_key=True),
    sa.Column("value", sa.Integer, nullable=False),
)


# Open deliveries are few among all: counting them must not take a look at each row.
_OPEN_INDEX = "CREATE INDEX IF NOT EXISTS deliveries_open ON deliveries (updated) WHERE state IN ('buried', 'retrying')"


def parse_url(text: str, key: str = "[ledger] url") -> URL:
    """The database's URL, as it stands under `key`, checked as far as that goes without connecting.

    Raises SettingsError where it is no URL, or the Python driver for it is missing.
    """
    try:
        url = sa.make_url(text)
        url.get_dialect().import_dbapi()
    except NoSuchModuleError:
        raise SettingsError(f'{key} = "{url}": SQLAlchemy knows no {url.drivername} database') from None
    except ArgumentError:
        # what could not be parsed may hold a password
        raise SettingsError(f'{key}: expected a database URL such as "sqlite:////var/lib/ledger.db"') from None
    except ImportError as error:
        raise SettingsError(f'{key} = "{url}": its Python driver is missing: {error}') from None
    # which SQLAlchemy 2.1 unquotes, and 2.0 takes as it is written
    file = file_of(text)
    return url if file is None else url.set(database=str(file))


def sqlite_file(url: URL) -> Path | None:
    """The file of an SQLite database; None for one in memory, and for other databases."""
    name = url.database
    if url.get_backend_name() != "sqlite" or not name or name == ":memory:" or name.startswith("file:"):
        return None
    return Path(name)


def open_engine(
    url: URL,
    prepare: Callable[[Connection, URL], None],
    *,
    connected: Callable[[Any, object], None] | None = None,
    begin: Callable[[Connection], None] | None = None,
) -> Engine:
    """An engine on a database that is written, which is created where that is needed.

    `prepare` runs in its first transaction. `connected` sets up SQLite's connections further, `begin` begins its
    transactions: by default at once.
    Raises what `prepare` raises, and OSError or SQLAlchemyError where it cannot be opened.
    """
    file = sqlite_file(url)
    if file is not None:
        _create(file)
    engine = sa.create_engine(url, pool_pre_ping=file is None)
    if url.get_backend_name() == "sqlite":
        sa.event.listen(engine, "connect", set_up_sqlite)
        if connected is not None:
            sa.event.listen(engine, "connect", connected)
        sa.event.listen(engine, "begin", begin or _begin_at_once)
    try:
        with engine.begin() as connection:
            prepare(connection, url)
    except BaseException:
        engine.dispose()
        raise
    return engine


def _create(file: Path) -> None:
    """The file, for its owner alone: SQLite would use the umask, and gives its -wal and -shm the mode of this file.

    It is never opened here: whoever closes a descriptor of a file loses all locks of the process on it (fcntl(2)), and
    SQLite would go on as if it held them, until another process deletes the -wal that this one writes to.
    """
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with suppress(FileExistsError):
        os.mknod(file, 0o600)


def open_for_writing(url: URL) -> Engine:
    """An engine on the ledger, which is created and brought to VERSION where that is needed.

    Raises SettingsError where the schema is of another version, OSError or SQLAlchemyError where it cannot be opened.
    """
    return open_engine(url, prepare)


class Lasting:
    """An engine for long: opened when it is first asked for, and anew where its file was moved or removed.

    SQLite would go on writing to the file that nobody sees any more.
    """

    def __init__(self, url: URL, opened: Callable[[URL], Engine], what: str) -> None:
        """`what` the log calls it."""
        self._url = url
        self._file = sqlite_file(url)
        self._opened = opened
        self._what = what
        self._engine: Engine | None = None
        self._identity: tuple[int, int] | None = None

    def engine(self) -> Engine:
        """Raises what opening raises."""
        if self._engine is not None and self._identity != self._look():
            log.warning("%s was moved or removed: another one is begun %s", self._what, fields(file=self._file))
            self.close()
        if self._engine is None:
            self._engine = self._opened(self._url)
            self._identity = self._look()
        return self._engine

    def close(self) -> None:
        """Closes the connection; the next call opens another."""
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.dispose()

    def _look(self) -> tuple[int, int] | None:
        """Which file the path names now; None where there is none."""
        try:
            found = self._file.stat() if self._file is not None else None
        except OSError:
            return None
        return (found.st_dev, found.st_ino) if found is not None else None


def open_for_reading(url: URL) -> tuple[Engine, int] | None:
    """An engine that changes nothing and creates nothing; None for a database without any table (yet).

    Beside it is the version of its schema, which may be an older one until the pool writes to it.
    Raises SettingsError for a schema of a newer version, SQLAlchemyError where it is no ledger.
    """
    file = sqlite_file(url)
    if file is not None:
        # RFC 3986 in SQLite's "URI Filenames": ?, # and % in a path must be quoted
        name = file.absolute().as_uri()
        url = url.set(database=name).update_query_dict({"mode": "ro", "uri": "true"})
    engine = sa.create_engine(url)
    try:
        with engine.connect() as connection:
            if sa.inspect(connection).get_table_names():
                return engine, check_version(connection, url) or VERSION
    except BaseException:
        engine.dispose()
        raise
    engine.dispose()
    return None


class Readable:
    """A database of any kind, as the reader asks it."""

    def __init__(self, engine: Engine, url: URL, version: int) -> None:
        self._engine = engine
        self._url = url
        self.version = version

    @classmethod
    def open(cls, text: str) -> Self | None:
        """None for a database without any table (yet). Raises SettingsError."""
        url = parse_url(text)
        file = sqlite_file(url)
        try:
            opened = None if file is not None and not file.exists() else open_for_reading(url)
        except OSError as error:
            raise unreadable(url, error.strerror) from None
        except SQLAlchemyError as error:
            raise unreadable(url, getattr(error, "orig", None) or error) from None
        return cls(opened[0], url, opened[1]) if opened else None

    def rows(self, query: str, values: dict[str, Any], limit: int | None) -> tuple[Sequence[str], list[Any]]:
        """Names of columns, and `limit` rows at most. Raises SettingsError."""
        try:
            with self._engine.connect() as connection:
                found = connection.execute(sa.text(query), values)
                return list(found.keys()), list(found.all() if limit is None else found.fetchmany(limit))
        except SQLAlchemyError as error:
            raise unreadable(self._url, getattr(error, "orig", None) or error) from None

    def each(self, query: str, values: dict[str, Any]) -> Iterator[Any]:
        """The rows, read as they are asked for. Raises SettingsError."""
        try:
            with self._engine.connect() as connection:
                # without this, most drivers fetch all of them first
                yield from connection.execution_options(yield_per=500).execute(sa.text(query), values)
        except SQLAlchemyError as error:
            raise unreadable(self._url, getattr(error, "orig", None) or error) from None

    def close(self) -> None:
        """Closes the connection."""
        self._engine.dispose()


def prepare(connection: Connection, url: URL) -> None:
    """Creates what is missing, inside the caller's transaction."""
    metadata.create_all(connection)
    if connection.dialect.name in ("sqlite", "postgresql"):
        # no version of its own: whoever does not know it works as well
        connection.exec_driver_sql(_OPEN_INDEX)
    found = check_version(connection, url)
    if found is None:
        connection.execute(meta.insert().values(name="schema", value=VERSION))
    elif found < VERSION:
        _add_columns(connection, missing(found))
        if found < JOBS_ARE_TEXT:
            _make_jobs_text(connection)
        connection.execute(meta.update().where(meta.c.name == "schema").values(value=VERSION))


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
    elif connection.dialect.name in ("mysql", "mariadb"):
        connection.exec_driver_sql("ALTER TABLE deliveries MODIFY job VARCHAR(128) NOT NULL")


def check_version(connection: Connection, url: URL) -> int | None:
    """The schema's version; None in a database without one. Raises SettingsError where it is newer than ours."""
    found = connection.scalar(sa.select(meta.c.value).where(meta.c.name == "schema"))
    check(found, url)
    return found


def set_up_sqlite(connection: Any, _record: object) -> None:
    # without this, sqlite3 begins transactions when it sees fit, and only for writing statements
    connection.isolation_level = None
    for pragma in (f"busy_timeout = {int(BUSY * 1000)}", "journal_mode = WAL", "synchronous = NORMAL"):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin_at_once(connection: Connection) -> None:
    # A transaction that reads first and writes later fails at once, without waiting, when another one wrote meanwhile.
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def try_write(text: str, key: str) -> None:
    """Begins to write to the database whose URL stands under `key`, and takes it back; nothing is created.

    An SQLite file must be there already. Raises SettingsError with the reason where it cannot be written.
    """
    url = parse_url(text, key)
    file, place = sqlite_file(url), url
    if file is not None:
        # RFC 3986 in SQLite's "URI Filenames": ?, # and % in a path must be quoted
        place = url.set(database=file.absolute().as_uri()).update_query_dict({"mode": "rw", "uri": "true"})
    engine = sa.create_engine(place)
    try:
        with engine.connect() as connection:
            if url.get_backend_name() == "sqlite":
                connection.exec_driver_sql(f"PRAGMA busy_timeout = {int(BUSY * 1000)}").close()
                _begin_at_once(connection)
            connection.rollback()
    except (SQLAlchemyError, OSError) as error:
        raise SettingsError(f'{key} = "{url}": cannot be written: {getattr(error, "orig", None) or error}') from None
    finally:
        engine.dispose()
