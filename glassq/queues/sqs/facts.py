"""What an operator should know about the queues and the shelf: is there room, and how long is what kept?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from glassq.errors import QueueError
from glassq.queues.base import EngineGauge, Fact
from glassq.queues.sqs.tubes import RETENTION

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from glassq.queues.shelf import Shelf
    from glassq.queues.sqs.looking import SqsQueue
    from glassq.queues.sqs.place import SqsPlace

# So many messages of a queue can be reserved at once, about; beyond that nobody gets one.
# https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-messages.html
MAX_IN_FLIGHT = 120_000
_MUCH = MAX_IN_FLIGHT * 3 // 4
_INIT = "run `glassq queue init`"
_DAY = 86_400


def place(at: SqsPlace) -> Fact:
    """Where the queues are."""
    return Fact(
        "queue", True, f"Amazon SQS in {at.region}, queues {at.prefix}-..., {at.endpoint or 'its own endpoint'}"
    )


def of_queues(queues: Sequence[SqsQueue], tubes: Sequence[str]) -> Iterator[Fact]:
    """Whether there is a queue for each of our tubes, how long each keeps messages, and how full it is."""
    there = {queue.tube for queue in queues}
    if missing := [tube for tube in tubes if tube not in there]:
        yield Fact("queues", False, f"no queue at Amazon SQS: {', '.join(missing)}", _INIT)
    else:
        yield Fact("queues", True, f"{len(tubes)} tubes of ours have their queue, of {len(there)} queues")
    if short := [queue for queue in queues if queue.retention < RETENTION]:
        said = ", ".join(f"{queue.tube} {queue.retention / _DAY:g} days" for queue in short)
        yield Fact("retention", False, f"a delivery that waits longer is lost: {said}", f"{_INIT}: 14 days, the most")
    elif queues:
        yield Fact("retention", True, "deliveries that wait are kept for 14 days")
    if full := [queue for queue in queues if queue.reserved > _MUCH]:
        said = ", ".join(f"{queue.tube} {queue.reserved:,}" for queue in full)
        todo = "look for handlers that hang; more than that many cannot be reserved"
        yield Fact("in flight", False, f"close to {MAX_IN_FLIGHT:,} reserved: {said}", todo)


def of_shelf(shelf: Shelf) -> Iterator[Fact]:
    """Whether deliveries can be buried now, and be delayed for long."""
    try:
        shelf.check(needed=False)
    except QueueError as error:
        yield Fact("shelf", False, str(error), "make room for it, or mend its rights: what must be buried comes again")
        return
    rows = sum(shelf.counts().values())
    said = f"{rows} buried or far delayed deliveries in {shelf.url}"
    if shelf.is_file:
        said += ", a file of this host alone: another host has its own, and its own pauses"
        yield Fact("shelf", None, said, "with several hosts, set [ledger] url to a database that all of them reach")
    else:
        yield Fact("shelf", True, said)


def job_size(largest: int, needed: int) -> Fact:
    """Whether our largest job fits."""
    said = f"jobs of up to {largest} bytes"
    if needed <= largest:
        return Fact("job size", True, said)
    return Fact("job size", False, f"{said}; a delivery with its story has up to {needed}", "make deliveries smaller")


def gauges(queues: Sequence[SqsQueue], rows: int) -> tuple[EngineGauge, ...]:
    """The metrics that only SQS has."""
    values = [
        ("glassq_queue_in_flight", "Reserved jobs of the queue that has most.", [queue.reserved for queue in queues]),
        ("glassq_queue_retention_seconds", "How long jobs are kept at least.", [-queue.retention for queue in queues]),
        ("glassq_queue_shelf_rows", "Buried and far delayed deliveries on the shelf.", [rows]),
    ]
    return tuple(EngineGauge(name, text, float(abs(max(found)))) for name, text, found in values if found)
