"""Forks processes for the pool's parent, and for its templates."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
import sys
from typing import TYPE_CHECKING

from glassq.log import logger
from glassq.worker.signals import PARENT, Signals

if TYPE_CHECKING:
    from collections.abc import Callable

log = logger("glassq.worker")

#: Descriptors of this process that are closed in whatever it forks: a copy of a pipe's end keeps the pipe open.
OWN_DESCRIPTORS: set[int] = set()


def fork(main: Callable[[], int]) -> int:
    """Forks a process that runs `main` and exits with the code that it returns. Returns its pid; raises OSError.

    The process starts with the default handling of signals, except that it ignores SIGUSR2 and those of a terminal.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    # A signal that comes before the new process has its own handlers must wait: ours would swallow it.
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
        # else it could not be registered again
        faulthandler.unregister(signal.SIGUSR2)
        # Until `main` has handlers of its own. SIGHUP is for the parent, and a request for stacks must not kill. The
        # terminal stops a process in a group of its own that reads from it or writes to it.
        for number in (signal.SIGHUP, signal.SIGUSR2, signal.SIGTTIN, signal.SIGTTOU):
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, PARENT)
        while OWN_DESCRIPTORS:
            os.close(OWN_DESCRIPTORS.pop())
        code = main()
    except BaseException:
        log.exception("child failed")
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        # not sys.exit: that would run the parent's cleanup in the child
        os._exit(code)
