"""Which jobs a child looks at: those of which an attempt may have ended with its process. A look costs a round trip."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from glassq.queues.base import Reservation
    from glassq.worker.slots import Slot

# Of pools on other hosts, and of one without a runtime directory, nobody here knows what they worked when they were
# killed as a whole. Those jobs are ready at once, and are the first that the next pool gets. So a tube's jobs are
# looked at in the first YOUNG seconds of the pool, until QUIET of them in a row have lost no attempt.
YOUNG, QUIET = 60.0, 100


class LossWatch:
    """Decides it for one child."""

    def __init__(self, slot: Slot) -> None:
        self._slot = slot
        self._young_until = slot.born + YOUNG
        # by tube, how many jobs in a row had lost no attempt
        self._quiet: dict[str, int] = {}

    def suspects(self, reservation: Reservation) -> bool:
        """Whether an attempt at this job, which was just reserved, may have been lost.

        It has been if a slot says that it was begun, and neither ended nor given back. Where the engine has counted the
        losses there is nothing to find out.
        """
        if reservation.losses is not None:
            return False
        if self._slot.may_be_lost(reservation.ref):
            return True
        return self._quiet.get(reservation.tube, 0) < QUIET and time.monotonic() < self._young_until

    def saw(self, reservation: Reservation) -> None:
        """Takes note of a job that was looked at."""
        self._quiet[reservation.tube] = 0 if reservation.losses else self._quiet.get(reservation.tube, 0) + 1
