"""The tables of what lives in the queue's database beside the queue: ledger, names, credentials, schedules, bodies.

Who writes there makes what is missing, if its role may. So that it need not, their owner makes them with the queue's.
"""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from glassq.bodies import table as bodies
from glassq.database import shares
from glassq.database.postgres import PostgresSession
from glassq.database.schema_parts import prepare
from glassq.glass import record_table as credentials
from glassq.push import names_table
from glassq.schedules.table import ScheduleTable

if TYPE_CHECKING:
    from glassq.settings import Settings
    from glassq.values import QueueUrl

# How long a statement may take, in seconds: it may have to wait for transactions of pools.
TIMEOUT = 60.0


def make(settings: Settings, url: QueueUrl) -> None:
    """Makes at `url` the tables of all that these settings have in the queue's database; nothing of what is there.

    Raises QueueError, LedgerError and NamesUnavailable.
    """
    whole, connect_timeout = settings.queue.url.whole, settings.queue.connect_timeout
    parts = [shares.SCHEMA]
    if settings.bodies.url == whole:
        parts.append(bodies.SCHEMA)
    if settings.glass.credentials == whole:
        parts.append(credentials.SCHEMA)
    session = PostgresSession(url, name="glassq tables", connect_timeout=connect_timeout, timeout=TIMEOUT)
    with closing(session):
        for part in parts:
            prepare(session, part)
    if settings.ledger.url == whole:
        with closing(ScheduleTable(url.whole)) as table:
            # it makes those of the ledger, too
            table.enter((), datetime.now(UTC))
    if settings.push is not None and settings.push.names == whole:
        names_table.make(url.whole)
