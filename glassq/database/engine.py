"""How a database is opened, for writing and for reading, and what went wrong in words."""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from glassq.database import locks
from glassq.database.plain import file_of
from glassq.database.rights import Trouble
from glassq.database.sqlite_file import BUSY, file_problem, plain_file_of, way_out
from glassq.descriptors import Descriptor, own_opened
from glassq.errors import SettingsError
from glassq.log import fields, logger
from glassq.values import is_postgres, without_password

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.engine import Connection, Engine

    from glassq.database.schema import Needs

log = logger("glassq.database")

T = TypeVar("T")

# For each connection to PostgreSQL; times in seconds, the last one in milliseconds.
_LIBPQ = {
    "application_name": "glassq",
    "connect_timeout": 2,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
}


def parse_url(text: str, key: str) -> URL:
    """The database's URL, SQLAlchemy's or libpq's, of the setting `key`, checked as far as possible without connecting.

    Raises SettingsError if it is not a URL, or if its Python driver is missing.
    """
    try:
        url = DatabaseUrl.of(text)
        url.get_dialect().import_dbapi()
    except NoSuchModuleError:
        raise SettingsError(f'{key} = "{url}": SQLAlchemy knows no {url.drivername} database') from None
    except ArgumentError:
        # the text is not shown: what cannot be parsed may hold a password
        raise SettingsError(f'{key}: expected a database URL such as "sqlite:////var/lib/ledger.db"') from None
    except ImportError as error:
        todo = (
            ": pip install 'glassq[postgres]'"
            if is_postgres(text)
            else "; install it, or name another: DIALECT+DRIVER://"
        )
        raise SettingsError(f'{key} = "{url}": its Python driver is missing: {error}{todo}') from None
    return url


class DatabaseUrl(URL):
    """A URL of SQLAlchemy's that is shown as the settings have it, without its password."""

    text = ""

    @classmethod
    def of(cls, text: str) -> Self:
        """The URL of this text, SQLAlchemy's or libpq's. Raises ArgumentError."""
        url = _of_libpq(text) if is_postgres(text) else sa.make_url(text)
        # SQLAlchemy 2.1 decodes %XX in the path, 2.0 does not
        file = file_of(text)
        made = cls(*(url if file is None else url.set(database=str(file))))
        made.text = without_password(text)
        return made

    def __str__(self) -> str:
        return self.text or super().__str__()


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
    """An engine that writes. The database is created if it is missing.

    `prepare` runs in the first transaction. For SQLite, `connected` sets further options of each connection, and
    `begin` begins its transactions (default: BEGIN IMMEDIATE).
    Raises what `prepare` raises, and OSError or SQLAlchemyError if the database cannot be opened.
    """
    file = sqlite_file(url)
    if file is not None:
        _create(file)
    engine = _engine(url, pool_pre_ping=file is None)
    if url.get_backend_name() == "sqlite":
        sa.event.listen(engine, "connect", _set_up_sqlite)
        if connected is not None:
            sa.event.listen(engine, "connect", connected)
        sa.event.listen(engine, "begin", begin or _begin_immediate)
    try:
        with engine.begin() as connection:
            if connection.dialect.name == "postgresql":
                # to create what is missing fails where another one does it at once
                connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({locks.TABLES})").close()
            prepare(connection, url)
    except BaseException:
        engine.dispose()
        raise
    return engine


def open_read_only(url: URL) -> Engine:
    """An engine that changes nothing and creates nothing. Nothing is connected before its first use."""
    file = sqlite_file(url)
    return _engine(url if file is None else _in_mode(url, file, "ro"))


