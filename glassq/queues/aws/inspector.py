"""What the inspectors of Amazon's services share: how long a call may take, and one count for all that ask at once."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Generic, TypeVar

from glassq.errors import QueueUnavailable
from glassq.queues.single import SingleCalls

if TYPE_CHECKING:
    from collections.abc import Callable

    from glassq.queues.aws.client import AwsClient

Seen = TypeVar("Seen")

# For so long, in seconds, what was counted serves who only looks.
FRESH = 1.0


class AwsInspector(SingleCalls, Generic[Seen]):
    """See `glassq.queues.base.Inspector`. `Seen` is what one look at everything tells."""

    def __init__(self, client: AwsClient) -> None:
        self._timeout = client.timeout
        self._deadline = float("inf")
        #: whether what was seen may serve once more
        self.remembers = False
        # what was seen, and when (monotonic)
        self._seen: tuple[float, Seen] | None = None

    def set_deadline(self, deadline: float) -> None:
        self._deadline = deadline

    def only_looks(self) -> None:
        self.remembers, self._seen = True, None

    def seen(self, look: Callable[[], Seen]) -> Seen:
        """What `look` sees; for who only looks, what it saw a moment ago."""
        if self.remembers and self._seen is not None and time.monotonic() - self._seen[0] < FRESH:
            return self._seen[1]
        found = look()
        self._seen = time.monotonic(), found
        return found

    def left(self) -> float:
        """How much time a call has, in seconds. Raises QueueUnavailable where it has none."""
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise QueueUnavailable("the time for it is over")
        return min(left, self._timeout)

    def close(self) -> None:
        """The client is that of all roles."""
