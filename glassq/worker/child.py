"""The frame of one child's loop: its signals, its keeper, and its end by stop or recycling."""

from __future__ import annotations

import faulthandler
import gc
import os
import random
import resource
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from setproctitle import setproctitle

from glassq import descriptors
from glassq.log import fields, logger
from glassq.worker import processes
from glassq.worker.layout import State
from glassq.worker.leftovers import title_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from glassq.ledger import Ledger
    from glassq.queues import Receiver
    from glassq.worker.consumer import Consumer
    from glassq.worker.lease import Lease
    from glassq.worker.slots import Slot

log = logger("glassq.worker")

# The exit code of a child that cannot trust its descriptors any more; its last words (`Slot.problem`) say which.
EX_ROBBED = 80
# Children start together. This share of jitter prevents that all are recycled together.
RECYCLE_JITTER = 0.1
# Memory and signal handlers are checked between two jobs, at most once in this time, in seconds: with short handlers, a
# check at each job would cost more than the handlers.
CHECK_INTERVAL = 0.1
_PAGE = resource.getpagesize()


class Stop:
    """Whether this process shall stop, and how. The signal handlers set flags, and end the wait for a job."""

    def __init__(self, interrupt: Callable[[], None]) -> None:
        """`interrupt` ends the wait for a job."""
        self.draining = False
        self.cold = False
        self._interrupt = interrupt
        self._thread = threading.get_ident()
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
        """Asks for a stop after the current attempt. For another thread."""
        if not self.draining:
            self.draining = True
            signal.pthread_kill(self._thread, signal.SIGTERM)

    def _drain(self, _signal: int, _frame: object) -> None:
        self.draining = True
        self._interrupt()

    def _stop_cold(self, _signal: int, _frame: object) -> None:
        self.draining = self.cold = True
        self._interrupt()


def run(
    consumer: Consumer, receiver: Receiver, lease: Lease, ledger: Ledger, slot: Slot, *, max_jobs: int, max_rss: int
) -> int:
    """Works until a stop, `max_jobs` jobs, or more than `max_rss` bytes of memory; returns exit code 0."""
    stop = Stop(receiver.interrupt)
    begin(slot, receiver.close_inherited)
    limit = job_limit(max_jobs)
    checked, too_big, worked = 0.0, False, 0

    def stopping() -> bool:
        nonlocal checked, too_big, worked
        if stop.draining or too_big or consumer.worked >= limit:
            return True
        if time.monotonic() - checked < CHECK_INTERVAL:
            return False
        checked = time.monotonic()
        if worked != consumer.worked:
            # nothing else than a handler replaces signal handlers
            worked = consumer.worked
            stop.listen()
        # At least one job: a limit below the size of the handlers' modules must not cause a storm of forks.
        too_big = worked > 0 and resident() > max_rss
        return stop.draining or too_big

    slot.state(State.CONNECTING)
    lease.start_keeper(cold=lambda: stop.cold, orphaned=stop.drain)
    try:
        consumer.run(stopping)
    except BaseException:
        descriptors.check()
        raise
    finally:
        slot.state(State.STOPPING)
        lease.stop_keeper()
        # it waits for nothing any more, also where no signal has told it
        receiver.interrupt()
        receiver.close()
        ledger.close()
    why = "stopped" if stop.draining else "recycled"
    log.debug("child ends %s", fields(why=why, worked=consumer.worked, rss=resident()))
    return 0


def begin(slot: Slot, close_inherited: Callable[[], None]) -> None:
    """What every child does first. `close_inherited` closes our connections in a process that a handler forks."""
    setproctitle(title_of(slot.index))
    descriptors.tell(lambda lost: _end_robbed(slot, lost))
    # its threads look as well, but not often
    processes.end_with_parent()
    if sys.__stderr__ is not None:
        faulthandler.register(signal.SIGUSR2, file=sys.__stderr__, all_threads=True)
    # The garbage collector leaves objects from before the fork alone, so that their pages stay shared.
    gc.freeze()
    _watch_forks(close_inherited)


def _end_robbed(slot: Slot, lost: str) -> None:
    """Ends this process before it writes into what is not its own. The parent records its attempts as lost."""
    slot.problem(f"a handler closed or replaced descriptors that are not its own: {lost}")
    os._exit(EX_ROBBED)


def job_limit(max_jobs: int) -> int:
    """After how many jobs a child is replaced: `max_jobs`, and some jitter."""
    return max_jobs + random.randrange(int(max_jobs * RECYCLE_JITTER) + 1)  # noqa: S311 - jitter, no secret


def _watch_forks(close_inherited: Callable[[], None]) -> None:
    """Has a process that a handler forks drop our connection and signal handlers: it is not a child of the pool."""
    ours = {signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGALRM}
    # of each thread: in lanes, several may fork at once
    masks = threading.local()

    def before() -> None:
        # A signal that comes before the new process has its own handlers must wait: ours would swallow it.
        masks.before = {int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, ours)}

    def after() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, masks.before)

    def disown() -> None:
        descriptors.tell(None)
        close_inherited()
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
