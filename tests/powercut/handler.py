"""The handler of the power cuts. It is copied beside their glassq.toml, and says "done" in the recorder's log.

The id of a ping decides how its attempt goes: of ten, two are retried, one is buried until it is kicked, and one is
delayed for hours.
"""

from __future__ import annotations

import os
import struct
import zlib
from typing import TYPE_CHECKING

from glassq import Bury, Retry

if TYPE_CHECKING:
    from glassq import Delivery

# the head of a record: tests/powercut/recording.py
_HEAD = struct.Struct("<IBBHHHIiQQQQd")
_log = os.open(os.environ["RECORDER_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)


def handle(delivery: Delivery) -> None:
    """Says that the ping is done, before it returns."""
    ping = delivery.labels.get("itemId", "") or delivery.body.decode().partition('"itemId": "')[2].partition('"')[0]
    fate = zlib.crc32(ping.encode()) % 10
    if fate in (0, 1) and delivery.attempt == 1:
        raise Retry("the first attempt fails", delay=1)
    if fate == 2 and delivery.attempt == 1:
        raise Bury("until somebody kicks it")
    if fate == 3 and delivery.attempt == 1:
        raise Retry("much later", delay=3 * 3600)
    words = f"done {ping}".encode()
    head = _HEAD.pack(_HEAD.size + len(words), ord("A"), 0, 0, 0, 0, os.getpid(), 0, 0, 0, 0, 0, 0.0)
    os.write(_log, head + words)
