"""Opens the roles of SWF with what the settings say. What operators need is imported where it is opened."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from glassq.queues.swf.client import SwfClient, shared_client
from glassq.queues.swf.place import NAME as NAME
from glassq.queues.swf.place import place_of
from glassq.queues.swf.producer import SwfProducer
from glassq.queues.swf.receiver import SwfReceiver

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from glassq.errors import QueueError
    from glassq.queues.base import Inspector, Producer, Receiver
    from glassq.queues.engine import EngineTables, LocalEngine, Mover
    from glassq.settings import Settings
    from glassq.values import QueueUrl


def open_producer(settings: Settings) -> Producer:
    """See `glassq.queues.open_producer`."""
    return SwfProducer(_client(settings), lease=_lease(settings))


def open_receiver(settings: Settings) -> Receiver:
    """See `glassq.queues.open_receiver`."""
    return SwfReceiver(_client(settings), lease=_lease(settings))


def open_inspector(settings: Settings) -> Inspector:
    """See `glassq.queues.open_inspector`."""
    from glassq.queues.swf.inspector import SwfInspector

    return SwfInspector(_client(settings), lease=_lease(settings))


def local_engine(settings: Settings) -> LocalEngine:
    """See `glassq.queues.local_engine`."""
    from glassq.queues.aws.local import LocalAws

    return LocalAws()


def open_tables(settings: Settings, url: QueueUrl, tubes: Sequence[str] = ()) -> EngineTables:
    """See `glassq.queues.open_tables`. Tubes are task lists, which come by themselves."""
    from glassq.queues.swf.making import SwfDomain

    return SwfDomain(_client(settings, url))


def open_mover(settings: Settings) -> Mover:
    """See `glassq.queues.open_mover`."""
    from glassq.queues.swf.deciding import SwfMover

    return SwfMover(_client(settings))


def advice(settings: Settings, error: QueueError) -> str:
    """See `glassq.queues.advice`."""
    from glassq.queues.swf.troubles import explained

    return explained(error).todo


def remarks(settings: Settings) -> Iterator[str]:
    """See `glassq.queues.remarks`."""
    from glassq.queues.swf.remarks import remarks

    return remarks(settings)


def _client(settings: Settings, url: QueueUrl | None = None) -> SwfClient:
    queue = settings.queue
    return shared_client(place_of(url or queue.url), queue.connect_timeout, queue.timeout)


def _lease(settings: Settings) -> int:
    return max(1, math.ceil(settings.lease))
