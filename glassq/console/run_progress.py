"""How a run is followed: numbers that pages show, and a flag that ends it."""

from __future__ import annotations

import threading
import time
from contextlib import nullcontext
from typing import TYPE_CHECKING

from glassq.errors import Stopped
from glassq.operations import archive, outcomes

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from datetime import datetime
    from pathlib import Path

    from glassq.console.run import Run
    from glassq.console.slots import RunSlots

# How often the ledger is told how far a run is, in seconds.
TOLD_EVERY = 2.0
# So many steps are told.
MOST_STEPS = 100


class RunProgress:
    """The Progress of a run."""

    def __init__(self, run: Run, slots: RunSlots, clock: Callable[[], datetime], told: Callable[[], None]) -> None:
        """`told` is called now and then, once the numbers have changed."""
        self._run = run
        self._slots = slots
        self._clock = clock
        self._told = told
        self._next = time.monotonic() + TOLD_EVERY
        self._followed = 0
        self.stopping = threading.Event()

    def advance(self, done: int, total: int, words: str) -> None:
        """Raises Stopped."""
        run = self._run
        if words == archive.WRITING:
            run.doing = f"{words}: {done} of {total}"
        elif words == outcomes.FOLLOWING:
            # others may work meanwhile
            self._slots.give(run.id)
            if not self._followed:
                self.note(f"{total} kicked: waiting for what comes of {'it' if total == 1 else 'them'}")
            self._followed = total
            run.doing = f"waiting for outcomes, {done} of {total} are here"
        else:
            self.begin()
            if self._followed:
                went = "1 went well" if self._followed == 1 else f"{self._followed} went well"
                self.note(f"{went}: the next ones follow")
                self._followed = 0
            run.done, run.doing = done, words
        if time.monotonic() > self._next:
            self._told()
            self._next = time.monotonic() + TOLD_EVERY
        self.wait(0)

    def begin(self) -> None:
        """Returns once the run may work. Raises Stopped."""
        run = self._run

        def waits(words: str) -> None:
            run.doing = words

        self._slots.take(run.id, f'"{run.title}" by {run.actor}', self, waits)

    def archived_in(self, file: Path) -> None:
        """The file is the run's, and the ledger knows it before anything leaves the queue."""
        self._run.file = str(file)
        self._told()

    def wait(self, seconds: float) -> None:
        """Raises Stopped."""
        if self.stopping.wait(max(0.0, seconds)):
            raise Stopped

    def defer_signals(self) -> AbstractContextManager[None]:
        """Signals end no thread."""
        return nullcontext()

    def warn(self, words: str) -> None:
        """A step."""
        self.note(words)

    def note(self, words: str) -> None:
        """A step."""
        self._run.steps = (*self._run.steps, (self._clock(), words))[-MOST_STEPS:]
