"""Opens PostgreSQL's roles with what the settings say. Each role's module is imported where it is opened."""

from __future__ import annotations

from typing import TYPE_CHECKING

from glassq.database.postgres import PostgresSession
from glassq.queues.postgres import schema

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from glassq.errors import QueueError
    from glassq.queues.base import Producer, Receiver
    from glassq.queues.engine import EngineTables, LocalEngine
    from glassq.queues.postgres.inspector import PostgresInspector
    from glassq.queues.postgres.waking import Waker
    from glassq.settings import Settings
    from glassq.values import QueueUrl

NAME = "PostgreSQL"
# A table is changed while pools work: the lock for that may have to wait for their transactions. In seconds.
TABLES_TIMEOUT = 60.0
# To count, or search among, millions of jobs takes seconds where the server is busy, or has read none of them yet.
LOOK_TIMEOUT = 30.0
# Connections for metrics, schedules, sweeps and commands.
BESIDE = 8


def open_producer(settings: Settings) -> Producer:
    """See `glassq.queues.open_producer`."""
    from glassq.queues.postgres.producer import PostgresProducer

    return PostgresProducer(lambda: _session(settings, "producer", schema.check), _waker(settings))


def open_receiver(settings: Settings) -> Receiver:
    """See `glassq.queues.open_receiver`."""
    from glassq.queues.postgres.receiver import PostgresReceiver

    session = _session(settings, "receiver", lambda session: made.prepare(session))
    made = PostgresReceiver(session, _waker(settings), lease=settings.lease)
    return made


def open_inspector(settings: Settings) -> PostgresInspector:
    """See `glassq.queues.open_inspector`."""
    queue = settings.queue
    timeout = max(queue.timeout, LOOK_TIMEOUT)
    return inspector_at(queue.url, queue.connect_timeout, timeout, needs=needed(settings))


def local_engine(settings: Settings) -> LocalEngine:
    """See `glassq.queues.local_engine`."""
    from glassq.queues.postgres.local import LocalPostgres

    return LocalPostgres(settings.queue.url)


def open_tables(settings: Settings, url: QueueUrl, _tubes: Sequence[str] = ()) -> EngineTables:
    """See `glassq.queues.open_tables`."""
    from glassq.queues.postgres.tables import PostgresTables

    connect_timeout = settings.queue.connect_timeout
    return PostgresTables(
        PostgresSession(url, name="glassq tables", connect_timeout=connect_timeout, timeout=TABLES_TIMEOUT)
    )


def open_mover(_settings: Settings) -> None:
    """See `glassq.queues.open_mover`: it keeps all itself."""


def advice(settings: Settings, error: QueueError) -> str:
    """See `glassq.queues.advice`."""
    from glassq.queues.postgres.troubles import explained

    return explained(error, settings.queue.url).todo


def remarks(settings: Settings) -> Iterator[str]:
    """PostgreSQL does whatever the settings can ask."""
    yield from ()


def inspector_at(url: QueueUrl, connect_timeout: float, timeout: float, *, needs: int = 0) -> PostgresInspector:
    """An inspector of this database. Times are in seconds; `needs` as in PostgresInspector."""
    from glassq.queues.postgres.inspector import PostgresInspector
    from glassq.queues.postgres.waking import Waker

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


def _waker(settings: Settings) -> Waker:
    from glassq.queues.postgres.waking import Waker

    return Waker(_session(settings, "notify", None))


def _session(settings: Settings, role: str, prepare: Callable[[PostgresSession], None] | None) -> PostgresSession:
    return PostgresSession(
        settings.queue.url,
        name=f"glassq {role}",
        connect_timeout=settings.queue.connect_timeout,
        timeout=settings.queue.timeout,
        prepare=prepare,
    )
