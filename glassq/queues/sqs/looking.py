"""What the service says about the queues: counts, which it calls approximate, and how long it keeps messages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from glassq.errors import WrongTables
from glassq.queues.base import TubeCounts
from glassq.queues.sqs.tubes import tubes_named

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from glassq.queues.sqs.client import SqsClient

_NUMBERS = {
    "ApproximateNumberOfMessages": "ready",
    "ApproximateNumberOfMessagesNotVisible": "reserved",
    "ApproximateNumberOfMessagesDelayed": "delayed",
    "MessageRetentionPeriod": "retention",
}


class SqsQueue(msgspec.Struct, frozen=True):
    """A tube's queue. `retention` is how long a message is kept, in seconds; 0: there is no such queue."""

    tube: str
    ready: int = 0
    reserved: int = 0
    delayed: int = 0
    retention: int = 0

    def counts(self, shelved: Mapping[tuple[str, str], int], paused: float) -> TubeCounts:
        """The tube's counts, with what lies on the shelf; `paused` is how long it is paused, in seconds."""
        later, buried = shelved.get((self.tube, "delayed"), 0), shelved.get((self.tube, "buried"), 0)
        # a pause is over when it shows 0
        left = int(paused) + (paused > int(paused))
        return TubeCounts(self.tube, self.ready, self.reserved, self.delayed + later, buried, paused_for=left)


def look(client: SqsClient, tube: str, within: float) -> SqsQueue:
    """The tube's queue. Raises QueueError."""
    try:
        of = client.of(tube, within=within)
        answer: dict[str, Any] = client.insist(
            "get_queue_attributes", within=within, **of, AttributeNames=list(_NUMBERS)
        )
    except WrongTables:
        return SqsQueue(tube)
    found = answer.get("Attributes", {})
    return SqsQueue(tube, **{ours: int(found.get(theirs, 0)) for theirs, ours in _NUMBERS.items()})


def look_at_all(client: SqsClient, left: Callable[[], float]) -> list[SqsQueue]:
    """All queues of ours, by their tubes. `left` says how long a call may take. Raises QueueError."""
    return [look(client, tube, left()) for tube in sorted(tubes_named(client, "", within=left()))]
