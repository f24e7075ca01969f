"""The tables of ours in a PostgreSQL database, part by part, each with a version of its own in `glassq_schema`.

An upgrade goes step by step, while programs of the version before go on: a step only adds, or takes away, what those do
not need. What must be made at a command (the queue's) is `upgrade`d; whoever writes the other parts `prepare`s them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from glassq.database import locks
from glassq.database.rights import Rights, making, upgrading
from glassq.errors import WrongTables

if TYPE_CHECKING:
    from collections.abc import Sequence

    from glassq.database.postgres import PostgresSession
    from glassq.database.rights import Trouble

_VERSIONS = """
CREATE TABLE IF NOT EXISTS glassq_schema
    (part text COLLATE "C" PRIMARY KEY, version int NOT NULL, oldest int NOT NULL)
"""


@dataclass(frozen=True, slots=True)
class SchemaPart:
    """Some tables, by their names. `steps` are the statements that make version 1, 2, ... of the one before.

    `oldest` is the oldest version that goes together with ours: of the tables with our code, and of the code with our
    tables.
    """

    name: str
    tables: tuple[str, ...]
    steps: tuple[tuple[str, ...], ...]
    oldest: int = 1

    @property
    def version(self) -> int:
        """The version that this code makes."""
        return len(self.steps)


def version(session: PostgresSession, part: SchemaPart) -> int:
    """The version of the part's tables; 0 if they are not there. Raises QueueError."""
    return _found(session, part)[0]


def check(session: PostgresSession, part: SchemaPart) -> None:
    """Raises WrongTables if the tables are not there, or not for this code; QueueError."""
    found, oldest = _found(session, part)
    if not found:
        raise _wrong(session, part, "are missing", making(session.rows, session.url))
    if found < part.oldest:
        raise _wrong(session, part, f"are of version {found}", upgrading(session.rows, session.url))
    if oldest > part.version:
        raise _newer(session, part, found)


def upgrade(session: PostgresSession, part: SchemaPart) -> int:
    """Makes the tables, or brings them to our version; the version that was there (0: none). Two at once do no harm.

    Raises WrongTables if a newer glassq has made them, and QueueError.
    """
    with session.transaction():
        session.rows(f"SELECT pg_advisory_xact_lock({locks.TABLES})")
        session.rows(_VERSIONS)
        found, _ = _found(session, part)
        if found > part.version:
            raise _newer(session, part, found)
        if found and (lost := _lost(session, part)):
            raise _broken(session, part, lost)
        for step in part.steps[found:]:
            for statement in step:
                session.rows(statement)
        session.rows(
            "INSERT INTO glassq_schema (part, version, oldest) VALUES (%s, %s, %s) ON CONFLICT (part) DO UPDATE "
            "SET version = excluded.version, oldest = excluded.oldest WHERE glassq_schema.version < excluded.version",
            [part.name, part.version, part.oldest],
        )
    return found


def trouble(session: PostgresSession, part: SchemaPart) -> Trouble | None:
    """What keeps the role of this session from working on a part's tables; None if nothing does. Raises QueueError."""
    rights = Rights.of(session.rows, part.tables, session.url)
    versions = Rights.of(session.rows, ["glassq_schema"], session.url)
    if rights.missing:
        # who makes tables writes down their version
        return rights.trouble() or versions.trouble()
    if any("SELECT" in lacking for lacking in versions.lacking):
        return versions.trouble()
    found, oldest = _found(session, part)
    if oldest > part.version:
        raise _newer(session, part, found)
    return rights.trouble(older=found < part.version)


def prepare(session: PostgresSession, part: SchemaPart) -> None:
    """As `upgrade`, before the caller writes; does nothing where the tables are of our version, or of one for us."""
    found, oldest = _found(session, part)
    if oldest > part.version:
        raise _newer(session, part, found)
    if found < part.version:
        upgrade(session, part)


def _lost(session: PostgresSession, part: SchemaPart) -> list[str]:
    """The tables of the part that are not there."""
    rows = session.rows("SELECT name FROM unnest(%s::text[]) AS name WHERE to_regclass(name) IS NULL", [[*part.tables]])
    return [name for (name,) in rows]


def _found(session: PostgresSession, part: SchemaPart) -> tuple[int, int]:
    """The version that is there, and the oldest code that may use it; 0 and 0 if there is none."""
    [(there,)] = session.rows("SELECT to_regclass('glassq_schema') IS NOT NULL")
    found = session.rows("SELECT version, oldest FROM glassq_schema WHERE part = %s", [part.name]) if there else []
    return found[0] if found else (0, 0)


def _newer(session: PostgresSession, part: SchemaPart, found: int) -> WrongTables:
    return _wrong(
        *(session, part, f"are of version {found}, and this glassq knows {part.version}"),
        "install the newer glassq that made them, or name another database",
    )


def _broken(session: PostgresSession, part: SchemaPart, lost: Sequence[str]) -> WrongTables:
    left = [f"DROP TABLE {name};" for name in part.tables if name not in lost]
    anew = " ".join((*left, "DELETE FROM", "glassq_schema", f"WHERE part = '{part.name}',"))
    return _wrong(
        *(session, part, f"are not whole: {' and '.join(lost)} is gone, dropped or renamed"),
        f"rename it back, or restore a backup; to begin anew without it: {anew} then `glassq queue init`",
    )


def _wrong(session: PostgresSession, part: SchemaPart, what: str, todo: str) -> WrongTables:
    return WrongTables(f"{session.url}: the tables of the {part.name} {what}", todo)
