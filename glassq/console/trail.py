"""Who came in, and who was refused: recorded as other activities are, but no more of it than a ledger should hold.

The log has each of them all the same.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from glassq.console.limits import RequestRate
from glassq.ledger.activity import REFUSED, SIGN_IN
from glassq.operations.activity import CameTo
from glassq.operations.progress import Silent

if TYPE_CHECKING:
    from collections.abc import Callable

    from glassq.console.roles import Actor
    from glassq.operations import Operations

# So many at once, and then one a minute: of each who signs in, and of all that are refused together.
AT_ONCE, PER_SECOND = 30.0, 1 / 60


class Trail:
    """Any thread may use it."""

    def __init__(
        self, operations: Callable[[Actor | None], Operations], tick: Callable[[], float] = time.monotonic
    ) -> None:
        """`operations` are those of this actor (None: nobody knows who); `tick` is a clock, in seconds."""
        self._operations = operations
        self._rate = RequestRate(PER_SECOND, AT_ONCE, tick)

    def signed_in(self, who: Actor) -> None:
        """This one has come in by its door."""
        if not self._rate.admit(f"in {who.door} {who.name}"):
            self._record(who, SIGN_IN, CameTo(note=who.role.words))

    def refused(self, who: Actor | None, asked: str, why: str, did: str = REFUSED) -> None:
        """This one (None: nobody knows who) asked for something, and may not have it."""
        if not self._rate.admit(REFUSED):
            self._record(who, did, CameTo("failed", note=f"{asked}: {why}"))

    def _record(self, who: Actor | None, did: str, came_to: CameTo) -> None:
        self._operations(who).activities(Silent()).record(did, came_to)
