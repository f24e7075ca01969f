"""For threads that nobody follows, that never hurry, and that end when they are told."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from glassq.errors import Stopped
from glassq.operations.progress import Silent

if TYPE_CHECKING:
    import threading


# Linux: of the thread that reads it.
_SCHEDULED = Path("/proc/thread-self/schedstat")


class Stoppable(Silent):
    """Raises Stopped once the event is set."""

    def __init__(self, stopping: threading.Event) -> None:
        self._stopping = stopping

    def advance(self, done: int, total: int, words: str) -> None:
        """Raises Stopped."""
        if self._stopping.is_set():
            raise Stopped

    def wait(self, seconds: float) -> None:
        """Returns after so many seconds, or raises Stopped."""
        if self._stopping.wait(max(0.0, seconds)):
            raise Stopped


class Pacer:
    """Sleeps after some work, for so long that the work takes a `share` of the time. It is a search's `progress`."""

    def __init__(
        self, stopping: threading.Event, share: float, deadline: float = 0.0, crowded: float | None = None
    ) -> None:
        """Until `deadline` (time.monotonic()) it does not sleep: the work of a short look is paced by the looks.

        Where others want the processors too, the share is less, down to `crowded` (None: it is the same).
        """
        self._stopping = stopping
        self._share, self._least = share, share if crowded is None else crowded
        self._deadline = deadline
        self._began, self._times = time.monotonic(), _times()

    def __call__(self, _examined: int, _total: int) -> None:
        """Sleeps. Raises Stopped."""
        worked, times = time.monotonic() - self._began, _times()
        rest = worked * (1 / self._share_now(times) - 1) if time.monotonic() > self._deadline else 0.0
        if self._stopping.wait(rest):
            raise Stopped
        self._began, self._times = time.monotonic(), _times()

    def _share_now(self, times: tuple[int, int]) -> float:
        ran, waited = (now - before for now, before in zip(times, self._times, strict=True))
        # squared: where it has to wait half of the time for a processor, it takes one from others in the other half
        free = (ran / (ran + waited)) ** 2 if ran + waited else 1.0
        return max(self._least, self._share * free)


def _times() -> tuple[int, int]:
    """For how long this thread ran, and waited for a processor, in nanoseconds; 0 where the system does not tell."""
    try:
        ran, waited, _ = _SCHEDULED.read_text().split()
    except (OSError, ValueError):
        return 0, 0
    return int(ran), int(waited)