def reason_of(error: Exception) -> str:
    """The database's own words: SQLAlchemy's message repeats the statement and its values, bodies among them."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    # libpq adds lines: a guess, or the statement
    said = str(getattr(error, "orig", None) or error).strip().partition("\n")[0]
    return said if isinstance(error, SQLAlchemyError) else f"{type(error).__name__}: {said}"


def write_problem(text: str, key: str, needs: Needs | None = None) -> Trouble | None:
    """Why the database whose URL stands under `key` cannot be written, and what to do; None if it can.

    Begins a transaction and rolls it back; asks PostgreSQL about the tables that are needed. An SQLite file that is
    missing is a problem, and is not created. Raises SettingsError if the URL cannot be used.
    """
    if (plain := plain_file_of(text)) is not None:
        return file_problem(plain, text, key)
    url = parse_url(text, key)
    file = sqlite_file(url)
    engine = _engine(url if file is None else _in_mode(url, file, "rw"))
    try:
        with engine.connect() as connection:
            if url.get_backend_name() == "sqlite":
                connection.exec_driver_sql(f"PRAGMA busy_timeout = {int(BUSY * 1000)}").close()
                _begin_immediate(connection)
            elif url.get_backend_name() == "postgresql" and needs is not None and (found := needs.trouble(connection)):
                return Trouble(f'{key} = "{url}": cannot be written: {found.said}', found.todo)
            connection.rollback()
    except (SQLAlchemyError, OSError) as error:
        todo = way_out(getattr(getattr(error, "orig", None), "sqlite_errorcode", None), file)
        return Trouble(f'{key} = "{url}": cannot be written: {reason_of(error)}', todo)
    finally:
        engine.dispose()
    return None


def owned(opened: Callable[[], T], file: Path | None, what: str) -> tuple[T, list[Descriptor]]:
    """What `opened` returns, with the descriptors of SQLite that it has opened; see `descriptors.own_opened`."""
    if file is None:
        return opened(), []
    return own_opened(opened, [file.with_name(file.name + beside) for beside in ("", "-wal", "-shm")], what)


class ReopeningEngine:
    """An engine for a long time: opened on first use, and again if its file was moved or removed.

    Without this, SQLite would go on writing to the file that no path leads to any more.
    """

    def __init__(self, url: URL, opened: Callable[[URL], Engine], what: str) -> None:
        """`what` is the database's name in log lines."""
        self._url = url
        self._file = sqlite_file(url)
        self._opened = opened
        self._what = what
        self._engine: Engine | None = None
        self._descriptors: list[Descriptor] = []
        self._identity: tuple[int, int] | None = None

    def engine(self) -> Engine:
        """The engine, opened if necessary. Raises what opening raises."""
        if self._engine is not None and self._identity != self._stat():
            log.warning("%s was moved or removed: another one is begun %s", self._what, fields(file=self._file))
            self.close()
        if self._engine is None:
            made, self._descriptors = owned(lambda: self._opened(self._url), self._file, f"the {self._what}")
            self._engine, self._identity = made, self._stat()
            return made
        return self._engine

    def close(self) -> None:
        """Closes the connections; the next call of `engine` opens others."""
        engine, self._engine, self._descriptors = self._engine, None, []
        if engine is not None:
            engine.dispose()

    def _stat(self) -> tuple[int, int] | None:
        """Device and inode of the file; None if there is none."""
        try:
            found = self._file.stat() if self._file is not None else None
        except OSError:
            return None
        return (found.st_dev, found.st_ino) if found is not None else None


def _engine(url: URL, **options: Any) -> Engine:
    on_libpq = url.get_backend_name() == "postgresql" and url.get_driver_name().startswith("psycopg")
    if on_libpq:
        # a server that is gone with its machine is noticed, and none is waited for without end
        options["connect_args"] = {name: value for name, value in _LIBPQ.items() if name not in url.query}
    engine = sa.create_engine(url, **options)
    if on_libpq and url.get_driver_name() == "psycopg":
        sa.event.listen(engine, "do_connect", _without_ignored_passfile)
    return engine


def _without_ignored_passfile(_dialect: Any, _record: object, _arguments: Any, options: dict[str, Any]) -> None:
    """libpq would say at each connection, on standard error, that it ignores the file; doctor says it."""
    from glassq.database.libpq import below, ignored_passfile

    if passfile := ignored_passfile(options):
        options["passfile"] = below(passfile)


def _of_libpq(text: str) -> URL:
    """A URL as libpq has it, which SQLAlchemy's psycopg passes on; it may name several hosts."""
    rest = text.partition("://")[2]
    authority, slash, path = rest.partition("/")
    user, at, hosts = authority.rpartition("@")
    if "," not in hosts:
        return sa.make_url(f"postgresql+psycopg://{rest}")
    url = sa.make_url(f"postgresql+psycopg://{user}{at}{slash}{path}").update_query_dict({"host": hosts.split(",")})
    return url if "target_session_attrs" in url.query else url.update_query_dict({"target_session_attrs": "read-write"})


def _create(file: Path) -> None:
    """Creates the file for its owner alone. SQLite itself would use the umask; -wal and -shm get the file's mode.

    The file is not opened: closing any descriptor of it drops all locks of this process on it (fcntl(2)). SQLite would
    believe that it still holds them, and another process could delete the -wal that is being written.
    """
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with suppress(FileExistsError):
        os.mknod(file, 0o600)


def _in_mode(url: URL, file: Path, mode: str) -> URL:
    # RFC 3986 in SQLite's "URI Filenames": ?, # and % in a path must be quoted
    return url.set(database=file.absolute().as_uri()).update_query_dict({"mode": mode, "uri": "true"})


def _set_up_sqlite(connection: Any, _record: object) -> None:
    # Python's sqlite3 would begin transactions by itself, and only for writing statements
    connection.isolation_level = None
    connection.execute(f"PRAGMA busy_timeout = {int(BUSY * 1000)}").close()
    _use_wal(connection)
    connection.execute("PRAGMA synchronous = NORMAL").close()


def _use_wal(connection: Any) -> None:
    """SQLite does not wait where several connections make a new file's first switch at once: one of them succeeds."""
    deadline = time.monotonic() + BUSY
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL").close()
            return
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _begin_immediate(connection: Connection) -> None:
    # A transaction that reads first and writes later fails without waiting if another one has written meanwhile.
    connection.exec_driver_sql("BEGIN IMMEDIATE")
