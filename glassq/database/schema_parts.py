"""The tables of ours in a PostgreSQL database, part by part, each with a version of its own in `glassq_schema`.

An upgrade goes step by step, while programs of the version before go on: a step only adds what those do not know.
`oldest` is the oldest version of the code that may use the tables as they are now.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from glassq.database import locks
from glassq.errors import WrongTables

if TYPE_CHECKING:
    from glassq.database.postgres import PostgresSession

# The lock under which tables are made or changed; it ends with the transaction.
_LOCK = f"SELECT pg_advisory_xact_lock({locks.TABLES})"
_VERSIONS = """
CREATE TABLE IF NOT EXISTS glassq_schema
    (part text COLLATE "C" PRIMARY KEY, version int NOT NULL, oldest int NOT NULL)
"""


@dataclass(frozen=True, slots=True)
class SchemaPart:
    """Some tables. `steps` are the statements that bring version n to n + 1, from 0 on."""

    name: str
    version: int
    oldest: int
    steps: tuple[str, ...]


def prepare(session: PostgresSession, part: SchemaPart) -> None:
    """Makes the tables, or brings them to this version, before the caller writes; it does nothing if they are there.

    Raises QueueError: WrongTables if they are of a version that this code must not use.
    """
    if session.rows("SELECT to_regclass('glassq_schema') IS NOT NULL")[0][0]:
        found = _found(session, part)
        if found is not None and found >= part.version:
            return
    with session.transaction():
        begin_changes(session)
        found = _found(session, part) or 0
        for step in part.steps[found:]:
            for statement in filter(str.strip, step.split(";")):
                session.rows(statement)
        note_version(session, part.name, part.version, part.oldest)


def begin_changes(session: PostgresSession) -> None:
    """First in a transaction that changes tables: nobody else changes any until it ends. Raises QueueError."""
    session.rows(_LOCK)
    session.rows(_VERSIONS)


def note_version(session: PostgresSession, part: str, version: int, oldest: int) -> None:
    """The part's tables are of this version from now on, unless they are of a later one. Raises QueueError."""
    session.rows(
        "INSERT INTO glassq_schema (part, version, oldest) VALUES (%s, %s, %s) ON CONFLICT (part) DO UPDATE "
        "SET version = excluded.version, oldest = excluded.oldest WHERE glassq_schema.version < excluded.version",
        [part, version, oldest],
    )


def _found(session: PostgresSession, part: SchemaPart) -> int | None:
    """The version that is there; None if there is none."""
    found = session.rows("SELECT version, oldest FROM glassq_schema WHERE part = %s", [part.name])
    if not found:
        return None
    version, oldest = found[0]
    if oldest > part.version:
        raise WrongTables(
            f"{session.url}: its tables of {part.name} are of version {version}, and this glassq knows {part.version}: "
            "install the glassq that made them, or name another database"
        )
    return int(version)
