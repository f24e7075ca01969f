"""Reading the ledger, for people: it changes nothing and creates nothing.

An SQLite file, which is the usual ledger, is read with Python's own module: loading SQLAlchemy takes longer than most
commands. So the questions are plain SQL, the same for every database.
"""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from dataclasses import fields
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

from glassq.errors import SettingsError
from glassq.ledger.entry import Entry
from glassq.ledger.version import check, stamp

if TYPE_CHECKING:
    from collections.abc import Sequence

    from glassq.settings import Ledger as LedgerSettings

# A plain path, as SQLAlchemy takes it: up to a "?", with nothing quoted.
_FILE = re.compile(r"sqlite(?:\+pysqlite)?:///(?!:memory:|file:)([^?]+)")
_NAMES = frozenset(field.name for field in fields(Entry))
_MOMENTS = ("received", "updated", "started")

_EXACTLY = "SELECT * FROM deliveries WHERE delivery = :prefix"
_PREFIX = "SELECT * FROM deliveries WHERE delivery LIKE :prefix ESCAPE '/' ORDER BY delivery"
_RECENT = "SELECT * FROM deliveries ORDER BY updated DESC"
_RECENT_OF = "SELECT * FROM deliveries WHERE state = :state ORDER BY updated DESC"
_JOBS = "SELECT job FROM deliveries WHERE state = :state AND job > 0"
_COUNTS = "SELECT state, count(*) FROM deliveries WHERE updated >= :since GROUP BY state"


class _Database(Protocol):
    def rows(self, query: str, values: dict[str, Any], limit: int | None) -> tuple[Sequence[str], list[Any]]:
        """Names of columns, and rows. Raises SettingsError."""

    def close(self) -> None:
        """Closes the connection."""


class LedgerReader:
    """The ledger of the settings as it is now. A ledger that nobody has written yet is empty, and says so.

    Every call, and making one, raises SettingsError where the ledger is there but cannot be read.
    """

    def __init__(self, settings: LedgerSettings) -> None:
        plain = _FILE.fullmatch(settings.url)
        #: why there is nothing to read, in words; "" where there is
        self.absent = ""
        self._database: _Database | None = None
        if plain is None:
            from glassq.ledger.schema import Readable

            self._database = Readable.open(settings.url)
        elif not _exists(Path(plain[1]), settings.url):
            self.absent = f"no ledger at {plain[1]} yet"
            return
        else:
            self._database = _File.open(Path(plain[1]), settings.url)
        if self._database is None:
            self.absent = f"the ledger at {settings.url} is still empty"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def get(self, delivery: str) -> Entry | None:
        """The entry of a delivery id, or of a prefix that only one has; else None."""
        found = self.find(delivery, limit=2)
        return found[0] if len(found) == 1 else None

    def find(self, prefix: str, limit: int = 10) -> list[Entry]:
        """The entries whose delivery ids begin so, by id; an id that is exactly so comes alone."""
        exactly = self._entries(_EXACTLY, 1, prefix=prefix)
        return exactly or self._entries(_PREFIX, limit, prefix=re.sub("([/%_])", r"/\1", prefix) + "%")

    def recent(self, limit: int, state: str | None = None) -> list[Entry]:
        """The `limit` entries updated last, newest first; of one state if it is given."""
        return self._entries(_RECENT, limit) if state is None else self._entries(_RECENT_OF, limit, state=state)

    def jobs(self, state: str) -> list[int]:
        """The ids of the jobs that held the deliveries of this state when it was written."""
        return [row[0] for row in self._rows(_JOBS, state=state)[1]]

    def counts(self, since: datetime | None = None) -> dict[str, int]:
        """How many deliveries are in which state; only those updated at `since` or later if it is given."""
        return {row[0]: row[1] for row in self._rows(_COUNTS, since=stamp(since) if since else "")[1]}

    def close(self) -> None:
        """Closes the connection."""
        if self._database is not None:
            self._database.close()

    def _entries(self, query: str, limit: int, **values: Any) -> list[Entry]:
        names, rows = self._rows(query, limit, **values)
        return [_entry(dict(zip(names, row, strict=True))) for row in rows]

    def _rows(self, query: str, limit: int | None = None, **values: Any) -> tuple[Sequence[str], list[Any]]:
        return ((), []) if self._database is None else self._database.rows(query, values, limit)


class _File:
    """An SQLite file."""

    def __init__(self, connection: sqlite3.Connection, url: str) -> None:
        self._connection = connection
        self._url = url

    @classmethod
    def open(cls, file: Path, url: str) -> Self | None:
        """None for a database without any table (yet). Raises SettingsError."""
        try:
            # RFC 3986 in SQLite's "URI Filenames": ?, # and % in a path must be quoted
            made = cls(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True), url)
        except sqlite3.Error as error:
            raise unreadable(url, error) from None
        try:
            if not made.rows("SELECT name FROM sqlite_master", {}, 1)[1]:
                made.close()
                return None
            versions = made.rows("SELECT value FROM meta WHERE name = 'schema'", {}, 1)[1]
            check(versions[0][0] if versions else None, url)
        except BaseException:
            made.close()
            raise
        return made

    def rows(self, query: str, values: dict[str, Any], limit: int | None) -> tuple[Sequence[str], list[Any]]:
        try:
            with closing(self._connection.execute(query, values)) as cursor:
                names = [column[0] for column in cursor.description]
                return names, cursor.fetchall() if limit is None else cursor.fetchmany(limit)
        except sqlite3.Error as error:
            raise unreadable(self._url, error) from None

    def close(self) -> None:
        self._connection.close()


def unreadable(url: object, why: object) -> SettingsError:
    """What to say of a ledger that is there but cannot be read."""
    return SettingsError(f'[ledger] url = "{url}": cannot be read: {why}')


def _exists(file: Path, url: str) -> bool:
    try:
        return file.exists()
    except OSError as error:
        # where a directory on the way may not be entered
        raise unreadable(url, error.strerror) from None


def _entry(row: dict[str, Any]) -> Entry:
    """The columns that an older version has not keep their defaults; those of a newer one nobody asks for."""
    for name in _MOMENTS:
        if isinstance(row.get(name), str):
            row[name] = datetime.fromisoformat(row[name])
    return Entry(**{name: value for name, value in row.items() if name in _NAMES})
