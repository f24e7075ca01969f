"""Bodies in tables of a PostgreSQL database, for all hosts that reach it.

glassq_bodies          one row a body: its state, its size, when it was touched last
glassq_body_chunks     its bytes, CHUNK in each row
glassq_body_holders    the journals and queues that may name bodies (holders.py)
glassq_body_looks      when all jobs were looked at last

A body and its chunks come in one transaction, and go in one: none is ever unfinished. Times are the server's.
"""

from __future__ import annotations

import io
import math
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from glassq.bodies.base import NO_LIMIT, UPLOAD, BodyInfo, BodyState, checked
from glassq.bodies.holders import Holder
from glassq.bodies.writer import FileWriter, spooled
from glassq.database import locks
from glassq.database.schema_parts import SchemaPart, prepare
from glassq.database.sessions import session_pool
from glassq.errors import BodyError, BodyLost, QueueError
from glassq.values import QueueUrl

if TYPE_CHECKING:
    from collections.abc import Iterator

    from glassq.database.postgres import PostgresSession

# The size of a chunk in bytes: what a writer or a reader has in memory.
CHUNK = 256 << 10
# How long a statement may take, in seconds.
TIMEOUT = 5.0
_INSERT_CHUNK = "INSERT INTO glassq_body_chunks (key, part, data) VALUES (%s, %s, %s)"
Rows = list[tuple[Any, ...]]
# Bodies that are listed by one statement.
_PAGE = 1000

# EXTERNAL: the server does not try to compress what is mostly compressed, or small. fillfactor: touches stay in place.
_VERSION_1 = (
    """
    CREATE TABLE IF NOT EXISTS glassq_bodies (
        key text COLLATE "C" PRIMARY KEY,
        size bigint NOT NULL,
        state text NOT NULL,
        touched timestamptz NOT NULL DEFAULT clock_timestamp()
    ) WITH (fillfactor = 80)
    """,
    """
    CREATE TABLE IF NOT EXISTS glassq_body_chunks (
        key text COLLATE "C" NOT NULL REFERENCES glassq_bodies ON DELETE CASCADE,
        part int NOT NULL,
        data bytea NOT NULL,
        PRIMARY KEY (key, part)
    )
    """,
    "ALTER TABLE glassq_body_chunks ALTER COLUMN data SET STORAGE EXTERNAL",
    """
    CREATE TABLE IF NOT EXISTS glassq_body_holders (
        key text PRIMARY KEY,
        since double precision NOT NULL,
        seen timestamptz NOT NULL,
        about text NOT NULL
    )
    """,
    """
    CREATE TABLE IF NOT EXISTS glassq_body_looks (
        one boolean PRIMARY KEY DEFAULT true CHECK (one),
        at double precision NOT NULL
    )
    """,
)
SCHEMA = SchemaPart(
    "bodies",
    tables=("glassq_bodies", "glassq_body_chunks", "glassq_body_holders", "glassq_body_looks"),
    steps=(_VERSION_1,),
)


