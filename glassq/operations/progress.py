"""How an operation tells how far it is, and how it is stopped. The terminal draws a bar, the console polls numbers."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol


class Progress(Protocol):
    """What an operation tells whoever started it. `advance` and `wait` raise Stopped once it is to end."""

    def advance(self, done: int, total: int, words: str) -> None:
        """So many of so many steps are done; `words` say of what, as in "kicked so far". Raises Stopped."""

    def wait(self, seconds: float) -> None:
        """Returns after so many seconds. Raises Stopped as soon as the operation is to end."""

    def defer_signals(self) -> AbstractContextManager[None]:
        """What would end the process waits until the block is over: no delivery is left between two steps."""

    def warn(self, words: str) -> None:
        """Something went wrong that does not end the operation."""

    def note(self, words: str) -> None:
        """Something that is good to know while it goes on."""


class Silent:
    """A Progress that nobody follows, and that never stops."""

    def advance(self, done: int, total: int, words: str) -> None:
        """Tells nobody."""

    def wait(self, seconds: float) -> None:
        """Returns after so many seconds."""
        time.sleep(max(0.0, seconds))

    def defer_signals(self) -> AbstractContextManager[None]:
        """Defers nothing."""
        return nullcontext()

    def warn(self, words: str) -> None:
        """Tells nobody."""

    def note(self, words: str) -> None:
        """Tells nobody."""


class Brief(Silent):
    """Nobody follows it either, and a search ends after so many seconds: `advance` raises TimeoutError then."""

    def __init__(self, seconds: float) -> None:
        self._deadline = time.monotonic() + seconds

    def advance(self, done: int, total: int, words: str) -> None:
        """Raises TimeoutError."""
        if time.monotonic() > self._deadline:
            raise TimeoutError
