"""The doctor's checks, made by one thread: what is urgent each half minute, all of them when somebody asks."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from glassq.errors import Stopped
from glassq.log import logger
from glassq.operations.checks.base import Check
from glassq.operations.checks.examine import examine, glance
from glassq.operations.stopping import Stoppable
from glassq.operations.watcher import METERED, Attention

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime

    from glassq.operations import Operations

log = logger("glassq.operations")

# Between two glances, and how old an examination may be that is shown, in seconds. Where looks at the queue are metered
# and nobody watches, glances are as rare as these looks.
EVERY, FRESH = 30.0, 60.0
# Glances take at most this share of a processor's time in the long run, and examinations of all time: they begin
# processes.
SHARE, WHOLE_SHARE = 0.1, 0.04


@dataclass(frozen=True, slots=True)
class Examination:
    """What the checks came to, and when they were made (None: never yet)."""

    checks: tuple[Check, ...] = ()
    at: datetime | None = None

    @property
    def wrong(self) -> tuple[Check, ...]:
        """What is wrong."""
        return tuple(check for check in self.checks if check.ok is False)


class Doctor:
    """Looks after the installation. `start` begins its thread, `close` ends it."""

    def __init__(self, operations: Operations) -> None:
        self._operations = operations
        self._attention = Attention()
        self._metered = operations.metered
        self._urgent = Examination()
        self._whole = Examination()
        # how old the whole may be
        self._fresh_for = FRESH
        self._changed = threading.Condition()
        # whether somebody wants all checks, or those that are urgent, at once
        self._wanted = self._hurry = False
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="doctor", daemon=True)

    def start(self) -> None:
        """Begins to look."""
        self._thread.start()

    def close(self) -> None:
        """Ends the thread; a check that is slow is not waited for."""
        self._stopping.set()
        with self._changed:
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join(2.0)

    @property
    def has_ended(self) -> bool:
        """Whether its thread has ended though nobody closed it: nobody looks any more."""
        return self._thread.ident is not None and not self._thread.is_alive() and not self._stopping.is_set()

    def view(self) -> Examination:
        """What is urgent. Whoever asks, watches."""
        if self._attention.pay():
            with self._changed:
                self._changed.notify_all()
        return self._urgent

    def latest(self, within: float) -> Examination:
        """All checks as they were made last; where they are not fresh, new ones begin.

        Where none was made yet, that is waited for, for so many seconds at most.
        """
        with self._changed:
            if self._whole.at is not None:
                self._wanted = self._wanted or not self._fresh()
                self._changed.notify_all()
                return self._whole
        return self.whole(within)

    def look(self) -> None:
        """What is urgent may be another thing by now: it is looked for at once."""
        with self._changed:
            self._hurry = True
            self._changed.notify_all()

    def whole(self, within: float) -> Examination:
        """All checks. Where they are not fresh, they are made anew: that is waited for so many seconds at most."""
        deadline = time.monotonic() + within
        with self._changed:
            while not self._fresh() and (left := deadline - time.monotonic()) > 0 and not self._stopping.is_set():
                self._wanted = True
                self._changed.notify_all()
                self._changed.wait(left)
        return self._whole

    def _examine(self) -> None:
        began = time.monotonic()
        self._whole = self._examined(examine)
        self._fresh_for = max(FRESH, (time.monotonic() - began) / WHOLE_SHARE)

    def _fresh(self) -> bool:
        at = self._whole.at
        # a clock that was set back says nothing
        return at is not None and abs((self._operations.clock() - at).total_seconds()) < self._fresh_for

    def _run(self) -> None:
        due = 0.0
        while not self._stopping.is_set():
            began = time.thread_time()
            if self._wanted:
                self._wanted = False
                self._examine()
            if self._is_due(due):
                self._hurry = False
                self._urgent = self._examined(glance)
                due = time.monotonic() + max(EVERY, (time.thread_time() - began) / SHARE)
            with self._changed:
                self._changed.notify_all()
                if not self._wanted and not self._stopping.is_set() and not self._is_due(due):
                    self._changed.wait(max(0.0, due + self._rest() - time.monotonic()))

    def _is_due(self, due: float) -> bool:
        return self._hurry or time.monotonic() >= due + self._rest()

    def _rest(self) -> float:
        """For so many seconds more nobody need look."""
        rare = self._metered and not self._attention.is_paid
        return METERED[1] - EVERY if rare else 0.0

    def _examined(self, look: Callable[[Operations, Stoppable], Iterable[Check]]) -> Examination:
        try:
            checks = tuple(look(self._operations, Stoppable(self._stopping)))
        except Stopped:
            checks = ()
        except Exception as error:
            log.exception("the checks failed")
            checks = (Check("doctor", False, f"cannot look: {type(error).__name__}", "see the log of the console"),)
        return Examination(checks, self._operations.clock())
