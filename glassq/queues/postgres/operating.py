"""Opens what operators need of PostgreSQL, with what the settings say."""

from __future__ import annotations

from typing import TYPE_CHECKING

from glassq.database.postgres import PostgresSession
from glassq.queues.postgres import schema
from glassq.queues.postgres.inspector import PostgresInspector
from glassq.queues.postgres.local import LocalPostgres
from glassq.queues.postgres.tables import PostgresTables
from glassq.queues.postgres.waking import Waker

if TYPE_CHECKING:
    from glassq.settings import Settings
    from glassq.values import QueueUrl

# A table is changed while pools work: the lock for that may have to wait for their transactions. In seconds.
TABLES_TIMEOUT = 60.0
# To count, or search among, millions of jobs takes seconds where the server is busy, or has read none of them yet.
LOOK_TIMEOUT = 30.0
# Connections for metrics, schedules, sweeps and commands.
BESIDE = 8


def open_inspector(settings: Settings) -> PostgresInspector:
    """See `glassq.queues.open_inspector`."""
    url = settings.queue.url
    timeout = max(settings.queue.timeout, LOOK_TIMEOUT)
    return inspector_at(url, settings.queue.connect_timeout, timeout, needs=needed(settings))


def local_engine(settings: Settings) -> LocalPostgres:
    """See `glassq.queues.local_engine`."""
    return LocalPostgres(settings.queue.url)


def open_tables(settings: Settings, url: QueueUrl) -> PostgresTables:
    """See `glassq.queues.open_tables`."""
    connect_timeout = settings.queue.connect_timeout
    return PostgresTables(
        PostgresSession(url, name="glassq tables", connect_timeout=connect_timeout, timeout=TABLES_TIMEOUT)
    )


def inspector_at(url: QueueUrl, connect_timeout: float, timeout: float, *, needs: int = 0) -> PostgresInspector:
    """An inspector of this database. Times are in seconds; `needs` as in PostgresInspector."""
    session = PostgresSession(
        url, name="glassq inspector", connect_timeout=connect_timeout, timeout=timeout, prepare=schema.check
    )
    notify = PostgresSession(url, name="glassq notify", connect_timeout=connect_timeout, timeout=timeout)
    return PostgresInspector(session, url, Waker(notify), needs=needs)


def needed(settings: Settings) -> int:
    """How many connections the programs of a host with these settings open at most, some for operators included."""
    worker, intake, tasks = settings.worker, settings.intake, settings.tasks
    # each child and lane works on one; each process that puts has one more that wakes them
    lanes = sum(route.concurrency or 0 for route in settings.routes)
    return worker.processes + lanes + 2 * (intake.workers + tasks.workers) + BESIDE
