"""Threads for foreign code: it may take its time, hang, or even exit, and keeps only its own requests waiting."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import BoundedSemaphore
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

THREADS = 4
# What is worked or waits for it at a moment. Each has a connection, of which the others need most.
MAX_WAITING = 64


class ForeignThreads:
    """They take on a bounded number of calls."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(THREADS, "foreign")
        self._places = BoundedSemaphore(MAX_WAITING)

    def take(self, call: Callable[[], None]) -> bool:
        """Has it called in one of the threads; returns False, and does nothing, if too many wait."""
        if not self._places.acquire(blocking=False):
            return False
        self._threads.submit(self._run, call)
        return True

    def stop(self) -> None:
        """What waits is not called any more."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _run(self, call: Callable[[], None]) -> None:
        try:
            call()
        finally:
            self._places.release()
