"""Puts several deliveries into the queue with one proof."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from glassq.errors import JobTooBig, NotDurable, QueueError, QueueUnavailable
from glassq.queues.base import Receipt

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from glassq.queues import Producer
    from glassq.queues.base import NewJob


class PutResult(NamedTuple):
    """What became of a packet; keys are deliveries' ids.

    `proven` is durable in the queue. `late` was put, and may be proven later. `too_big` is refused for good. `error` is
    why the queue has not taken or proven the others; None if there are none.
    """

    proven: Mapping[str, Receipt]
    late: Mapping[str, Receipt]
    too_big: Mapping[str, QueueError]
    error: QueueError | None


def put(producer: Producer, jobs: Sequence[NewJob], *, within: float) -> PutResult:
    """Puts the jobs in order and has them proven, within this number of seconds. Raises nothing."""
    until = time.monotonic() + within
    taken: dict[str, Receipt] = {}
    too_big: dict[str, QueueError] = {}
    error: QueueError | None = None
    for answer in producer.put(jobs, within=within, again=True):
        if isinstance(answer, Receipt):
            taken[answer.key] = answer
        elif isinstance(answer.error, JobTooBig):
            too_big[answer.key] = answer.error
        else:
            error = error or answer.error
    try:
        confirm(producer, list(taken.values()), until)
    except NotDurable as refusal:
        return PutResult({}, {}, too_big, refusal)
    except QueueError as refusal:
        return PutResult({}, taken, too_big, refusal)
    return PutResult(taken, {}, too_big, error)


def confirm(producer: Producer, receipts: Sequence[Receipt], until: float) -> None:
    """Returns once these are proven; `until` is on time.monotonic(). Raises QueueError."""
    if not receipts:
        return
    left = until - time.monotonic()
    if left <= 0:
        raise QueueUnavailable("no proof in time")
    producer.confirm(receipts, within=left)
