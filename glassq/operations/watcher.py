"""What census and sampler share: a thread that looks at the queue every few seconds, whatever goes wrong there."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from glassq.errors import GlassqError, Stopped

if TYPE_CHECKING:
    from glassq.operations import Operations
    from glassq.queues.base import Inspector

# How often it looks, in seconds.
EVERY = 5.0


class QueueWatcher(ABC):
    """`start` begins its thread, `close` ends it."""

    def __init__(self, operations: Operations, name: str) -> None:
        """`name` is the thread's."""
        self._operations = operations
        self._stopping = threading.Event()
        # set by who wants it to look at once
        self._wanted = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begins to look."""
        self._thread.start()

    def close(self) -> None:
        """Ends the thread, within a second or two."""
        self._stopping.set()
        self._wanted.set()
        if self._thread.is_alive():
            self._thread.join(2.0)

    @property
    def has_ended(self) -> bool:
        """Whether its thread has ended though nobody closed it: nobody looks any more."""
        return self._thread.ident is not None and not self._thread.is_alive() and not self._stopping.is_set()

    @abstractmethod
    def step(self, queue: Inspector) -> None:
        """Looks once. Raises GlassqError where it cannot, and Stopped."""

    @abstractmethod
    def _cannot(self, why: str) -> None:
        """Tells those who ask why nobody can look now."""

    @abstractmethod
    def _log_bug(self) -> str:
        """Logs the exception at hand; what those who ask are told."""

    def _look(self, queue: Inspector) -> None:
        self.step(queue)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                with self._operations.looking() as queue:
                    while not self._stopping.is_set():
                        self._wanted.clear()
                        self._look(queue)
                        self._wanted.wait(EVERY)
            except Stopped:
                return
            except GlassqError as error:
                self._cannot(str(error))
            except Exception:
                self._cannot(self._log_bug())
            self._stopping.wait(EVERY)
