"""A Progress for threads that nobody follows, and that end when they are told."""

from __future__ import annotations

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
