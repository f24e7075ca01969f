"""Moves on what the queue's engine cannot keep so itself, in a process beside the children of a pool."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from glassq.errors import QueueError
from glassq.log import fields, logger
from glassq.queues import open_mover
from glassq.worker import sidecar

if TYPE_CHECKING:
    from collections.abc import Callable

    from glassq.queues.engine import Mover
    from glassq.settings import Settings

log = logger("glassq.worker")

# In how many seconds it is tried again after a failure.
AGAIN = 10.0


def main_of(settings: Settings) -> Callable[[], int] | None:
    """The main function of the process, which the calling process forks; None where the engine keeps all itself."""
    mover = open_mover(settings)
    if mover is None:
        return None
    parent = os.getpid()
    return lambda: run(mover, parent)


def run(mover: Mover, parent: int) -> int:
    """Moves what is due until `parent` has died; SIGTERM ends it before. It may be interrupted anywhere."""
    sidecar.begin(mover.title)
    failing = False

    def step() -> float:
        nonlocal failing
        try:
            again = mover.step()
        except QueueError as error:
            if not failing:
                log.error("what is due is not moved on, trying again %s", fields(error=error))
            failing = True
            return AGAIN
        if failing:
            log.info("what is due is moved on again")
        failing = False
        return again

    return sidecar.repeat(step, parent)
