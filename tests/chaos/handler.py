"""The handler of the torture and the soak. It is copied beside their glassq.toml, and writes its record there.

The id of a ping decides how its attempt goes: most are short, one in 100 takes a second, one in 20 fails once.
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

# O_APPEND: the lines of several children never mix
_record = os.open(Path(__file__).with_name("handled.log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


def handle(delivery: Delivery) -> None:
    """Records delivery id, ping id, pid and time (monotonic), on disk before it returns."""
    ping = json.loads(delivery.body)["itemId"]
    number = zlib.crc32(ping.encode())
    if number % 20 == 0 and delivery.attempt == 1:
        raise Retry("the first attempt fails", delay=1)
    time.sleep(LONG if number % 100 == 1 else SHORT)
    os.write(_record, f"{delivery.id} {ping} {os.getpid()} {time.monotonic():.6f}\n".encode())
    os.fsync(_record)
