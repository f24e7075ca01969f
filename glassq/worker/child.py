"""The frame of one child's loop: its signals, its keeper, and its end by stop or recycling."""

from __future__ import annotations

import faulthandler
import gc
import os
import random
import resource
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from setproctitle import setproctitle

from glassq.log import fields, logger
from glassq.worker.leftovers import title_of
from glassq.worker.scoreboard import State

if TYPE_CHECKING:
    from glassq.ledger import Ledger
    from glassq.queues import Receiver
    from glassq.worker.consumer import Consumer
    from glassq.worker.lease import Lease
    from glassq.worker.scoreboard import Slot

log = logger("glassq.worker")

# Children start together. This share of jitter prevents that all are recycled together.
RECYCLE_JITTER = 0.1
# Memory and signal handlers are checked between two jobs, at most once in this time, in seconds: with short handlers, a
# check at each job would cost more than the handlers.
CHECK_INTERVAL = 0.1
_PAGE = resource.getpagesize()


class Stop:
    """Whether this process shall stop, and how. The signal handlers only set flags."""

    def __init__(self) -> None:
        self.draining = False
        self.cold = False
        self.listen()

    def listen(self) -> None:
        """Installs our signal handlers again, because a delivery's handler may have replaced them."""
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        signal.signal(signal.SIGTERM, self._drain)
        signal.signal(signal.SIGINT, self._drain)
        signal.signal(signal.SIGQUIT, self._stop_cold)
        # only the parent answers these
        for number in (signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU):
            signal.signal(number, signal.SIG_IGN)

    def drain(self) -> None:
        """Asks for a stop after the current attempt."""
        self.draining = True

    def _drain(self, _signal: int, _frame: object) -> None:
        self.draining = True

    def _stop_cold(self, _signal: int, _frame: object) -> None:
        self.draining = self.cold = True


def run(
    consumer: Consumer, receiver: Receiver, lease: Lease, ledger: Ledger, slot: Slot, *, max_jobs: int, max_rss: int
) -> int:
    """Works until a stop, `max_jobs` jobs, or more than `max_rss` bytes of memory; returns exit code 0."""
    stop = Stop()
    setproctitle(title_of(slot.index))
    if sys.__stderr__ is not None:
        faulthandler.register(signal.SIGUSR2, file=sys.__stderr__, all_threads=True)
    # The garbage collector leaves objects from before the fork alone, so that their pages stay shared.
    gc.freeze()
    limit = max_jobs + random.randrange(int(max_jobs * RECYCLE_JITTER) + 1)  # noqa: S311 - jitter, no secret

    checked, too_big = 0.0, False

    def stopping() -> bool:
        nonlocal checked, too_big
        if stop.draining or too_big or consumer.worked >= limit:
            return True
        if time.monotonic() - checked < CHECK_INTERVAL:
            return False
        checked = time.monotonic()
        stop.listen()
        # At least one job: a limit below the size of the handlers' modules must not cause a storm of forks.
        too_big = consumer.worked > 0 and resident() > max_rss
        return stop.draining or too_big

    _watch_forks(receiver)
    slot.state(State.CONNECTING)
    lease.start_keeper(cold=lambda: stop.cold, orphaned=stop.drain)
    try:
        consumer.run(stopping)
    finally:
        slot.state(State.STOPPING)
        lease.stop_keeper()
        receiver.close()
        ledger.close()
    why = "stopped" if stop.draining else "recycled"
    log.debug("child ends %s", fields(why=why, worked=consumer.worked, rss=resident()))
    return 0


def _watch_forks(receiver: Receiver) -> None:
    """Has a process that a handler forks drop our connection and signal handlers: it is not a child of the pool."""
    ours = {signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGALRM}
    masks: list[set[int]] = []

    def before() -> None:
        # A signal that comes before the new process has its own handlers must wait: ours would swallow it.
        masks.append({int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, ours)})

    def after() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, masks.pop())

    def disown() -> None:
        receiver.close_inherited()
        for number in ours:
            signal.signal(number, signal.SIG_DFL)
        faulthandler.unregister(signal.SIGUSR2)
        after()

    os.register_at_fork(before=before, after_in_parent=after, after_in_child=disown)


def resident() -> int:
    """The memory of this process now, in bytes; without /proc, its peak."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if os.uname().sysname == "Darwin" else peak * 1024