class TableBodies:
    """The store of `[bodies] url = "postgres://..."`. See RemoteBodyStore."""

    def __init__(self, url: str, *, timeout: float = TIMEOUT) -> None:
        """`timeout` is how long one statement may take, in seconds. Connects to nothing."""
        self._url = QueueUrl(url)
        self._sessions = session_pool(self._url, "glassq bodies", timeout)
        self._prepared = False

    def prepare(self) -> None:
        with self._session("cannot be written") as session:
            self._prepare(session)

    def begin(self, key: str, size: int = 0) -> FileWriter:
        return spooled(checked(key), lambda file, size: self.put(key, file, size, UPLOAD))

    def put(self, key: str, file: BinaryIO, size: int, within: float) -> None:
        with self._session("cannot be written", until=time.monotonic() + within) as session:
            self._prepare(session)
            with session.transaction():
                self._begin(session, key, size)
                file.seek(0)
                for part in range(-(-size // CHUNK)):
                    data = file.read(CHUNK)
                    session.rows(_INSERT_CHUNK, [key, part, data])

    def open(self, key: str) -> BinaryIO:
        found = self._rows("cannot be read", "SELECT size FROM glassq_bodies WHERE key = %s", key)
        if not found:
            raise self._lost(key)
        return cast("BinaryIO", io.BufferedReader(_ChunkReader(self, key, found[0][0]), CHUNK))

    def chunk(self, key: str, part: int) -> bytes:
        """One part of a body. Raises BodyLost, BodyError."""
        found = self._rows(
            "cannot be read", "SELECT data FROM glassq_body_chunks WHERE key = %s AND part = %s", key, part
        )
        if not found:
            raise self._lost(key)
        data: bytes = found[0][0]
        return data

    def touch(self, key: str) -> None:
        self._rows(
            "cannot be written",
            "UPDATE glassq_bodies SET state = 'live', touched = clock_timestamp() WHERE key = %s",
            key,
        )

    def link(self, key: str, new: str) -> None:
        with self._session("cannot be written", until=time.monotonic() + UPLOAD) as session, session.transaction():
            # held until its copy is there
            found = session.rows("SELECT size FROM glassq_bodies WHERE key = %s FOR SHARE", [key])
            if found:
                self._begin(session, new, found[0][0])
                session.rows(
                    "INSERT INTO glassq_body_chunks (key, part, data) "
                    "SELECT %s, part, data FROM glassq_body_chunks WHERE key = %s",
                    [new, key],
                )
        if not found:
            raise self._lost(key)

    def retire(self, key: str) -> None:
        self._rows(
            "cannot be written",
            "UPDATE glassq_bodies SET state = 'done', touched = clock_timestamp() WHERE key = %s AND state = 'live'",
            key,
        )

    def delete(self, key: str, state: BodyState | None = None) -> None:
        self._rows(
            "cannot be written",
            "DELETE FROM glassq_bodies WHERE key = %s AND (%s::text IS NULL OR state = %s)",
            *(key, state, state),
        )

    def list(self) -> Iterator[BodyInfo]:
        if not self.exists():
            return
        last = ""
        while True:
            found = self._rows(
                "cannot be read",
                "SELECT key, size, extract(epoch FROM touched)::float8, state FROM glassq_bodies "
                "WHERE key > %s ORDER BY key LIMIT %s",
                *(last, _PAGE),
            )
            yield from (BodyInfo(*row) for row in found)
            if len(found) < _PAGE:
                return
            last = found[-1][0]

    def hold(self, holder: str, since: float | None, about: str) -> None:
        if not self.exists():
            return
        self._rows(
            "cannot be written",
            """
            INSERT INTO glassq_body_holders AS held (key, since, seen, about)
            VALUES (%s, coalesce(%s::float8, 0), clock_timestamp(), %s)
            ON CONFLICT (key) DO UPDATE SET
                since = coalesce(%s::float8, held.since), seen = excluded.seen, about = excluded.about
            """,
            *(holder, since, about, since),
        )

    def holders(self) -> Iterator[Holder]:
        found = self._rows(
            "cannot be read",
            "SELECT key, since, extract(epoch FROM seen)::float8, about FROM glassq_body_holders ORDER BY key",
        )
        yield from (Holder(*row) for row in found)

    def let_go(self, holder: str) -> None:
        self._rows("cannot be written", "DELETE FROM glassq_body_holders WHERE key = %s", holder)

    def free(self) -> int:
        return NO_LIMIT

    def exists(self) -> bool:
        return bool(self._rows("cannot be read", "SELECT to_regclass('glassq_body_looks') IS NOT NULL")[0][0])

    @contextmanager
    def alone(self) -> Iterator[bool]:
        with self._session("cannot be swept", keep=False) as session:
            # it ends with the connection
            alone: bool = session.rows(f"SELECT pg_try_advisory_lock({locks.BODIES})")[0][0]
            yield alone

    def looked(self) -> float:
        found = self._rows("cannot be read", "SELECT at FROM glassq_body_looks") if self.exists() else []
        return float(found[0][0]) if found else 0.0

    def note_look(self, when: float) -> None:
        self.prepare()
        self._rows(
            "cannot be written",
            "INSERT INTO glassq_body_looks (at) VALUES (%s::float8) ON CONFLICT (one) DO UPDATE SET at = excluded.at",
            when,
        )

    def _begin(self, session: PostgresSession, key: str, size: int) -> None:
        """Makes the row of a body, without chunks; whoever does that for the same key waits."""
        session.rows(
            "INSERT INTO glassq_bodies (key, size, state) VALUES (%s, %s, 'live') ON CONFLICT (key) DO UPDATE "
            "SET size = excluded.size, state = excluded.state, touched = clock_timestamp()",
            [key, size],
        )
        session.rows("DELETE FROM glassq_body_chunks WHERE key = %s", [key])

    def _prepare(self, session: PostgresSession) -> None:
        if not self._prepared:
            prepare(session, SCHEMA)
            self._prepared = True

    def _rows(self, what: str, sql: str, *params: object) -> Rows:
        with self._session(what) as session:
            return session.rows(sql, params)

    def _lost(self, key: str) -> BodyLost:
        return BodyLost(f"body {key} is not in {self._url}")

    @contextmanager
    def _session(self, what: str, *, until: float = math.inf, keep: bool = True) -> Iterator[PostgresSession]:
        """A connection for the block, for calls that end by `until`. `keep`: another block may have it then."""
        try:
            with self._sessions.lend(until, keep=keep) as session:
                yield session
        except QueueError as error:
            raise BodyError(f"bodies {what}: {error}") from error


class _ChunkReader(io.RawIOBase):
    """A body to read, chunk by chunk."""

    def __init__(self, store: TableBodies, key: str, size: int) -> None:
        super().__init__()
        self._store = store
        self._key = key
        self._left = size
        self._part = 0
        self._data = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._data and self._left > 0:
            self._data = memoryview(self._store.chunk(self._key, self._part))
            self._part += 1
            self._left -= len(self._data)
        count = min(len(buffer), len(self._data))
        buffer[:count], self._data = self._data[:count], self._data[count:]
        return count
