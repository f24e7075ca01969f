"""Runs statements on a connection without psycopg's cursors, which take half of the time of a short statement."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from glassq.database import binary
from glassq.database.libpq import psycopg

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from psycopg.pq.abc import PGconn, PGresult

# What a socket may be waited for, in psycopg's numbers.
READ, WRITE = 1, 2


class QuickStatements:
    """Those of one connection, each prepared at its first use for these types of values."""

    def __init__(self, pgconn: PGconn, wait: Callable[[int], int], hear: Callable[[], None]) -> None:
        """`wait` waits for the socket, and raises when time is over; `hear` takes the NOTIFYs that have come."""
        self._pgconn = pgconn
        self._wait = wait
        self._hear = hear
        # by statement and types: its name on the connection, and how its columns are read
        self._prepared: dict[tuple[str, tuple[int, ...]], tuple[bytes, list[Callable[[bytes], Any]]]] = {}

    def rows(self, sql: str, values: Sequence[object]) -> list[tuple[Any, ...]]:
        """The rows of a statement with %b alone, and values and columns that binary.py knows. Raises psycopg.Error."""
        said, types = binary.encoded(values)
        name, readers = self._prepared.get((sql, types)) or self._prepare(sql, types)
        self._pgconn.send_query_prepared(name, said, [psycopg.pq.Format.BINARY] * len(said), psycopg.pq.Format.BINARY)
        result = self._result()
        columns = list(enumerate(readers))
        return [
            tuple(None if (value := result.get_value(row, column)) is None else read(value) for column, read in columns)
            for row in range(result.ntuples)
        ]

    def _prepare(self, sql: str, types: tuple[int, ...]) -> tuple[bytes, list[Callable[[bytes], Any]]]:
        name = b"glassq_%d" % len(self._prepared)
        self._pgconn.send_prepare(name, binary.numbered(sql).encode(), types)
        self._result()
        self._pgconn.send_describe_prepared(name)
        described = self._result()
        readers = binary.readers([described.ftype(number) for number in range(described.nfields)])
        self._prepared[sql, types] = (name, readers)
        return name, readers

    def _result(self) -> PGresult:
        """What the server says to what was sent just now: its only result, or the error after it."""
        while self._pgconn.flush():
            if self._wait(READ | WRITE) & READ:
                self._pgconn.consume_input()
        result = self._next()
        assert result is not None
        while (following := self._next()) is not None:
            result = following
        if result.status not in (psycopg.pq.ExecStatus.TUPLES_OK, psycopg.pq.ExecStatus.COMMAND_OK):
            raise psycopg.errors.error_from_result(result)
        return result

    def _next(self) -> PGresult | None:
        while self._pgconn.is_busy():
            self._wait(READ)
            self._pgconn.consume_input()
        self._hear()
        return self._pgconn.get_result()
