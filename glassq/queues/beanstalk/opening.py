"""Opens beanstalkd's roles with what the settings say. Each role's module is imported where it is opened."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from glassq.errors import QueueError
    from glassq.queues.base import Inspector, Producer, Receiver
    from glassq.queues.beanstalk.connection import BeanstalkConnection
    from glassq.queues.beanstalk.prover import Prover
    from glassq.queues.engine import LocalEngine
    from glassq.settings import Settings
    from glassq.values import QueueUrl

NAME = "beanstalkd"


def open_producer(settings: Settings) -> Producer:
    """See `glassq.queues.open_producer`."""
    from glassq.queues.beanstalk.producer import BeanstalkProducer

    return BeanstalkProducer(lambda: _connection(settings, require_durable=True), prover=_prover(settings))


def open_receiver(settings: Settings) -> Receiver:
    """See `glassq.queues.open_receiver`."""
    from glassq.queues.beanstalk.receiver import BeanstalkReceiver

    return BeanstalkReceiver(_connection(settings), prover=_prover(settings))


def open_inspector(settings: Settings) -> Inspector:
    """See `glassq.queues.open_inspector`."""
    from glassq.queues.beanstalk.inspector import BeanstalkInspector

    # Not our tube: to use a tube creates it, and an operator must see that a tube does not exist.
    return BeanstalkInspector(_connection(settings, tube="default"), settings.queue.url, prover=_prover(settings))


def local_engine(settings: Settings) -> LocalEngine:
    """See `glassq.queues.local_engine`."""
    from glassq.queues.beanstalk.local import LocalBeanstalkd

    return LocalBeanstalkd(settings.queue.url)


def open_tables(_settings: Settings, _url: QueueUrl, _tubes: Sequence[str] = ()) -> None:
    """beanstalkd needs none."""


def open_mover(_settings: Settings) -> None:
    """See `glassq.queues.open_mover`: it keeps all itself."""


def advice(settings: Settings, error: QueueError) -> str:
    """Each kind of error says what to do about beanstalkd."""
    return ""


def remarks(settings: Settings) -> Iterator[str]:
    """beanstalkd does whatever the settings can ask."""
    yield from ()


def _prover(settings: Settings) -> Prover | None:
    """The client that asks the syncer of these settings for proofs; None if they name none."""
    from glassq.queues.beanstalk.prover import SyncerProver

    address = settings.queue.syncer_address
    return None if address is None else SyncerProver(address, connect_timeout=settings.queue.connect_timeout)


def _connection(settings: Settings, *, tube: str = "", require_durable: bool = False) -> BeanstalkConnection:
    from glassq.queues.beanstalk.connection import BeanstalkConnection

    return BeanstalkConnection(
        settings.queue.url,
        tube or settings.queue.tube,
        ttr=settings.lease,
        connect_timeout=settings.queue.connect_timeout,
        timeout=settings.queue.timeout,
        require_durable=require_durable,
    )
