"""How many runs work at a time; the others wait. A run that only waits for outcomes makes room."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from glassq.operations.progress import Progress

# Between two looks at whether a run that waits is to end, in seconds.
_LOOK = 0.2


class RunSlots:
    """So many slots. Any thread may use it."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._free = threading.Condition()
        # who works, by the run, in words
        self._holders: dict[str, str] = {}

    def take(self, run: str, words: str, progress: Progress, waits: Callable[[str], None]) -> None:
        """Returns once the run has a slot; `waits` is told for whom it waits. Raises Stopped."""
        while True:
            with self._free:
                if run in self._holders or len(self._holders) < self._count:
                    self._holders[run] = words
                    return
                waits(f"waits for {' and '.join(self._holders.values())}")
                self._free.wait(_LOOK)
            progress.wait(0)

    def give(self, run: str) -> None:
        """The run needs none for now."""
        with self._free:
            self._holders.pop(run, None)
            self._free.notify_all()
