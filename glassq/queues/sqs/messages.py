"""A job as a message of SQS: its bytes as text, and what of its story has to go with a form that takes its place.

A message is text, and not of every character: U+0009, U+000A, U+000D and U+0020 up, without U+FFFE and U+FFFF, and
never empty. Our deliveries mostly are such text, and go as they are: an administrator can read them, and base64 would
make them a third larger. Anything else goes as base64, with a mark before it.
https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import TYPE_CHECKING, Any

import msgspec

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
# The one attribute of our messages.
STORY = "glassq"
_BASE64 = "base64:"
_UNFIT = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class MessageStory(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a message knows of the forms that it took the place of.

    `ref` is the job's reference ("": the message's own id), `losses` how many attempts were lost before this message
    was sent; `kicked` as in Reservation.
    """

    ref: str = ""
    losses: int = 0
    kicked: bool = False


def text_of(body: bytes) -> str:
    """The body of a message that holds these bytes."""
    try:
        text = body.decode()
    except UnicodeDecodeError:
        text = ""
    if text and not _UNFIT.search(text) and not text.startswith(_BASE64):
        return text
    return _BASE64 + base64.b64encode(body).decode()


def bytes_of(text: str) -> bytes:
    """The bytes in a message; of one that is not ours, what is there."""
    if text.startswith(_BASE64):
        try:
            return base64.b64decode(text.removeprefix(_BASE64), validate=True)
        except binascii.Error:
            pass
    return text.encode()


def attributes_of(story: MessageStory) -> dict[str, Any]:
    """The arguments of SendMessage that carry the story; none for the first form of a job."""
    if story == MessageStory():
        return {}
    value = msgspec.json.encode(story).decode()
    return {"MessageAttributes": {STORY: {"DataType": "String", "StringValue": value}}}


def story_of(message: Mapping[str, Any]) -> MessageStory:
    """The story in a message."""
    value = message.get("MessageAttributes", {}).get(STORY, {}).get("StringValue", "{}")
    try:
        return msgspec.json.decode(value, type=MessageStory)
    except msgspec.MsgspecError:
        return MessageStory()
