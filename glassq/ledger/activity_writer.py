"""Writes activities into a ledger that exists.

The usual ledger, an SQLite file, is written with Python's own module, as it is read: loading SQLAlchemy takes longer
than most commands. So the statements are plain SQL, the same for every database.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

from glassq.database.plain import stamp
from glassq.database.sqlite_file import connect, plain_file_of
from glassq.ledger.activity import COLUMNS
from glassq.ledger.reader import LedgerReader
from glassq.ledger.texts import storable
from glassq.ledger.version import VERSION, unwritable

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from pathlib import Path

    from glassq.ledger.activity import Activity
    from glassq.settings import LedgerSettings

# Maximum lengths in characters, of the columns for names and of those for texts.
MAX_LENGTHS = {"id": 64, "actor": 200, "via": 16, "did": 32, "state": 16, "run": 64, "cause": 64}
MAX_TEXT = 2_000


class ActivityWriter:
    """Opens the ledger for each call, so that any thread may use it, for as long as it likes.

    Calls raise LedgerError if the ledger cannot be written, and SettingsError if it is newer than ours or its URL
    cannot be used.
    """

    def __init__(self, settings: LedgerSettings) -> None:
        self._settings = settings

    def absent(self) -> str:
        """Why there is no ledger, in words; "" if there is one. What is missing is not made: it would be the caller's.

        Raises LedgerError and SettingsError.
        """
        with LedgerReader(self._settings) as ledger:
            return ledger.absent

    def add(self, activity: Activity) -> None:
        """A new one."""
        row = row_of(activity)
        marks = ", ".join(f":{name}" for name in row)
        self._write(f"INSERT INTO glassq_activity ({', '.join(row)}) VALUES ({marks})", row)  # noqa: S608 - columns

    def change(self, activity_id: str, changes: Mapping[str, object]) -> None:
        """These fields of an activity have other values now."""
        row = {COLUMNS.get(name, name): stored(name, value) for name, value in changes.items()}
        words = ", ".join(f"{name} = :{name}" for name in row)
        statement = f"UPDATE glassq_activity SET {words} WHERE id = :id"  # noqa: S608 - names of columns
        self._write(statement, {**row, "id": activity_id})

    def _write(self, statement: str, values: Mapping[str, Any]) -> None:
        file = plain_file_of(self._settings.url)
        if file is not None and self._is_ours():
            self._into_file(file, statement, values)
            return
        from glassq.ledger.schema import execute

        execute(self._settings, statement, values)

    def _is_ours(self) -> bool:
        """Whether its tables are as ours, or newer; older ones are brought to this version first."""
        with LedgerReader(self._settings) as ledger:
            return ledger.version == VERSION

    def _into_file(self, file: Path, statement: str, values: Mapping[str, Any]) -> None:
        try:
            with closing(connect(file, "rw")) as connection:
                connection.execute(statement, values).close()
        except sqlite3.Error as error:
            raise unwritable(self._settings.url, error) from None


def row_of(activity: Activity) -> dict[str, Any]:
    """The activity as its table has it, by the names of columns."""
    return {COLUMNS.get(name, name): stored(name, getattr(activity, name)) for name in activity.__struct_fields__}


def stored(name: str, value: Any) -> Any:
    """The value of a field as any database takes it."""
    if isinstance(value, str):
        return storable(value)[: MAX_LENGTHS.get(name, MAX_TEXT)]
    return _moment(value) if name in ("at", "ended") else value


def _moment(value: datetime | None) -> str | None:
    return None if value is None else stamp(value)
