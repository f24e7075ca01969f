"""For threads that nobody follows, that never hurry, and that end when they are told."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from glassq.errors import Stopped
from glassq.operations.progress import Silent

if TYPE_CHECKING:
    import threading


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

    def __init__(self, stopping: threading.Event, share: float, deadline: float = 0.0) -> None:
        """Until `deadline` (time.monotonic()) it does not sleep: the work of a short look is paced by the looks."""
        self._stopping = stopping
        self._rest = 1 / share - 1
        self._deadline = deadline
        self._began = time.monotonic()

    def __call__(self, _examined: int, _total: int) -> None:
        """Sleeps. Raises Stopped."""
        worked = time.monotonic() - self._began
        if self._stopping.wait(worked * self._rest if time.monotonic() > self._deadline else 0.0):
            raise Stopped
        self._began = time.monotonic()
