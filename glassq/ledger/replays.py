"""What `glassq replay` writes into the ledger: which deliveries were put again, so that none is twice by mistake."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from glassq.errors import SettingsError
from glassq.ledger.schema import deliveries, open_for_writing, parse_url

if TYPE_CHECKING:
    from typing import Self

    from sqlalchemy.engine import Engine

    from glassq.settings import Ledger as LedgerSettings

_MARK = (
    deliveries.update()
    .where(deliveries.c.delivery == sa.bindparam("old"), deliveries.c.replayed == sa.bindparam("before"))
    .values(replayed=sa.bindparam("again"))
)


class Replays:
    """A connection of its own to a ledger that is there; for one thread. Opening and marking raise SettingsError."""

    def __init__(self, settings: LedgerSettings) -> None:
        self._url = parse_url(settings.url)
        self._engine: Engine | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._engine is not None:
            self._engine.dispose()

    def mark(self, delivery: str, again: str, before: str) -> bool:
        """The delivery was put again as `again`; on return that is written.

        False where it is not marked `before` any more: somebody else has replayed it meanwhile.
        """
        try:
            self._engine = self._engine or open_for_writing(self._url)
            with self._engine.begin() as connection:
                return connection.execute(_MARK, {"old": delivery, "again": again, "before": before}).rowcount > 0
        except (SQLAlchemyError, OSError) as error:
            why = getattr(error, "orig", None) or error
            raise SettingsError(f'[ledger] url = "{self._url}": cannot be written: {why}') from None
