"""What operators did to deliveries beside the pool, noted in the ledger: what was deleted must not pass for lost."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Self

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from glassq.errors import SettingsError
from glassq.ledger.schema import deliveries, open_for_writing, parse_url

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine

    from glassq.settings import Ledger as LedgerSettings

_OPEN = deliveries.c.state.in_(["buried", "retrying"])
_ONE = (deliveries.c.delivery == sa.bindparam("which"), _OPEN)
# for good: its body goes as well
_DELETED = (
    deliveries.update()
    .where(*_ONE)
    .values(state="deleted", job="", updated=sa.bindparam("now"), reason=sa.bindparam("why"), body=None, labels=None)
)
_HELD = deliveries.update().where(*_ONE).values(job=sa.bindparam("holder"), tube=sa.bindparam("where"))


class Corrections:
    """A connection of its own to a ledger that is there; for one thread. Opening and each call raise SettingsError.

    On return a change is written. What the ledger does not know, it does not learn here.
    """

    def __init__(self, settings: LedgerSettings) -> None:
        self._url = parse_url(settings.url)
        self._engine: Engine | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._engine is not None:
            self._engine.dispose()

    def deleted(self, delivery: str, why: str) -> None:
        """The delivery, if it is not over, is removed for good; `why` says by whom."""
        self._change(_DELETED, which=delivery, now=datetime.now(UTC), why=why)

    def held(self, delivery: str, job: str, tube: str) -> None:
        """Another job holds the delivery, if it is not over, from now on."""
        self._change(_HELD, which=delivery, holder=job, where=tube)

    def _change(self, statement: sa.Update, **values: object) -> bool:
        """Whether the ledger has what is to be changed."""
        try:
            self._engine = self._engine or open_for_writing(self._url)
            with self._engine.begin() as connection:
                return connection.execute(statement, values).rowcount > 0
        except (SQLAlchemyError, OSError) as error:
            why = getattr(error, "orig", None) or error
            raise SettingsError(f'[ledger] url = "{self._url}": cannot be written: {why}') from None
