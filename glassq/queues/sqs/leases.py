"""Which messages are ours, by our own clock: SQS tells nobody that a lease has ended.

A lease counts from the moment before it was asked for, so ours always ends before the service's. An extension that is
not confirmed in time is none. 12 hours after the receive no extension helps any more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from glassq.queues.aws.text import bytes_of
from glassq.queues.base import Reservation
from glassq.queues.sqs.messages import MessageStory, story_of

if TYPE_CHECKING:
    from collections.abc import Mapping

# The longest that a message can be invisible, all extensions together, in seconds.
MAX_LEASE = 43_200


@dataclass(slots=True)
class HeldMessage:
    """A message that is ours. `until` and `last` are when its lease ends, and when it ends whatever is done."""

    tube: str
    receipt: str
    reservation: Reservation
    until: float
    last: float

    @property
    def story(self) -> MessageStory:
        """What the next message of this very form has to say."""
        held = self.reservation
        return MessageStory(held.ref, held.losses or 0, held.kicked)


def received(message: Mapping[str, Any], tube: str, lease: int, asked: float) -> HeldMessage:
    """The message as a reservation; it was asked for at `asked` (monotonic), with a lease of so many seconds."""
    story, receipt = story_of(message), message["ReceiptHandle"]
    receives = int(message.get("Attributes", {}).get("ApproximateReceiveCount", 1))
    reservation = Reservation(
        story.ref or message["MessageId"],
        tube,
        bytes_of(message["Body"]),
        lease,
        story.losses + max(0, receives - 1),
        story.kicked,
        handle_of(tube, receipt),
    )
    return HeldMessage(tube, receipt, reservation, asked + lease, asked + MAX_LEASE)


def handle_of(tube: str, receipt: str) -> str:
    """What whoever finds it needs to give the message back."""
    return f"{tube} {receipt}"


def parts_of(handle: str) -> tuple[str, str]:
    """The tube and the receipt handle."""
    tube, _, receipt = handle.partition(" ")
    return tube, receipt
