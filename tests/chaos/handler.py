"""The handler of the torture and the soak; copied beside their glassq.toml, so that its record lies there too.

A ping's id decides what its attempt is like: most are short, one in a hundred takes a second, one in twenty fails once.
"""

from __future__ import annotations

import json
import os
import time
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

from glassq import Retry

if TYPE_CHECKING:
    from glassq import Delivery

SHORT, LONG = 0.005, 1.0

# O_APPEND: a line of one child never lies in another's
_record = os.open(Path(__file__).with_name("handled.log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


def handle(delivery: Delivery) -> None:
    """Writes delivery id, ping id, pid and time (monotonic) down, on disk before it returns."""
    ping = json.loads(delivery.body)["itemId"]
    lot = zlib.crc32(ping.encode())
    if lot % 20 == 0 and delivery.attempt == 1:
        raise Retry("the first attempt fails", delay=1)
    time.sleep(LONG if lot % 100 == 1 else SHORT)
    os.write(_record, f"{delivery.id} {ping} {os.getpid()} {time.monotonic():.6f}\n".encode())
    os.fsync(_record)
