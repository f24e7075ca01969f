"""Answers that wait until something has been kept, and the thread that keeps it.

What an app must make durable before its answer may go out takes long: a disk has to be waited for. Where each request
waits for itself, the disk is asked once for each. Here the app hands what it must keep to the turn of the loop, and
returns its answer at once; one thread keeps all that has come meanwhile in one go.
"""

from __future__ import annotations

import threading
import time
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, NamedTuple

from glassq.log import logger

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from glassq.http.connection import Connection

log = logger("glassq.http")

# What the thread takes at once, in items: the engine's answer to more would take longer than one proof.
MAX_BATCH = 1024
# A batch costs as much as a dozen of its items. Those that were answered together come again together, but not at once:
# after a batch of more than FEW, the next one waits for as many, at most for so long; in seconds.
FEW, LINGER = 4, 0.001


class Held(NamedTuple):
    """An answer that goes out once what the app has handed over is kept."""

    conn: Connection
    answer: bytes
    closes: bool


class Turn:
    """What one turn of the loop has taken in, and must keep before it answers."""

    __slots__ = ("held", "items", "since", "size")

    def __init__(self) -> None:
        #: the app appends what must be kept before the answer to its request goes out; one thing for each request
        self.items: list[Any] = []
        #: the answers that wait for them, in the same order
        self.held: list[Held] = []
        #: the size of their requests in bytes
        self.size = 0
        self.since = time.monotonic()


class BatchThread:
    """Keeps what turns of the loop hand over, in their order."""

    def __init__(
        self, keep: Callable[[Sequence[Any]], Sequence[bool]], done: Callable[[list[Turn], Sequence[bool]], None]
    ) -> None:
        """`keep` says of each item whether it is kept. Then `done` gets the turns, and what was said, in the thread."""
        self._keep = keep
        self._done = done
        self._turns: SimpleQueue[Turn | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="keeper", daemon=True)

    def start(self) -> None:
        """Starts the thread. Call it after the fork."""
        self._thread.start()

    def stop(self, wait: float) -> None:
        """Ends the thread after what it is doing; waits for that, up to this number of seconds."""
        self._turns.put(None)
        self._thread.join(wait)

    def hand_over(self, turn: Turn) -> None:
        """The turn's items are to be kept."""
        self._turns.put(turn)

    def _run(self) -> None:
        expected = 0
        while (first := self._turns.get()) is not None:
            if FEW < expected > len(first.items):
                time.sleep(LINGER)
            turns, over = self._with_those_that_wait(first)
            items = [item for turn in turns for item in turn.items]
            expected = len(items)
            try:
                kept = self._keep(items)
            except Exception:
                # nobody may be told that it is kept; the next batch may do better
                log.exception("bug in keeping a batch")
                kept = [False] * len(items)
            self._done(turns, kept)
            if over:
                return

    def _with_those_that_wait(self, first: Turn) -> tuple[list[Turn], bool]:
        """Adds the turns that have come since; and whether the end has been asked for."""
        turns, many = [first], len(first.items)
        while many < MAX_BATCH:
            try:
                turn = self._turns.get_nowait()
            except Empty:
                break
            if turn is None:
                return turns, True
            turns.append(turn)
            many += len(turn.items)
        return turns, False
