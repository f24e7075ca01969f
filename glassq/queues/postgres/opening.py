"""Opens PostgreSQL's roles with what the settings say. What operators need is imported where it is opened."""

from __future__ import annotations

from typing import TYPE_CHECKING

from glassq.database.postgres import PostgresSession
from glassq.queues.postgres import schema
from glassq.queues.postgres.producer import PostgresProducer
from glassq.queues.postgres.receiver import PostgresReceiver
from glassq.queues.postgres.waking import Waker

if TYPE_CHECKING:
    from collections.abc import Callable

    from glassq.errors import QueueError
    from glassq.queues.base import Inspector
    from glassq.queues.engine import EngineTables, LocalEngine
    from glassq.settings import Settings
    from glassq.values import QueueUrl

NAME = "PostgreSQL"


def open_producer(settings: Settings) -> PostgresProducer:
    """See `glassq.queues.open_producer`."""
    return PostgresProducer(lambda: _session(settings, "producer", schema.check), _waker(settings))


def open_receiver(settings: Settings) -> PostgresReceiver:
    """See `glassq.queues.open_receiver`."""
    session = _session(settings, "receiver", lambda session: made.prepare(session))
    made = PostgresReceiver(session, _waker(settings), lease=settings.lease)
    return made


def open_inspector(settings: Settings) -> Inspector:
    """See `glassq.queues.open_inspector`."""
    from glassq.queues.postgres import operating

    return operating.open_inspector(settings)


def local_engine(settings: Settings) -> LocalEngine:
    """See `glassq.queues.local_engine`."""
    from glassq.queues.postgres import operating

    return operating.local_engine(settings)


def open_tables(settings: Settings, url: QueueUrl) -> EngineTables:
    """See `glassq.queues.open_tables`."""
    from glassq.queues.postgres import operating

    return operating.open_tables(settings, url)


def advice(settings: Settings, error: QueueError) -> str:
    """See `glassq.queues.advice`."""
    # it connects to nothing for that
    return open_inspector(settings).explain(error).todo


def _waker(settings: Settings) -> Waker:
    return Waker(_session(settings, "notify", None))


def _session(settings: Settings, role: str, prepare: Callable[[PostgresSession], None] | None) -> PostgresSession:
    return PostgresSession(
        settings.queue.url,
        name=f"glassq {role}",
        connect_timeout=settings.queue.connect_timeout,
        timeout=settings.queue.timeout,
        prepare=prepare,
    )
