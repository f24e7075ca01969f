"""How the reader asks a database that is not a plain SQLite file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from glassq.database.engine import reason_of, sqlite_file
from glassq.ledger.schema import open_for_reading, parse_url
from glassq.ledger.version import unreadable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy.engine import URL, Engine


class SqlAlchemyReader:
    """The ledger in a database of any kind. See `reader.QueryRunner`."""

    def __init__(self, engine: Engine, url: URL, version: int) -> None:
        self._engine = engine
        self._url = url
        self.version = version
        self.orders_bytes = engine.dialect.name == "sqlite"

    @classmethod
    def open(cls, text: str) -> Self | None:
        """None for a database without any table (yet). Raises SettingsError for its URL or version, and LedgerError."""
        url = parse_url(text)
        file = sqlite_file(url)
        try:
            opened = None if file is not None and not file.exists() else open_for_reading(url)
        except OSError as error:
            raise unreadable(url, error.strerror) from None
        except SQLAlchemyError as error:
            raise unreadable(url, reason_of(error)) from None
        return cls(opened[0], url, opened[1]) if opened else None

    def rows(self, query: str, values: dict[str, Any], limit: int | None) -> tuple[Sequence[str], list[Any]]:
        try:
            with self._engine.connect() as connection:
                found = connection.execute(sa.text(query), values)
                return list(found.keys()), list(found.all() if limit is None else found.fetchmany(limit))
        except SQLAlchemyError as error:
            raise unreadable(self._url, reason_of(error)) from None

    def iterate(self, query: str, values: dict[str, Any]) -> Iterator[Any]:
        try:
            with (
                self._engine.connect() as connection,
                # without yield_per, most drivers fetch all rows first
                connection.execution_options(yield_per=500).execute(sa.text(query), values) as found,
            ):
                yield from found
        except SQLAlchemyError as error:
            raise unreadable(self._url, reason_of(error)) from None

    def close(self) -> None:
        self._engine.dispose()
