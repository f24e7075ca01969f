"""The queue's tables, as operators make and upgrade them, and the rights that a role of pools and intake needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from glassq.database import schema_parts
from glassq.errors import InvalidRequest
from glassq.queues.postgres import schema

if TYPE_CHECKING:
    from glassq.database.postgres import PostgresSession

# The tables of ours whose names do not say so, each with a column of it: another program may have one of this name.
_OTHERS = {"deliveries": "fingerprint", "meta": "value", "schedules": "claimed", "task_names": "delivery"}
_OURS = """
SELECT tablename FROM pg_tables
WHERE schemaname = current_schema() AND (tablename LIKE 'glassq\\_%%' OR EXISTS (
    SELECT FROM unnest(%s::text[], %s::text[]) AS other (name, has)
    JOIN pg_attribute ON attrelid = to_regclass(name) AND attname = has
    WHERE name = tablename
)) ORDER BY 1
"""
# Where versions are written down, by which columns; and what a part is called there, where people call it otherwise.
_VERSIONS = (("glassq_schema", "part", "version"), ("meta", "name", "value"))
_HAS_COLUMNS = "SELECT count(*) = 2 FROM pg_attribute WHERE attrelid = to_regclass(%s) AND attname = ANY(%s)"
_NAMES = {"schema": "ledger", "names": "task names"}


class PostgresTables:
    """See `glassq.queues.engine.EngineTables`."""

    engine = "PostgreSQL"
    noun, grants = "tables", True
    known = schema.SCHEMA.version

    def __init__(self, session: PostgresSession) -> None:
        self._session = session

    def version(self) -> int:
        return schema_parts.version(self._session, schema.SCHEMA)

    def check(self) -> None:
        schema.check(self._session)

    def upgrade(self) -> int:
        return schema.upgrade(self._session)

    def parts(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for table, name, value in _VERSIONS:
            [(there,)] = self._session.rows(_HAS_COLUMNS, [table, [name, value]])
            rows = self._session.rows(f"SELECT {name}, {value} FROM {table}") if there else []
            found |= {_NAMES.get(part, part): version for part, version in rows if ":" not in part}
        return found

    def check_role(self, role: str) -> None:
        if not self._session.rows("SELECT 1 FROM pg_roles WHERE rolname = %s", [role]):
            todo = f"CREATE ROLE {quoted(role)} LOGIN PASSWORD '...'; makes it"
            raise InvalidRequest(f"{self._session.url}: there is no role {role}: {todo}")

    def rights(self, role: str) -> list[str]:
        # no CREATE, no TRUNCATE: what works jobs cannot change tables
        tables = [name for (name,) in self._session.rows(_OURS, [[*_OTHERS], [*_OTHERS.values()]])]
        return [f"GRANT {_rights(table)} ON {table} TO {quoted(role)}" for table in tables]

    def grant(self, role: str) -> None:
        with self._session.transaction():
            for statement in self.rights(role):
                self._session.rows(statement)

    def close(self) -> None:
        self._session.close()


def _rights(table: str) -> str:
    return "SELECT" if table == "glassq_schema" else "SELECT, INSERT, UPDATE, DELETE"


def quoted(name: str) -> str:
    """A role's or a table's name as SQL has it, in quotes where it needs them."""
    plain = name.isascii() and name.isidentifier() and name.islower()
    return name if plain else '"{}"'.format(name.replace('"', '""'))
