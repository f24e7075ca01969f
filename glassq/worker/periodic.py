"""A process that the pool's parent forks now and then, and that ends by itself. No work depends on it."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from typing import TYPE_CHECKING

from glassq.log import fields, logger
from glassq.worker.fork import fork
from glassq.worker.postmortem import how_it_ended

if TYPE_CHECKING:
    from collections.abc import Callable

log = logger("glassq.worker")

# The time from one start to the next, in seconds.
EVERY = 60.0


class PeriodicProcess:
    """For the pool's parent. `pid` is 0 while the process does not run."""

    def __init__(self) -> None:
        self.pid = 0
        self._start_at = 0.0

    def tend(self, find: Callable[[], Callable[[], int] | None] | None, now: float) -> None:
        """Runs what `find` returns, if anything, in the process, when it is due. Call it often.

        `now` is time.monotonic().
        """
        if self.pid and (how := self._end()):
            self.pid = 0
            if how != how_it_ended(0):
                log.error("large bodies are not swept: the process failed %s", fields(how=how))
        if self.pid or find is None or now < self._start_at:
            return
        self._start_at = now + EVERY
        if (main := find()) is None:
            return
        try:
            self.pid = fork(main)
        except OSError as error:
            log.error("cannot fork %s", fields(error=error))

    def stop(self) -> None:
        """Ends the process for good; it may be interrupted anywhere."""
        if self.pid:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self.pid = 0

    def _end(self) -> str:
        """How the process ended; "" while it runs."""
        ended, status = os.waitpid(self.pid, os.WNOHANG)
        return how_it_ended(os.waitstatus_to_exitcode(status)) if ended else ""
