"""Has the loop's thread call functions for other threads."""

from __future__ import annotations

import os
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


class LoopCalls:
    """A pipe that wakes the loop, and what it is to call then.

    gunicorn's own is closed with its loop. This one never is: a thread that outlives the loop must not write into a
    file that has got the pipe's number meanwhile.
    """

    def __init__(self) -> None:
        self._calls: SimpleQueue[Callable[[], object]] = SimpleQueue()
        self._read, self._write = os.pipe()
        for descriptor in (self._read, self._write):
            os.set_blocking(descriptor, False)

    def fileno(self) -> int:
        """What the loop's poller is to watch."""
        return self._read

    def defer(self, function: Callable[..., object], *arguments: Any) -> None:
        """The loop will call the function; from any thread."""
        self._calls.put(partial(function, *arguments))
        # if the pipe is full, the loop is woken all the same
        with suppress(BlockingIOError):
            os.write(self._write, b"\0")

    def run(self, _descriptor: object) -> None:
        """Calls all that waits; in the loop's thread."""
        with suppress(BlockingIOError):
            os.read(self._read, 1024)
        with suppress(Empty):
            while True:
                self._calls.get_nowait()()
