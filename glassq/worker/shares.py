"""Which queues a child reserves from: their shares of the work, and the children that are kept for one of them.

beanstalkd gives the oldest job of all the tubes that a connection watches, so a burst in one tube would stand before
whatever comes later into another one. So a child watches the tube whose turn it is, and beside it those that it
believes to be empty, at no further cost. It learns what is empty from reserves that find nothing, and looks every
PROBE seconds whether something has come into the empty ones alone.

The turns are those of stride scheduling (Waldspurger and Weihl, 1995): each job moves its queue forward by 1/weight,
and the queue that is furthest behind is next. Each child counts for itself, so the shares hold for the pool as well.

The first share is that of the main tube, with all that a TubeLimiter lets through beside it: the tubes of push queues
that are within their limits, and those of queues that the settings no longer have.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from glassq.worker.throttle import Admission

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from glassq.worker.kept import KeptPlace
    from glassq.worker.throttle import TubeLimiter

# How long a job in an empty queue may wait behind older jobs of another one while a child is free to take it, in
# seconds. With shorter handlers, a look after each job would cost more than it is worth.
PROBE = 0.01


@dataclass(frozen=True, slots=True)
class Share:
    """A queue's tube, and its weight beside those of the others."""

    tube: str
    weight: int = 1


class QueueLimiter:
    """Lets one child reserve from several queues by their shares. Used as a TubeLimiter is, and single-threaded."""

    def __init__(
        self,
        main: TubeLimiter,
        shares: Sequence[Share],
        place: KeptPlace,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`main` limits what shares the work with the main tube, which is the first of `shares`."""
        self._main = main
        self._place = place
        self._clock = clock
        self._main_tube = shares[0].tube
        self._strides = {share.tube: 1 / share.weight for share in shares}
        self._all = frozenset(self._strides)
        self._passed = dict.fromkeys(self._strides, 0.0)
        self._empty = set(self._strides)
        # what the last reserve was allowed, and what the one was that went ahead with the end of a job
        self._drawn: frozenset[str] = frozenset()
        self._ahead: frozenset[str] = frozenset()
        self._ahead_tubes: tuple[str, ...] = ()
        self._probe_at = 0.0
        self._probing = False

    @property
    def patient(self) -> bool:
        """Whether nothing but a job changes what the child may reserve from."""
        return self._main.patient and not self._place.wanted

    @property
    def several(self) -> bool:
        """See `TubeLimiter.several`: here each job is a turn."""
        return False

    def admit(self, has_next: bool = False) -> Admission:
        """The tubes to reserve from now; with `has_next`, those that the next job has come from."""
        ahead, self._ahead = self._ahead, frozenset()
        if has_next:
            self._drawn = ahead
            return Admission(self._ahead_tubes)
        # the reserve that went ahead found nothing
        self._empty |= ahead
        if tube := self._place.tube():
            self._drawn = frozenset()
            return Admission((tube,))
        self._drawn = self._draw()
        of_main = self._main.admit() if self._main_tube in self._drawn else Admission(())
        # what is not in the draw may have jobs: no time to wait
        wait = of_main.wait if self._drawn == self._all else 0.0
        return Admission((*of_main.tubes, *(self._drawn - {self._main_tube})), wait)

    def ahead(self) -> Sequence[str]:
        """The tubes for a reserve that goes with the end of a job."""
        if tube := self._place.tube():
            self._ahead_tubes = (tube,)
            return self._ahead_tubes
        self._ahead = self._draw()
        of_main = self._main.ahead() if self._main_tube in self._ahead else ()
        self._ahead_tubes = (*of_main, *(self._ahead - {self._main_tube}))
        return self._ahead_tubes

    def start(self, tube: str) -> None:
        """An attempt at a job of this tube starts."""
        self._charge(tube if tube in self._strides else self._main_tube)
        self._main.start(tube)

    def take_alone(self, tube: str) -> bool:
        """See `TubeLimiter.take_alone`."""
        return self._main.take_alone(tube)

    def nothing_came(self) -> None:
        """The tubes of the last `admit` gave no job."""
        self._empty |= self._drawn

    def release_tokens(self) -> None:
        """See `TubeLimiter.release_tokens`."""
        self._main.release_tokens()

    def finish(self, *, slow_down: bool = False, has_next: bool = False) -> None:
        """See `TubeLimiter.finish`."""
        self._main.finish(slow_down=slow_down, has_next=has_next)

    def notice(self, tubes: Sequence[str]) -> None:
        """See `TubeLimiter.notice`."""
        self._main.notice([tube for tube in tubes if tube not in self._strides])

    def _draw(self) -> frozenset[str]:
        busy = [tube for tube in self._strides if tube not in self._empty]
        # never twice in a row: on a slow connection each look takes longer than PROBE
        self._probing = bool(busy and self._empty and not self._probing and self._clock() >= self._probe_at)
        if self._probing:
            self._probe_at = self._clock() + PROBE
            return frozenset(self._empty)
        turn = min(busy, key=self._passed.__getitem__, default=self._main_tube)
        return frozenset(self._empty | {turn})

    def _charge(self, tube: str) -> None:
        stride = self._strides[tube]
        if tube in self._empty:
            # it saves up nothing while it is empty, and owes nothing for what it got alone
            others = [self._passed[other] for other in self._strides if other not in self._empty]
            now = min(others, default=0.0)
            self._passed[tube] = min(max(self._passed[tube], now), now + stride)
            self._empty.discard(tube)
        self._passed[tube] += stride
