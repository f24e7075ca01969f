"""Long polls of one receiver, each in a thread of its own: one for each tube that it waits at.

The service may give a job to a poll whose connection was cut, and nobody works it then until its lease ends. So no poll
is cut: who stops waiting, or gets a job out of another tube, lets them end by themselves, within the time that a poll
takes, and gives back what they bring.
"""

from __future__ import annotations

import select
import socket
import threading
import time
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from glassq.errors import QueueError, QueueUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class Polled(Protocol):
    """What a poll brings."""

    @property
    def tube(self) -> str: ...


Held = TypeVar("Held", bound=Polled)


class Polls(Generic[Held]):
    """The polls that run, and what they have brought. One thread uses it, beside theirs; `interrupt` is for any."""

    def __init__(self, receive: Callable[[str], list[Held]], give_back: Callable[[Held], None]) -> None:
        """`receive` waits at a tube's queue; `give_back` must not raise."""
        self._receive = receive
        self._give_back = give_back
        self._lock = threading.Lock()
        self._running: dict[str, threading.Thread] = {}
        self._arrived: deque[Held] = deque()
        self._failed: QueueError | None = None
        # what comes goes back: nobody waits for it
        self._closed = True
        # what ends `wait`: a byte that goes from the second to the first
        self._pair: tuple[socket.socket, socket.socket] | None = None
        self.interrupted = False

    def start(self, tubes: Sequence[str]) -> None:
        """Waits at these tubes, where it does not yet. What comes from now on is kept for `take`."""
        with self._lock:
            self._closed = False
            for tube in tubes:
                if tube not in self._running:
                    thread = threading.Thread(target=self._run, args=[tube], name=f"poll {tube}", daemon=True)
                    # its end waits for the lock
                    thread.start()
                    self._running[tube] = thread

    def runs(self, tube: str) -> bool:
        """Whether it waits at this tube."""
        return tube in self._running

    def take(self, tubes: Sequence[str]) -> Held | None:
        """What has come out of one of these tubes; what has come out of others goes back. Raises what a poll raised."""
        with self._lock:
            arrived, self._arrived = list(self._arrived), deque()
            failed, self._failed = self._failed, None
            wanted = [held for held in arrived if held.tube in tubes]
            # the others wait for the next call, or for `turn_away`
            self._arrived.extend(wanted[1:])
        for held in arrived:
            if held.tube not in tubes:
                self._give_back(held)
        if wanted:
            return wanted[0]
        if failed is not None:
            raise failed
        return None

    def wait(self, until: float) -> None:
        """Until a poll has ended, an interrupt, or this time (monotonic)."""
        if self._pair is None:
            self._pair = socket.socketpair()
            for end in self._pair:
                end.setblocking(False)
        if self.interrupted or self._arrived or self._failed:
            return
        select.select([self._pair[0]], [], [], max(0.0, until - time.monotonic()))
        with suppress(BlockingIOError):
            self._pair[0].recv(4096)

    def turn_away(self) -> None:
        """Nobody waits any more: what has come, and what comes, goes back."""
        with self._lock:
            self._closed, self._failed = True, None
            arrived, self._arrived = self._arrived, deque()
        for held in arrived:
            self._give_back(held)

    def interrupt(self) -> None:
        """Ends `wait`, for good. For a signal handler as well: it takes no lock."""
        self.interrupted = True
        self._wake()

    def finish(self, within: float) -> None:
        """Returns once the polls that run have ended, and what they brought has gone back."""
        self.turn_away()
        deadline = time.monotonic() + within
        for thread in list(self._running.values()):
            thread.join(max(0.0, deadline - time.monotonic()))

    def close(self) -> None:
        """Nobody waits. Polls that run end by themselves."""
        pair, self._pair = self._pair, None
        for end in pair or ():
            end.close()

    def forget(self) -> None:
        """In a forked child: its parent has the threads."""
        self._running.clear()
        self._arrived.clear()

    def _run(self, tube: str) -> None:
        found: list[Held] = []
        failed = None
        try:
            found = self._receive(tube)
        except QueueError as error:
            failed = error
        except Exception as error:
            # whatever it is, the tube is waited at again
            failed = QueueUnavailable(f"{type(error).__name__}: {error}")
        with self._lock:
            unwanted = self._closed
            if not unwanted:
                self._arrived.extend(found)
                self._failed = failed or self._failed
                del self._running[tube]
        if unwanted:
            # it runs until all has gone back: `finish` waits for that
            try:
                for held in found:
                    self._give_back(held)
            finally:
                with self._lock:
                    self._running.pop(tube, None)
        self._wake()

    def _wake(self) -> None:
        pair = self._pair
        if pair is not None:
            # a socket that was closed says so
            with suppress(OSError):
                pair[1].send(b".")
