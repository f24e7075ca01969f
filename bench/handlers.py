"""Handlers of the bench's pool."""

import json
import os
import time
from pathlib import Path

from glassq import Delivery


def noop(delivery: Delivery) -> None:
    """Nothing."""


def stamp(delivery: Delivery) -> None:
    """Notes how long ago the ping was sent, in seconds, in a file of this process."""
    late = time.time() - json.loads(delivery.body)["sent"]
    with (Path(__file__).parent / f"late.{os.getpid()}").open("a") as file:
        file.write(f"{late}\n")
