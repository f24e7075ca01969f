"""What a consumer has put anew and not yet proven: the old jobs stay reserved until their next forms are on disk.

A proof waits for a sync of the disk. A consumer whose work fails goes on with other jobs meanwhile, and one proof
serves all that it has put by then. Nobody else gets an old job before its next form is proven, or withdrawn.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, NamedTuple

from glassq.queues.base import MAX_UNPROVEN_MOVES

if TYPE_CHECKING:
    from collections.abc import Callable

    from glassq.errors import QueueError
    from glassq.queues.base import Reservation
    from glassq.queues.beanstalk.prover import PendingProof, Prover

# What is left of its time may be less than reading an answer takes that is here already, in seconds.
_READ = 0.05
# So many wait at most until their proof is asked for: while it is under way, as many more may come.
_ENOUGH = MAX_UNPROVEN_MOVES // 2


class HandOver(NamedTuple):
    """A job whose next form has been put as job `following`. `failed` is told if it cannot be proven.

    The job was reserved on the connection with the number `connection`, and the next form put on the same one;
    `server` is the `id` of the server there.

    The proof must come until `until`, on time.monotonic(): the job stays reserved no longer. It is asked for at
    `ask_at`, so that more share it.
    """

    reservation: Reservation
    connection: int
    following: int
    server: str
    failed: Callable[[QueueError], None]
    until: float
    ask_at: float = 0.0


class HandOvers:
    """The hand-overs of one receiver, oldest first."""

    def __init__(self, prover: Prover) -> None:
        self._prover = prover
        self._waiting: list[HandOver] = []
        # what the question that is under way is about: the first `_asked` of them
        self._question: PendingProof | None = None
        self._asked = 0
        # when the next question is due
        self._ask_at = math.inf
        self._deadline = 0.0

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, made: HandOver) -> None:
        """Its next form has been put."""
        self._waiting.append(made)
        self._ask_at = min(self._ask_at, made.ask_at)
        self._ask_if_due()

    def proven(self, *, wait: bool) -> list[HandOver]:
        """Those that are proven by now; they are no longer waiting. With `wait` there is at least one.

        All must be of one connection (`drop_others`). Raises NotDurable or NoProof: then nothing is proven any more
        that waits, and `abandon` returns it.
        """
        self._ask_if_due(now=wait)
        question = self._question
        if question is None or not (wait or question.here() or time.monotonic() > self._deadline):
            return []
        question.prove(self._waiting[0].server, deadline=max(self._deadline, time.monotonic() + _READ))
        done, self._waiting = self._waiting[: self._asked], self._waiting[self._asked :]
        self._question = None
        self._ask_if_due()
        return done

    def abandon(self) -> list[HandOver]:
        """All that still waits; nothing waits any more."""
        left, self._waiting, self._ask_at = self._waiting, [], math.inf
        self._drop_question()
        return left

    def drop_others(self, connection: int) -> list[HandOver]:
        """Those that were not made on the connection with this number; they are no longer waiting."""
        left = [each for each in self._waiting if each.connection != connection]
        if left:
            self._waiting = [each for each in self._waiting if each.connection == connection]
            self._ask_at = min((each.ask_at for each in self._waiting), default=math.inf)
            # it was about them, and may have been asked before the others were put
            self._drop_question()
        return left

    def _drop_question(self) -> None:
        question, self._question = self._question, None
        if question is not None:
            question.close()

    def _ask_if_due(self, *, now: bool = False) -> None:
        if self._question is not None or not self._waiting:
            return
        if not (now or len(self._waiting) >= _ENOUGH or time.monotonic() >= self._ask_at):
            return
        self._ask_at = math.inf
        self._deadline = self._waiting[0].until
        self._asked = len(self._waiting)
        self._question = self._prover.ask(deadline=self._deadline)
