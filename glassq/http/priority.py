"""How threads beside the loop give way to it: a small ping shall not wait for a large body.

Measured by bench/large.py on two cores that others use as well: while 200 senders push 1 MB each, small pings take a
third of the time (p99) where these threads are nicer, and a third of that where they pause as well. The pushes take
twice as long then, and as long as ever where no small pings are about.
"""

from __future__ import annotations

import math
import os
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Added to the process's own niceness. Linux has one for each thread.
NICER = 10
# Small pings are about while the last one is younger than this, in seconds.
RECENT = 1.0
# The longest pause after a step, in seconds.
MAX_PAUSE = 0.02


def give_way() -> None:
    """The calling thread runs when no other thread of ours wants to, or a little."""
    with suppress(OSError, AttributeError):
        thread = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + NICER)


class SmallFirst:
    """Halves the speed of large bodies while small pings are about.

    Being nicer is not enough: a nice thread that waits for a core may hold the interpreter's lock, and the disk knows
    nothing of it. A step that has taken long, for whatever reason, is followed by as long a pause: so the busier the
    machine is, the more room is left.
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._clock = clock
        self._sleep = sleep
        self._small = -math.inf

    def saw_small(self, now: float) -> None:
        """Small pings were worked at `now`, by the clock."""
        self._small = now

    @contextmanager
    def step(self) -> Iterator[None]:
        """A step of work on a large body. Not for the loop."""
        began = self._clock()
        try:
            yield
        finally:
            ended = self._clock()
            if ended - self._small < RECENT:
                self._sleep(min(ended - began, MAX_PAUSE))
