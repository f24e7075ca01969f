"""What the queue of a tube is called: PREFIX-TUBE, as queues' names are of A-Z a-z 0-9 - _ and at most 80 characters.

A dot becomes two underscores, any other character that is missing there (an underscore as well) one and two hex digits:
so the tube can be read from the name. A name that is too long ends in a hash, and its tube stands in the queue's tag.
"""

from __future__ import annotations

import hashlib
import re

from glassq.values import Tube

# https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-queue-and-message-identifiers.html
MAX_NAME = 80
# The longest that a mark is, and what a cut escape costs: so much of a name is surely as its tube's name begins.
CERTAIN = MAX_NAME - len("_h") - 32 - len("_x")
# The tag of a queue whose name does not say its tube.
TAG = "glassq:tube"
_OTHER = re.compile(r"[^A-Za-z0-9-]")
_ESCAPED = re.compile(r"_(_|[0-9a-f]{2})")
_PLAIN = re.compile(r"(?:[A-Za-z0-9-]|_(?:_|[0-9a-f]{2}))*")
# What ends a name that is cut; after whole escapes nothing else looks like it.
_HASHED = re.compile(rf"{_PLAIN.pattern}_h[0-9a-f]{{32}}")


def queue_name(prefix: str, tube: str) -> str:
    """The name of the tube's queue."""
    if not is_hashed(prefix, tube):
        return f"{prefix}-{escaped(tube)}"
    mark = f"_h{hashlib.sha256(tube.encode()).hexdigest()[:32]}"
    head = _PLAIN.match(escaped(tube)[: MAX_NAME - len(mark) - len(prefix) - 1])
    return f"{prefix}-{head[0] if head else ''}{mark}"


def is_hashed(prefix: str, tube: str) -> bool:
    """Whether the name of the tube's queue does not say the tube."""
    return len(prefix) + 1 + len(escaped(tube)) > MAX_NAME


def tube_of(prefix: str, name: str) -> str | None:
    """The tube whose queue is called so; "" if the name does not say it, None if the queue is not of this prefix."""
    head, dash, rest = name.partition("-")
    if head != prefix or not dash or not rest:
        return None
    if _HASHED.fullmatch(rest):
        return ""
    if not _PLAIN.fullmatch(rest):
        return None
    tube = _ESCAPED.sub(lambda found: "." if found[1] == "_" else chr(int(found[1], 16)), rest)
    try:
        return Tube(tube)
    except ValueError:
        return None


def escaped(text: str) -> str:
    """The text, or the beginning of one, as it stands in the name of a queue."""
    return _OTHER.sub(lambda found: "__" if found[0] == "." else f"_{ord(found[0]):02x}", text)
