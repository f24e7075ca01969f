"""A pool that has nothing to work yet: it waits for a reload that names a handler.

So a machine can be started before its handlers are there. Pings are taken and wait in the queue, and systemd does not
start the pool again and again.
"""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

from glassq.errors import SettingsError
from glassq.log import fields, logger
from glassq.worker.signals import Signals

if TYPE_CHECKING:
    from collections.abc import Callable

    from glassq.systemd import Notifier

log = logger("glassq.worker")

# How often it looks whether systemd is to hear that it lives, in seconds.
TICK = 0.5


def wait_for_work(nothing_to_work: Callable[[], str], notify: Notifier, watchdog: float | None = None) -> bool:
    """Returns once there is something to work; False where the process is asked to stop before.

    `nothing_to_work()` reads the settings and says why there is nothing ("": there is); it is asked now, where it may
    raise SettingsError, and at each HUP. `watchdog` is systemd's WatchdogSec, in seconds.
    """
    why = nothing_to_work()
    if not why:
        return True
    with Signals() as signals:
        _tell(why, notify)
        pinged = time.monotonic()
        while why:
            for number in signals.wait(TICK):
                if number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
                    notify(STOPPING=1, STATUS="stopping")
                    return False
                if number == signal.SIGHUP:
                    why = _again(nothing_to_work, notify, why)
            if watchdog and time.monotonic() - pinged > watchdog / 2:
                pinged = time.monotonic()
                notify(WATCHDOG=1)
    return True


def _again(nothing_to_work: Callable[[], str], notify: Notifier, before: str) -> str:
    try:
        why = nothing_to_work()
    except SettingsError as error:
        log.error("not reloaded %s", fields(why=error))
        return before
    if why:
        _tell(why, notify)
    return why


def _tell(why: str, notify: Notifier) -> None:
    log.warning("no handler configured: pings wait in the queue. Add [[routes]] and reload %s", fields(why=why))
    notify(READY=1, STATUS=f"no handler configured, pings wait in the queue: {why}")
