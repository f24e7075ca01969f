"""What one child of the pool does around its loop: signals, its keeper, and when it has worked enough."""

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

# Children start together; with this share of jitter they are not all recycled together.
RECYCLE_JITTER = 0.1
# How often memory and signal handlers are looked at between two jobs, in seconds: thousands of times would cost more
# than short handlers do.
LOOK_EVERY = 0.1
_PAGE = resource.getpagesize()


class Stop:
    """Whether this process shall stop, and how. Signal handlers set a flag and do nothing else."""

    def __init__(self) -> None:
        self.draining = False
        self.cold = False
        self.listen()

    def listen(self) -> None:
        """Takes the signals again, whatever a handler did to how this process takes them."""
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        signal.signal(signal.SIGTERM, self._drain)
        signal.signal(signal.SIGINT, self._drain)
        signal.signal(signal.SIGQUIT, self._stop_cold)
        # the parent alone answers these
        for number in (signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU):
            signal.signal(number, signal.SIG_IGN)

    def drain(self) -> None:
        """Finish the attempt that runs, then stop."""
        self.draining = True

    def _drain(self, _signal: int, _frame: object) -> None:
        self.draining = True

    def _stop_cold(self, _signal: int, _frame: object) -> None:
        self.draining = self.cold = True


def run(
    consumer: Consumer, receiver: Receiver, lease: Lease, ledger: Ledger, slot: Slot, *, max_jobs: int, max_rss: int
) -> int:
    """Works until stopped, or until `max_jobs` are worked or memory is above `max_rss` bytes; returns exit code 0."""
    stop = Stop()
    setproctitle(title_of(slot.index))
    if sys.__stderr__ is not None:
        faulthandler.register(signal.SIGUSR2, file=sys.__stderr__, all_threads=True)
    # what the parent loaded stays as it is: shared pages are not touched by the collector
    gc.freeze()
    limit = max_jobs + random.randrange(int(max_jobs * RECYCLE_JITTER) + 1)  # noqa: S311 - jitter, no secret

    looked = 0.0

    def stopping() -> bool:
        nonlocal looked
        if stop.draining or consumer.worked >= limit:
            return True
        if time.monotonic() - looked < LOOK_EVERY:
            return False
        looked = time.monotonic()
        stop.listen()
        # one job at the least: a limit below what the handlers' modules take must not end in a storm of forks
        return stop.draining or (consumer.worked > 0 and resident() > max_rss)

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
    """A process that a handler forks is none of the pool's children: it has neither our connection nor our signals."""
    ours = {signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGALRM}
    masks: list[set[int]] = []

    def before() -> None:
        # one that comes before the new process has its own handlers must wait: ours would swallow it
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
    """Bytes of memory this process holds now; at its peak where the system does not tell (no /proc)."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if os.uname().sysname == "Darwin" else peak * 1024
