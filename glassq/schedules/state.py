"""What was put of a schedule, as its table has it; the usual ledger, an SQLite file, is read without SQLAlchemy."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import datetime  # noqa: TC003 - msgspec reads the annotation
from typing import TYPE_CHECKING, Literal

import msgspec

from glassq.database.sqlite_file import connect
from glassq.errors import LedgerError

if TYPE_CHECKING:
    from pathlib import Path


class ScheduleState(msgspec.Struct, frozen=True):
    """What was put of one schedule; the fields are columns of the table.

    `state` "claimed": the delivery of `last` is being put, or its host died over that.
    """

    name: str
    last: datetime
    state: Literal["idle", "claimed", "put"] = "idle"
    delivery: str = ""
    claimed: datetime | None = None
    host: str = ""
    paused: datetime | None = None


_COLUMNS = ScheduleState.__struct_fields__
_READ = f"SELECT {', '.join(_COLUMNS)} FROM schedules"  # noqa: S608 - names of columns
_THERE = "SELECT count(*) FROM sqlite_master WHERE name = 'schedules'"


def states_in(file: Path) -> dict[str, ScheduleState]:
    """The states of all schedules in this file; none where it is not there, or has no table of them yet.

    Raises LedgerError.
    """
    if not file.exists():
        return {}
    try:
        with closing(connect(file, "ro")) as connection:
            [there] = connection.execute(_THERE).fetchone()
            rows = connection.execute(_READ).fetchall() if there else []
    except sqlite3.Error as error:
        raise LedgerError(f"{file}: schedules cannot be read: {error}") from None
    states = (msgspec.convert(dict(zip(_COLUMNS, row, strict=True)), ScheduleState) for row in rows)
    return {state.name: state for state in states}
