"""How the pool's parent makes processes."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from typing import TYPE_CHECKING

from glassq.log import logger
from glassq.worker.signals import PARENT, Signals

if TYPE_CHECKING:
    from collections.abc import Callable

log = logger("glassq.worker")


def fork(main: Callable[[], int]) -> int:
    """A process that runs `main` and ends with the exit code it returns; its pid. Raises OSError.

    It begins with the default handling of signals, but for those of a terminal and SIGUSR2, which it ignores until it
    is up.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    # A signal between the fork and the new process's own handlers must wait: ours would swallow it.
    signal.pthread_sigmask(signal.SIG_BLOCK, PARENT)
    try:
        pid = os.fork()
    except OSError:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, PARENT)
        raise
    if pid:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, PARENT)
        return pid
    code = 1
    try:
        Signals.restore()
        # Until it is up: a hang-up of the terminal is the parent's, and there are no stacks worth a life. In a process
        # group of its own it would be stopped when it writes to the terminal, or reads from it.
        for number in (signal.SIGHUP, signal.SIGUSR2, signal.SIGTTIN, signal.SIGTTOU):
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, PARENT)
        code = main()
    except BaseException:
        log.exception("child failed")
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        # not sys.exit: the parent's own cleanup is none of the child's business
        os._exit(code)
