"""Children that are kept for one queue of [worker.queues]: they reserve from its tube alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from glassq.worker.bucket import LOCK_TIMEOUT

if TYPE_CHECKING:
    from collections.abc import Callable

    from glassq.worker.bucket import ProcessLock, TokenBucket

# How often a child looks whether a queue has too few children that are kept for it, or too many, in seconds.
KEPT_CHECK = 0.5
# How long a new child waits for the lock at its first look, in seconds: without an answer it would take a job of
# another queue, and for as long as that runs nobody would be kept.
FIRST_LOOK = 2.0


class KeptPlace:
    """Whether the child is kept for one queue: it then reserves from that alone.

    A queue that lacks a child gets the next one that looks, whichever that is, so nobody has to hand a place on: the
    parent clears those of the dead. The bucket of a queue has no tokens to speak of, but a place for each child.
    """

    def __init__(self, slot: int, buckets: list[TokenBucket], lock: ProcessLock, clock: Callable[[], float]) -> None:
        """Made by `Throttle.place`, in the child."""
        self._slot = slot
        self._buckets = buckets
        self._lock = lock
        self._clock = clock
        self._held: TokenBucket | None = None
        self._check_at = 0.0
        self._timeout = FIRST_LOOK

    @property
    def wanted(self) -> bool:
        """Whether there are queues that keep children."""
        return bool(self._buckets)

    def tube(self) -> str:
        """The tube of the queue that the child is kept for now; "" for none."""
        timeout, self._timeout = self._timeout, LOCK_TIMEOUT
        if self._buckets and self._clock() >= self._check_at and self._lock.acquire(timeout):
            self._check_at = self._clock() + KEPT_CHECK
            try:
                self._held = self._look()
            finally:
                self._lock.release()
        return self._held.tube if self._held else ""

    def _look(self) -> TokenBucket | None:
        if self._held is not None:
            if not self._held.crowded():
                return self._held
            self._held.clear(self._slot)
        for bucket in self._buckets:
            if bucket.acquire(self._slot) == 0:
                bucket.consume(self._slot)
                return bucket
        return None
