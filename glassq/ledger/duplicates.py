"""What the pool asks before it works a delivery: has an equal one succeeded already?"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from glassq.database.engine import owned, reason_of, sqlite_file
from glassq.errors import SettingsError
from glassq.ledger.schema import deliveries, open_for_reading
from glassq.log import fields, logger

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy.engine import URL, Engine

    from glassq.descriptors import Descriptor

log = logger("glassq.ledger")

_SUCCEEDED = (deliveries.c.state == "done", deliveries.c.delivery != sa.bindparam("but"))
_BY_FINGERPRINT = sa.select(deliveries.c.delivery).where(
    deliveries.c.fingerprint == sa.bindparam("key"),
    deliveries.c.started > sa.bindparam("after"),
    # a start in the future was written before the clock was set back, so it proves nothing about the order
    deliveries.c.started <= sa.bindparam("now"),
    *_SUCCEEDED,
)
_BY_EVENT = sa.select(deliveries.c.delivery).where(
    deliveries.c.event == sa.bindparam("key"), deliveries.c.updated >= sa.bindparam("since"), *_SUCCEEDED
)


class DuplicateLookup:
    """Finds deliveries that succeeded, on a connection of its own. Any thread may ask; one at a time does.

    Answers are ids of deliveries, "" for none. "" is also the answer if the ledger is missing or cannot be read: then
    the handler runs, which is always safe.
    """

    def __init__(self, url: URL) -> None:
        self._url = url
        self._file = sqlite_file(url)
        self._engine: Engine | None = None
        self._descriptors: list[Descriptor] = []
        self._warned = False
        # reentrant: an interrupt between its acquiring and the block leaves it to this thread, which may go on
        self._asking = threading.RLock()

    def by_fingerprint(self, fingerprint: str, after: datetime, now: datetime, but: str) -> str:
        """A delivery with this fingerprint, other than `but`, that succeeded and started after `after`."""
        return self._ask(_BY_FINGERPRINT, key=fingerprint, after=after, now=now, but=but)

    def by_event(self, event: str, since: datetime, but: str) -> str:
        """A delivery of this event, other than `but`, that succeeded at `since` or later."""
        return self._ask(_BY_EVENT, key=event, since=since, but=but)

    def close(self) -> None:
        """Closes the connection; the next question opens another."""
        engine, self._engine, self._descriptors = self._engine, None, []
        if engine is not None:
            engine.dispose()

    def _ask(self, query: sa.Select[Any], **values: Any) -> str:
        with self._asking:
            return self._answer(query, values)

    def _answer(self, query: sa.Select[Any], values: dict[str, Any]) -> str:
        try:
            if self._engine is None:
                if self._file is not None and not self._file.exists():
                    return ""
                opened, held = owned(lambda: open_for_reading(self._url), self._file, "the ledger file")
                if opened is None:
                    return ""
                self._engine, self._descriptors = opened[0], held
            with self._engine.connect() as connection:
                found: str | None = connection.scalar(query.limit(1), values)
        except (SQLAlchemyError, SettingsError, OSError) as error:
            self._warn(error)
            return ""
        except BaseException:
            # an interrupt in the middle of a query: the connection may be out of step
            self.close()
            raise
        self._warned = False
        return found or ""

    def _warn(self, error: Exception) -> None:
        """Logs the first of several failures in a row."""
        self.close()
        if not self._warned:
            log.warning(
                "ledger cannot be asked for duplicates; handlers run %s",
                fields(url=self._url, error=reason_of(error)),
            )
        self._warned = True
