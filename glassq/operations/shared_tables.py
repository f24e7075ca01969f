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
from glassq.database.schema import versions
from glassq.database.schema_parts import prepare
from glassq.errors import InvalidRequest
from glassq.glass import record_table as credentials
from glassq.ledger.schema import deliveries
from glassq.push import names_table
from glassq.schedules.table import ScheduleTable, schedules

if TYPE_CHECKING:
    from collections.abc import Iterator

    from glassq.settings import Settings
    from glassq.values import QueueUrl

# How long a statement may take, in seconds: it may have to wait for transactions of pools.
TIMEOUT = 60.0
_COLUMNS = """
SELECT attname::text FROM pg_attribute WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped
"""


def check_foreign(settings: Settings, url: QueueUrl) -> None:
    """Raises InvalidRequest if another program's table has the name of one of ours, and QueueError."""
    connect_timeout = settings.queue.connect_timeout
    session = PostgresSession(url, name="glassq tables", connect_timeout=connect_timeout, timeout=TIMEOUT)
    with closing(session):
        for name, ours in _plain_names(settings):
            found = {column for (column,) in session.rows(_COLUMNS, [name])}
            if found and not ours <= found:
                raise InvalidRequest(
                    f"{url}: its table {name} is not glassq's: give glassq a database of its own, or a schema "
                    "(CREATE SCHEMA glassq, and ?options=-csearch_path%3Dglassq in the URL)"
                )


def _plain_names(settings: Settings) -> Iterator[tuple[str, set[str]]]:
    """The tables whose names do not say that they are ours, with columns that each has had from the first."""
    whole, push = settings.queue.url.whole, settings.push
    tables = [versions, deliveries, schedules] if settings.ledger.url == whole else []
    if push is not None and push.names == whole:
        tables += [versions, names_table.task_names]
    for table in tables:
        yield table.name, {column.name for column in table.primary_key}


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
