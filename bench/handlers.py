"""Handlers for the pool of the bench."""

import asyncio
import json
import os
import time
from pathlib import Path

from glassq import Delivery, Retry


def noop(delivery: Delivery) -> None:
    """Does nothing."""


def stamp(delivery: Delivery) -> None:
    """Appends the time since the ping was sent, in seconds, to a file of this process."""
    late = time.time() - json.loads(delivery.body)["sent"]
    with (Path(__file__).parent / f"late.{os.getpid()}").open("a") as file:
        file.write(f"{late}\n")


def fail(delivery: Delivery) -> None:
    """Fails each time."""
    raise Retry("as the bench wants it")


async def waits(_delivery: Delivery) -> None:
    """Waits for the network."""
    await asyncio.sleep(1.0)


async def at_once(_delivery: Delivery) -> None:
    """Does nothing."""
