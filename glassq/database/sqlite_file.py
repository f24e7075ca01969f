"""An SQLite file as Python's own module opens it: SQLAlchemy takes longer to load than most commands, and 15 MiB."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Literal

from glassq.database.plain import file_of
from glassq.database.rights import Trouble
from glassq.values import without_password

if TYPE_CHECKING:
    from pathlib import Path

# How long SQLite waits for another process's transaction, in seconds. The ledger's last try at a stop allows for it.
BUSY = 2.0
# What SQLite says of a file that is not, or not any more, a database.
_DAMAGED = (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT)


def plain_file_of(url: str) -> Path | None:
    """The file of an SQLite URL that says nothing else; None for any other: these need SQLAlchemy."""
    return None if "?" in url else file_of(url)


def connect(file: Path, mode: Literal["ro", "rw"]) -> sqlite3.Connection:
    """A connection to a file that is there, without a transaction. Raises sqlite3.Error."""
    # RFC 3986 in SQLite's "URI Filenames": ?, # and % in a path must be quoted
    uri = f"{file.absolute().as_uri()}?mode={mode}"
    return sqlite3.connect(uri, uri=True, timeout=BUSY, isolation_level=None)


def file_problem(file: Path, url: str, key: str) -> Trouble | None:
    """Why the file of the URL that stands under `key` cannot be written, and what to do; None if it can.

    Begins a transaction and rolls it back. A file that is missing is a problem, and is not created.
    """
    try:
        with closing(connect(file, "rw")) as connection:
            connection.execute("BEGIN IMMEDIATE").close()
            connection.execute("ROLLBACK").close()
    except sqlite3.Error as error:
        said = f'{key} = "{without_password(url)}": cannot be written: {error}'
        return Trouble(said, way_out(getattr(error, "sqlite_errorcode", None), file))
    return None


def way_out(code: int | None, file: Path | None) -> str:
    """What helps where SQLite's error says that the file is damaged: nothing can mend it. "" for any other error."""
    if code not in _DAMAGED:
        return ""
    return f"stop what writes it, mv {file} {file}.damaged, and start that again: it begins another one"
