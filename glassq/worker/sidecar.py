"""Processes beside the children: one serves the pool's metrics to Prometheus, one puts what is due by the clock, one
sends the messages of [notify].

They are processes of their own because the pool's parent opens no sockets. The parent restarts one when it ends, and at
a reload.
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

# The minimum time between two starts (a reload does not wait), and between two tries at an address in use; in seconds.
RETRY_INTERVAL = 5.0
# An address in use is logged at most once in this time, in seconds.
LOG_INTERVAL = 600.0
# How long a stop waits until it kills the process, in seconds. The process has nothing to finish.
STOP_TIMEOUT = 1.0
# How often the process checks whether its parent still lives, in seconds.
PARENT_INTERVAL = 1.0


def run(serve: Callable[[], None], address: Address, parent: int) -> int:
    """The main function of the process that serves metrics.

    Calls `serve`, which answers at `address`, until that succeeds. Returns as `repeat` does.
    """
    begin("metrics")
    logged = -math.inf

    def attempt() -> float:
        nonlocal logged
        error, now = _attempt(serve), time.monotonic()
        if error is None:
            log.info("serving metrics %s", fields(address=address))
            return math.inf
        if now - logged >= LOG_INTERVAL:
            logged = now
            todo = f"free the address or change [metrics] pool; it is tried again every {RETRY_INTERVAL:g} s"
            log.error("metrics are not served: %s %s", error, fields(address=address, todo=todo))
        return RETRY_INTERVAL

    return repeat(attempt, parent)


def begin(name: str) -> None:
    """Makes this process one that is called so, and that only its parent stops, once the last child has ended."""
    setproctitle(f"glassq-worker: {name}")
    for number in (signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)


def repeat(act: Callable[[], float], parent: int) -> int:
    """The loop of such a process: calls `act`, and again after as many seconds as it returns.

    Returns 0 when `parent` has died; SIGTERM ends the process before, wherever it is.
    """
    due = 0.0
    while os.getppid() == parent:
        if time.monotonic() >= due:
            due = time.monotonic() + act()
        time.sleep(min(PARENT_INTERVAL, max(0.0, due - time.monotonic())))
    return 0


def _attempt(serve: Callable[[], None]) -> str | None:
    """Calls `serve`; returns why it failed, or None."""
    try:
        serve()
    except OSError as error:
        return error.strerror or str(error)
    return None


class Sidecar:
    """Starts and restarts one process, for the pool's parent. `pid` is 0 while it does not run."""

    def __init__(self, what: str) -> None:
        """`what` is its name in log lines."""
        self._what = what
        self.pid = 0
        self._start_at = 0.0
        self._stopping = False

    def tend(self, main: Callable[[], int] | None, now: float) -> None:
        """Runs `main`, if there is one, in the process; call it often. `now` is time.monotonic()."""
        if self.pid and (how := self._end()):
            if not self._stopping:
                log.error("a process beside the children died %s", fields(what=self._what, pid=self.pid, how=how))
            self.pid, self._start_at, self._stopping = 0, max(self._start_at, now), False
        if self.pid or main is None or now < self._start_at:
            return
        self._start_at = now + RETRY_INTERVAL
        try:
            self.pid = fork(main)
        except OSError as error:
            log.error("cannot fork %s", fields(error=error))

    def restart(self) -> None:
        """Ends the process. `tend` starts the next one at once."""
        self._start_at, self._stopping = 0.0, True
        self._signal(signal.SIGTERM)

    def stop(self) -> None:
        """Ends the process for good."""
        self._signal(signal.SIGTERM)
        deadline = time.monotonic() + STOP_TIMEOUT
        while self.pid and not self._end():
            if time.monotonic() > deadline:
                self._signal(signal.SIGKILL)
            time.sleep(0.01)
        self.pid = 0

    def _end(self) -> str:
        """How the process ended; "" while it runs."""
        ended, status = os.waitpid(self.pid, os.WNOHANG)
        return how_it_ended(os.waitstatus_to_exitcode(status)) if ended else ""

    def _signal(self, number: int) -> None:
        if self.pid:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)
