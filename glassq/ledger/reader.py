"""Reading the ledger, for people: it changes nothing and creates nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from glassq.errors import SettingsError
from glassq.ledger.entry import Entry
from glassq.ledger.schema import deliveries, open_for_reading, parse_url, sqlite_file

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from typing import Any

    from sqlalchemy.engine import Engine, Row

    from glassq.settings import Ledger as LedgerSettings


class LedgerReader:
    """The ledger of the settings as it is now. A ledger that nobody has written yet is empty, and says so.

    Every call, and making one, raises SettingsError where the ledger is there but cannot be read.
    """

    def __init__(self, settings: LedgerSettings) -> None:
        url = parse_url(settings.url)
        file = sqlite_file(url)
        self._url = url
        self._engine: Engine | None = None
        self._columns = list(deliveries.columns)
        #: why there is nothing to read, in words; "" where there is
        self.absent = f"no ledger at {file} yet" if file is not None and not file.exists() else ""
        if self.absent:
            return
        try:
            opened = open_for_reading(url)
        except SQLAlchemyError as error:
            raise self._unreadable(error) from None
        if opened is None:
            self.absent = f"the ledger at {url} is still empty"
            return
        self._engine, self._columns = opened

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def get(self, delivery: str) -> Entry | None:
        """The entry of a delivery id, or of a prefix that only one has; else None."""
        found = self.find(delivery, limit=2)
        return found[0] if len(found) == 1 else None

    def find(self, prefix: str, limit: int = 10) -> list[Entry]:
        """The entries whose delivery ids begin so, by id; an id that is exactly so comes alone."""
        query = sa.select(*self._columns).order_by(deliveries.c.delivery).limit(limit)
        exactly = self._entries(query.where(deliveries.c.delivery == prefix))
        return exactly or self._entries(query.where(deliveries.c.delivery.startswith(prefix, autoescape=True)))

    def recent(self, limit: int, state: str | None = None) -> list[Entry]:
        """The `limit` entries updated last, newest first; of one state if it is given."""
        query = sa.select(*self._columns).order_by(deliveries.c.updated.desc()).limit(limit)
        return self._entries(query if state is None else query.where(deliveries.c.state == state))

    def counts(self, since: datetime | None = None) -> dict[str, int]:
        """How many deliveries are in which state; only those updated at `since` or later if it is given."""
        query = sa.select(deliveries.c.state, sa.func.count()).group_by(deliveries.c.state)
        rows = self._rows(query if since is None else query.where(deliveries.c.updated >= since))
        return {row[0]: row[1] for row in rows}

    def close(self) -> None:
        """Closes the connection."""
        if self._engine is not None:
            self._engine.dispose()

    def _entries(self, query: sa.Select[*tuple[Any, ...]]) -> list[Entry]:
        return [Entry(**row._mapping) for row in self._rows(query)]

    def _rows(self, query: sa.Select[*tuple[Any, ...]]) -> Sequence[Row[*tuple[Any, ...]]]:
        if self._engine is None:
            return []
        try:
            with self._engine.connect() as connection:
                return connection.execute(query).all()
        except SQLAlchemyError as error:
            raise self._unreadable(error) from None

    def _unreadable(self, error: SQLAlchemyError) -> SettingsError:
        why = getattr(error, "orig", None) or error
        return SettingsError(f'[ledger] url = "{self._url}": cannot be read: {why}')
