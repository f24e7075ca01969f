"""A process beside the children that serves the pool's metrics. No work depends on it.

The pool's parent opens no sockets, so a process of its own answers Prometheus. The parent starts it again when it ends,
and at a reload.
"""

from __future__ import annotations

import math
import os
import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from setproctitle import setproctitle

from glassq.log import fields, logger
from glassq.worker.fork import fork
from glassq.worker.postmortem import how_it_ended

if TYPE_CHECKING:
    from collections.abc import Callable

    from glassq.values import Address

log = logger("glassq.worker")

# The least time between two starts, except by a reload, and between two tries at an address that is taken, in seconds.
AGAIN = 5.0
# The log says so often that the address is taken, in seconds.
REPEAT = 600.0
# A stop waits so long for it, in seconds. It has nothing to finish.
END = 1.0
# How soon it is gone after a parent that was killed, in seconds.
ORPHAN = 1.0


def run(serve: Callable[[], None], address: Address, parent: int) -> int:
    """What it runs: `serve` begins to answer at `address`, as soon as it can.

    Returns when `parent` has died; SIGTERM ends it before.
    """
    setproctitle("glassq-worker: metrics")
    # a stop is the parent's to tell, and until it does there is something to be watched
    for number in (signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    told = tried = -math.inf
    serving = False
    while os.getppid() == parent:
        now = time.monotonic()
        if not serving and now - tried >= AGAIN:
            tried, error = now, _attempt(serve)
            serving = error is None
            if serving:
                log.info("serving metrics %s", fields(address=address))
            elif now - told >= REPEAT:
                told = now
                todo = f"free the address or change [metrics] pool; it is tried again every {AGAIN:g} s"
                log.error("metrics are not served: %s %s", error, fields(address=address, todo=todo))
        time.sleep(ORPHAN)
    return 0


def _attempt(serve: Callable[[], None]) -> str | None:
    """Why it failed; None where it did not."""
    try:
        serve()
    except OSError as error:
        return error.strerror or str(error)
    return None


class Sidecar:
    """Starts it, and starts it again. For the pool's parent."""

    def __init__(self) -> None:
        self.pid = 0
        self._start_at = 0.0
        self._asked = False

    def tend(self, main: Callable[[], int] | None, now: float) -> None:
        """Called often: `main` shall run, where there is one; `now` is time.monotonic()."""
        if self.pid and (how := self._over()):
            if not self._asked:
                log.error("metrics process died %s", fields(pid=self.pid, how=how))
            self.pid, self._start_at, self._asked = 0, max(self._start_at, now), False
        if self.pid or main is None or now < self._start_at:
            return
        self._start_at = now + AGAIN
        try:
            self.pid = fork(main)
        except OSError as error:
            log.error("cannot fork %s", fields(error=error))

    def restart(self) -> None:
        """The one that runs ends, and the next one is what `tend` is given then."""
        self._start_at, self._asked = 0.0, True
        self._signal(signal.SIGTERM)

    def stop(self) -> None:
        """Ends it for good."""
        self._signal(signal.SIGTERM)
        over = time.monotonic() + END
        while self.pid and not self._over():
            if time.monotonic() > over:
                self._signal(signal.SIGKILL)
            time.sleep(0.01)
        self.pid = 0

    def _over(self) -> str:
        """How it ended; "" while it runs."""
        ended, status = os.waitpid(self.pid, os.WNOHANG)
        return how_it_ended(os.waitstatus_to_exitcode(status)) if ended else ""

    def _signal(self, number: int) -> None:
        if self.pid:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)
