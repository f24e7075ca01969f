"""A pool without routes: it waits for a reload that adds one.

So a machine can be started before its handlers are installed. The intake accepts pings, which wait in the queue, and
systemd does not restart the pool again and again.
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

# How often it checks whether a watchdog message is due, in seconds.
TICK = 0.5


def wait_for_work(nothing_to_work: Callable[[], str], notify: Notifier, watchdog: float | None = None) -> bool:
    """Waits until there is something to work; False if the process is asked to stop before.

    `nothing_to_work()` reads the settings and returns why there is nothing to work ("" if there is something). It is
    called now, and again at each HUP. Raises SettingsError if the first call does. `watchdog` is systemd's WatchdogSec,
    in seconds.
    """
    why = nothing_to_work()
    if not why:
        return True
    with Signals() as signals:
        _announce(why, notify)
        pinged = time.monotonic()
        while why:
            for number in signals.wait(TICK):
                if number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
                    notify(STOPPING=1, STATUS="stopping")
                    return False
                if number == signal.SIGHUP:
                    why = _reread(nothing_to_work, notify, why)
            if watchdog and time.monotonic() - pinged > watchdog / 2:
                pinged = time.monotonic()
                notify(WATCHDOG=1)
    return True


def _reread(nothing_to_work: Callable[[], str], notify: Notifier, before: str) -> str:
    try:
        why = nothing_to_work()
    except SettingsError as error:
        log.error("not reloaded %s", fields(why=error))
        return before
    if why:
        _announce(why, notify)
    return why


def _announce(why: str, notify: Notifier) -> None:
    log.warning("no handler configured: pings wait in the queue. Add [[routes]] and reload %s", fields(why=why))
    notify(READY=1, STATUS=f"no handler configured, pings wait in the queue: {why}")
