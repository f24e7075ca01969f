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

    from glassq.queues.base import Inspector, LocalEngine
    from glassq.settings import Settings
    from glassq.values import QueueUrl


def open_producer(settings: Settings) -> PostgresProducer:
    """See `glassq.queues.open_producer`."""
    return producer_at(settings.queue.url, settings.queue.connect_timeout, settings.queue.timeout)


def open_receiver(settings: Settings) -> PostgresReceiver:
    """See `glassq.queues.open_receiver`."""
    return receiver_at(settings.queue.url, settings.queue.connect_timeout, settings.queue.timeout, settings.lease)


def open_inspector(settings: Settings) -> Inspector:
    """See `glassq.queues.open_inspector`."""
    from glassq.queues.postgres import operating

    return operating.open_inspector(settings)


def local_engine(settings: Settings) -> LocalEngine:
    """See `glassq.queues.local_engine`."""
    from glassq.queues.postgres import operating

    return operating.local_engine(settings)


def producer_at(url: QueueUrl, connect_timeout: float, timeout: float) -> PostgresProducer:
    """A producer on this database. Times are in seconds."""

    def session() -> PostgresSession:
        return _session(url, "producer", connect_timeout, timeout, schema.check)

    return PostgresProducer(session, _waker(url, connect_timeout, timeout))


def receiver_at(url: QueueUrl, connect_timeout: float, timeout: float, lease: float) -> PostgresReceiver:
    """A receiver on this database, with leases of so many seconds."""
    session = _session(url, "receiver", connect_timeout, timeout, lambda session: made.prepare(session))
    made = PostgresReceiver(session, _waker(url, connect_timeout, timeout), lease=lease)
    return made


def _waker(url: QueueUrl, connect_timeout: float, timeout: float) -> Waker:
    return Waker(_session(url, "notify", connect_timeout, timeout, None))


def _session(
    url: QueueUrl,
    role: str,
    connect_timeout: float,
    timeout: float,
    prepare: Callable[[PostgresSession], None] | None,
) -> PostgresSession:
    return PostgresSession(
        url, name=f"glassq {role}", connect_timeout=connect_timeout, timeout=timeout, prepare=prepare
    )
