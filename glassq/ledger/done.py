"""What the pool asks the ledger before it works a delivery: has an equal one been done already?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from glassq.errors import SettingsError
from glassq.ledger.schema import deliveries, open_for_reading, sqlite_file
from glassq.log import fields, logger

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy.engine import URL, Engine

log = logger("glassq.ledger")

_DONE = (deliveries.c.state == "done", deliveries.c.delivery != sa.bindparam("but"))
_BY_FINGERPRINT = sa.select(deliveries.c.delivery).where(
    deliveries.c.fingerprint == sa.bindparam("key"),
    deliveries.c.started > sa.bindparam("after"),
    # a start in the future was written before the clock was set back: nobody can say what it was earlier than
    deliveries.c.started <= sa.bindparam("now"),
    *_DONE,
)
_BY_EVENT = sa.select(deliveries.c.delivery).where(
    deliveries.c.event == sa.bindparam("key"), deliveries.c.updated >= sa.bindparam("since"), *_DONE
)


class Done:
    """Reads what was done, on a connection of its own; for one thread.

    The answers are ids of deliveries. "" is the safe one: then the handler runs, and that is what a ledger that is not
    there, or cannot be read, comes to.
    """

    def __init__(self, url: URL) -> None:
        self._url = url
        self._file = sqlite_file(url)
        self._engine: Engine | None = None
        self._told = False

    def since(self, fingerprint: str, after: datetime, now: datetime, but: str) -> str:
        """A done delivery with this fingerprint, other than `but`, whose handler started after `after`."""
        return self._ask(_BY_FINGERPRINT, key=fingerprint, after=after, now=now, but=but)

    def event(self, event: str, since: datetime, but: str) -> str:
        """A delivery of this event, other than `but`, that was done at `since` or later."""
        return self._ask(_BY_EVENT, key=event, since=since, but=but)

    def close(self) -> None:
        """Closes the connection; the next question opens another."""
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.dispose()

    def _ask(self, query: sa.Select[Any], **values: Any) -> str:
        try:
            if self._engine is None:
                if self._file is not None and not self._file.exists():
                    return ""
                opened = open_for_reading(self._url)
                if opened is None:
                    return ""
                self._engine = opened[0]
            with self._engine.connect() as connection:
                found: str | None = connection.scalar(query.limit(1), values)
        except (SQLAlchemyError, SettingsError, OSError) as error:
            self._trouble(error)
            return ""
        except BaseException:
            # an interrupt in the middle of a question: the connection may be out of step
            self.close()
            raise
        self._told = False
        return found or ""

    def _trouble(self, error: Exception) -> None:
        self.close()
        if not self._told:
            why = getattr(error, "orig", None) or error
            log.warning("ledger cannot be asked for duplicates; handlers run %s", fields(url=self._url, error=why))
        self._told = True
