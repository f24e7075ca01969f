"""How a receiver waits that has found nothing: until it is told of a job, until one is due, or until it looks again."""

from __future__ import annotations

import os
import random
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from glassq.descriptors import Descriptor, own
from glassq.queues.postgres import statements
from glassq.queues.postgres.waiters import waiting_name

if TYPE_CHECKING:
    from glassq.database.postgres import PostgresSession

# A receiver that waits looks this often, in seconds, for jobs that no NOTIFY announced: every LOOK seconds, and after
# LOOKS looks in vain every LOOK_LATER.
LOOK, LOOKS, LOOK_LATER = 1.0, 30, 3.0
# Between two looks a receiver pauses for this many seconds times the number of receivers that wait. So all together
# look a few hundred times a second, instead of each of them at each put.
PACE = 0.002


class Waiting:
    """That of one receiver, on its session. Only `interrupt` may be called from elsewhere."""

    def __init__(self, session: PostgresSession) -> None:
        self._session = session
        #: whether no `reserve` waits any more
        self.interrupted = False
        # The tubes of which it hears. What came before it listened is there at its next look.
        self._listening: tuple[str, ...] = ()
        # when to look though nothing is heard, when to look if something is, and how often nothing came
        self._look_at = self._told_at = 0.0
        self._looks = 0
        # the pipe that wakes it
        self._wake: tuple[int, int] | None = None
        self._watched: list[Descriptor] = []

    def begin(self, tubes: tuple[str, ...], wait: float) -> None:
        """A `reserve` begins. It looks at once, unless it goes on with the wait of the one before."""
        if wait <= 0 or self.interrupted or self._listening != tubes:
            self._look_at = 0.0

    @property
    def is_over(self) -> bool:
        """Whether it is time to look."""
        return time.monotonic() >= self._look_at

    def wait(self, tubes: tuple[str, ...], until: float) -> None:
        """Returns when it is time to look or to end; perhaps earlier. The first time it only begins to listen."""
        if self._wake is None:
            self._wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
            self._watched = [Descriptor(end) for end in self._wake]
            for end in self._watched:
                own(end, "a connection to the queue", shared=False)
        if self._listening != tubes:
            self._listen(tubes)
        elif not self.interrupted:
            told = self._session.listen(min(until, self._look_at), self._wake[0])
            if not set(told).isdisjoint(tubes):
                self._looks = 0
                self._look_at = min(self._look_at, self._told_at)

    def found_nothing(self, tubes: tuple[str, ...]) -> None:
        """Plans when to look again, if nobody tells anything, and if somebody does."""
        if self._listening != tubes:
            return
        self._looks += 1
        [(due, waiting)] = self._session.rows(statements.IDLE, [list(tubes)])
        longest = (LOOK if self._looks < LOOKS else LOOK_LATER) * about()
        now = time.monotonic()
        self._look_at = now + max(PACE, longest if due is None else min(longest, due))
        self._told_at = now + PACE * waiting * about()

    def found(self) -> None:
        """It hears nothing any more."""
        self._looks = 0
        if self._listening:
            self._listening = ()
            self._session.run(f"UNLISTEN *; SET application_name = '{self._session.name}'")

    def interrupt(self) -> None:
        """Ends the wait, and all later ones."""
        self.interrupted = True
        if self._wake is not None:
            with suppress(OSError):
                os.write(self._wake[1], b".")

    def forget(self) -> None:
        """The connection is gone, and with it what it listened to."""
        self._listening = ()
        self._look_at = 0.0

    def close(self) -> None:
        """The session has ended."""
        self.forget()
        wake, self._wake, self._watched = self._wake, None, []
        for descriptor in wake or ():
            os.close(descriptor)

    def _listen(self, tubes: tuple[str, ...]) -> None:
        """Its session's name says of which tubes it hears: an operator sees who waits."""
        self._session.run(f"LISTEN {statements.CHANNEL}; SET application_name = '{waiting_name(tubes)}'")
        self._listening, self._look_at = tubes, 0.0


def about() -> float:
    """About 1: what many do at once at the start they do not do at once later."""
    return random.uniform(0.7, 1.3)  # noqa: S311
