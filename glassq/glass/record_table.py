"""Encrypted consents in a table of a PostgreSQL database, for all hosts that reach it."""

from __future__ import annotations

import math
from contextlib import contextmanager
from typing import TYPE_CHECKING

from glassq.database import locks
from glassq.database.schema_parts import SchemaPart, prepare
from glassq.database.sessions import session_pool
from glassq.errors import CredentialsError, QueueError
from glassq.values import QueueUrl

if TYPE_CHECKING:
    from collections.abc import Iterator

    from glassq.database.postgres import PostgresSession

# How long a statement may take, in seconds.
TIMEOUT = 5.0
_VERSION_1 = (
    """
    CREATE TABLE IF NOT EXISTS glassq_credentials (
        name text COLLATE "C" PRIMARY KEY,
        data bytea NOT NULL,
        updated timestamptz NOT NULL DEFAULT clock_timestamp()
    )
    """,
)
SCHEMA = SchemaPart("credentials", tables=("glassq_credentials",), steps=(_VERSION_1,))


class RecordTable:
    """See Records."""

    def __init__(self, url: str) -> None:
        """Connects to nothing."""
        self._url = QueueUrl(url)
        self._sessions = session_pool(self._url, "glassq credentials", TIMEOUT)

    def prepare(self) -> None:
        with self._session() as session:
            prepare(session, SCHEMA)

    def exists(self) -> bool:
        with self._session() as session:
            found: bool = session.rows("SELECT to_regclass('glassq_credentials') IS NOT NULL")[0][0]
            return found

    def names(self) -> list[str]:
        if not self.exists():
            return []
        with self._session() as session:
            return [name for (name,) in session.rows("SELECT name FROM glassq_credentials ORDER BY name")]

    def read(self, name: str) -> bytes | None:
        if not self.exists():
            return None
        with self._session() as session:
            return _HeldRows(session).read(name)

    def place(self, name: str) -> str:
        return f"{self._url} {name}"

    @contextmanager
    def held(self, name: str) -> Iterator[_HeldRows]:
        with self._session() as session, session.transaction():
            # the lock ends with the transaction, or with us
            session.rows(f"SELECT pg_advisory_xact_lock({locks.CREDENTIALS})", [name])
            yield _HeldRows(session)

    @contextmanager
    def _session(self) -> Iterator[PostgresSession]:
        try:
            with self._sessions.lend(math.inf) as session:
                yield session
        except QueueError as error:
            raise CredentialsError(f"users' credentials: {error}") from error


class _HeldRows:
    """See HeldRecords."""

    def __init__(self, session: PostgresSession) -> None:
        self._session = session

    def read(self, name: str) -> bytes | None:
        found = self._session.rows("SELECT data FROM glassq_credentials WHERE name = %s", [name])
        return found[0][0] if found else None

    def write(self, name: str, data: bytes) -> None:
        self._session.rows(
            "INSERT INTO glassq_credentials (name, data) VALUES (%s, %s) "
            "ON CONFLICT (name) DO UPDATE SET data = excluded.data, updated = clock_timestamp()",
            [name, data],
        )

    def remove(self, name: str) -> bool:
        return bool(self._session.rows("DELETE FROM glassq_credentials WHERE name = %s RETURNING name", [name]))
