"""What census and sampler share: a thread that looks at the queue every few seconds, whatever goes wrong there.

Where each look is metered (`Capabilities.metered`) it looks less often, and hardly ever while nobody watches.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from glassq.errors import GlassqError, Stopped

if TYPE_CHECKING:
    from glassq.operations import Operations
    from glassq.queues.base import Inspector

# How often it looks, in seconds; where looks are metered: while somebody watches, and while nobody does.
EVERY = 5.0
METERED = (15.0, 600.0)
# Who has not asked for so long watches no more, in seconds.
WATCHED = 60.0
# Whoever has changed something, or comes after a while, waits for the next look so long, in seconds.
LOOK = 1.0


class Attention:
    """Whether somebody watches."""

    def __init__(self) -> None:
        self._asked = float("-inf")

    def pay(self) -> bool:
        """Somebody asks; whether nobody had for a while."""
        absent = not self.is_paid
        self._asked = time.monotonic()
        return absent

    @property
    def is_paid(self) -> bool:
        """Whether somebody has asked lately."""
        return time.monotonic() - self._asked < WATCHED


class QueueWatcher(ABC):
    """`start` begins its thread, `close` ends it."""

    def __init__(self, operations: Operations, name: str) -> None:
        """`name` is the thread's."""
        self._operations = operations
        self._attention = Attention()
        self._metered = operations.metered
        self._stopping = threading.Event()
        # set by who wants it to look at once
        self._wanted = threading.Event()
        # how many looks have begun, and which was the last that is over
        self._looks = threading.Condition()
        self._begun = self._looked = 0
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

    def look(self) -> None:
        """Looks at once, for who has just changed something; returns within LOOK, whether it is done or not."""
        if not self._thread.is_alive():
            return
        with self._looks:
            wanted = self._begun + 1
            self._wanted.set()
            self._looks.wait_for(lambda: self._looked >= wanted, LOOK)

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
        with self._looks:
            self._begun += 1
            now = self._begun
        # what it has seen before is not taken for what is there now
        queue.only_looks()
        try:
            self.step(queue)
        finally:
            with self._looks:
                self._looked = now
                self._looks.notify_all()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                with self._operations.looking() as queue:
                    while not self._stopping.is_set():
                        self._look(queue)
                        self._rest(self._rhythm)
            except Stopped:
                return
            except GlassqError as error:
                self._cannot(str(error))
            except Exception:
                self._cannot(self._log_bug())
            # who watches wants to know when it is over
            self._rest(EVERY if self._attention.is_paid else self._rhythm)

    @property
    def _rhythm(self) -> float:
        """Between two looks, in seconds."""
        if not self._metered:
            return EVERY
        return METERED[0 if self._attention.is_paid else 1]

    def _rest(self, seconds: float) -> None:
        if not self._stopping.is_set():
            self._wanted.wait(seconds)
            self._wanted.clear()
