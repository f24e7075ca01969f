"""A job as a message of SQS: its bytes as text, and what of its story has to go with a form that takes its place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from msgspec import Meta

from glassq.queues.limits import JobLimits

if TYPE_CHECKING:
    from collections.abc import Mapping

# The most that a message, and all messages of a batch together, may have in bytes, attributes included.
MAX_MESSAGE, MAX_BATCH = 1 << 20, 10
# What the attribute of a message takes at most, with room to spare.
_ATTRIBUTES = 1024
# The largest job, in bytes: as base64, with its mark and attribute, it still fits.
MAX_JOB = (MAX_MESSAGE - _ATTRIBUTES) // 4 * 3
# The longest delay of a message, in seconds. What is due later lies on the shelf.
MAX_DELAY = 900
# The longest delay and pause there is, in seconds.
MAX_SECONDS = (1 << 32) - 1
LIMITS = JobLimits(MAX_JOB, MAX_SECONDS)
# More attempts are not counted as lost: who may send into the queue may say anything.
MAX_LOSSES = 1_000_000
# The one attribute of our messages.
STORY = "glassq"


class MessageStory(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a message knows of the forms that it took the place of.

    `ref` is the job's reference ("": the message's own id), `losses` how many attempts were lost before this message
    was sent; `kicked` as in Reservation.
    """

    ref: Annotated[str, Meta(pattern=r"^[A-Za-z0-9-]{0,100}$")] = ""
    losses: Annotated[int, Meta(ge=0, le=MAX_LOSSES)] = 0
    kicked: bool = False


def attributes_of(story: MessageStory) -> dict[str, Any]:
    """The arguments of SendMessage that carry the story; none for the first form of a job."""
    if story == MessageStory():
        return {}
    value = msgspec.json.encode(story).decode()
    return {"MessageAttributes": {STORY: {"DataType": "String", "StringValue": value}}}


def story_of(message: Mapping[str, Any]) -> MessageStory:
    """The story in a message; none where it is not one of ours."""
    value = message.get("MessageAttributes", {}).get(STORY, {}).get("StringValue", "{}")
    try:
        return msgspec.json.decode(value, type=MessageStory)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return MessageStory()
