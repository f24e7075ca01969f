"""Opens the roles of SQS with what the settings say. What operators need is imported where it is opened."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from glassq.queues.shelf import Shelf
from glassq.queues.sqs.client import SqsClient, shared_client
from glassq.queues.sqs.place import NAME as NAME
from glassq.queues.sqs.place import place_of
from glassq.queues.sqs.producer import SqsProducer
from glassq.queues.sqs.receiver import SqsReceiver

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from glassq.errors import QueueError
    from glassq.queues.base import Inspector, Producer, Receiver
    from glassq.queues.engine import EngineTables, LocalEngine, Mover
    from glassq.settings import Settings
    from glassq.values import QueueUrl


def open_producer(settings: Settings) -> Producer:
    """See `glassq.queues.open_producer`."""
    return SqsProducer(_client(settings), _shelf(settings.ledger.url), tube=str(settings.queue.tube))


def open_receiver(settings: Settings) -> Receiver:
    """See `glassq.queues.open_receiver`."""
    return SqsReceiver(_client(settings), _shelf(settings.ledger.url), lease=settings.lease)


def open_inspector(settings: Settings) -> Inspector:
    """See `glassq.queues.open_inspector`."""
    from glassq.queues.sqs.inspector import SqsInspector

    return SqsInspector(_client(settings), _shelf(settings.ledger.url, makes=False), tube=str(settings.queue.tube))


def local_engine(settings: Settings) -> LocalEngine:
    """See `glassq.queues.local_engine`."""
    from glassq.queues.aws.local import LocalAws

    return LocalAws()


def open_tables(settings: Settings, url: QueueUrl, tubes: Sequence[str] = ()) -> EngineTables:
    """See `glassq.queues.open_tables`."""
    from glassq.queues.sqs.making import SqsQueues
    from glassq.settings import named_tubes

    return SqsQueues(_client(settings, url), list(dict.fromkeys([*named_tubes(settings), *tubes])))


def open_mover(settings: Settings) -> Mover:
    """See `glassq.queues.open_mover`."""
    from glassq.queues.sqs.shelving import ShelfMover

    return ShelfMover(_client(settings), _shelf(settings.ledger.url))


def advice(settings: Settings, error: QueueError) -> str:
    """See `glassq.queues.advice`."""
    from glassq.queues.sqs.troubles import explained

    return explained(error).todo


def remarks(settings: Settings) -> Iterator[str]:
    """See `glassq.queues.remarks`."""
    from glassq.queues.sqs.remarks import remarks

    return remarks(settings)


def _client(settings: Settings, url: QueueUrl | None = None) -> SqsClient:
    queue = settings.queue
    return shared_client(place_of(url or queue.url), queue.connect_timeout, queue.timeout)


@lru_cache(4)
def _shelf(ledger: str, *, makes: bool = True) -> Shelf:
    """One for all roles of a process: it is thread-safe, and lanes are many."""
    return Shelf(ledger, makes=makes)
