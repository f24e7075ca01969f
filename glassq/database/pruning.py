"""When to delete old rows: about once an hour, a limited number per transaction."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from glassq import backoff

if TYPE_CHECKING:
    from collections.abc import Callable

# In seconds: the first pruning comes within PRUNE_SOON of the start, the next ones about every PRUNE_EVERY, or after
# PRUNE_AGAIN if there was more to delete than one transaction takes.
PRUNE_SOON, PRUNE_EVERY, PRUNE_AGAIN = 60.0, 3600.0, 0.2
# Rows per transaction: other processes wait for it.
PRUNE_ROWS = 500


class Pruning:
    """Calls a pruning function when it is due. Jittered, because a pool's children start together."""

    def __init__(self) -> None:
        #: on time.monotonic()
        self.due_at = time.monotonic() + backoff.between(0.0, PRUNE_SOON)

    def run_if_due(self, prune: Callable[[int], int]) -> None:
        """Calls `prune` with the maximum number of rows, if it is due; it returns how many rows it deleted."""
        if time.monotonic() < self.due_at:
            return
        wait = PRUNE_AGAIN if prune(PRUNE_ROWS) >= PRUNE_ROWS else PRUNE_EVERY
        self.due_at = time.monotonic() + backoff.between(0.75 * wait, 1.25 * wait)
