"""What becomes of a delivery that no route takes: it is dropped, unless newer settings may have a route for it.

Intake and pools reload one after the other, on one host or on several, in any order. So a child may meet a ping of a
source or an event that only settings on disk know, or only those of another host. It puts such a ping again, with a
growing delay and without an attempt of its budget, until a child of those settings takes it.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING

from glassq import backoff
from glassq.errors import Bury, Drop, Retry, SettingsError
from glassq.settings import TASK_SOURCE

if TYPE_CHECKING:
    from collections.abc import Callable

    from glassq.delivery import Delivery
    from glassq.errors import Verdict
    from glassq.settings import Route, Settings

# The delay before a delivery is tried again, from the first to the last, in seconds.
WAIT, WAIT_CAP = 1.0, 30.0
# A delivery of a source that no settings know is buried at this age, in seconds: hosts get new settings in less time.
MAX_ROLLOUT = 3600.0


class Unrouted:
    """Decides about deliveries that no route of `settings` takes. One child has one, for all its lanes."""

    def __init__(self, settings: Settings, read: Callable[[str], tuple[Route, ...]]) -> None:
        """`read` returns the routes in a settings file, or raises SettingsError."""
        # a handler may change the directory
        self._file = Path(settings.file).absolute()
        self._known = {TASK_SOURCE, *settings.sources, *(route.source for route in settings.routes)}
        self._read = read
        #: what the routes on disk were read from; None where they cannot be read
        self._seen: object = None
        self._routes: tuple[Route, ...] | None = None
        self._reading = threading.Lock()

    def verdict(self, delivery: Delivery) -> Verdict:
        """What the executor raises for this delivery."""
        if why := self._why_wait(delivery):
            return Retry(why, delay=backoff.ceiling(delivery.waits, WAIT, WAIT_CAP), counts=False)
        if delivery.source in self._known:
            return Drop("no route")
        return Bury(f"no route, and no [sources.{delivery.source}] in the settings of this pool")

    def _why_wait(self, delivery: Delivery) -> str:
        newer = self._newer()
        if newer is None:
            return "no route in effect, and the settings on disk cannot be read"
        if any(route.wants(delivery.source, delivery.labels) for route in newer):
            return "no route in effect, but one in the settings on disk: reload glassq-worker"
        if delivery.source not in self._known and delivery.age() < MAX_ROLLOUT:
            return f"no route, and no [sources.{delivery.source}] in the settings of this pool"
        return ""

    def _newer(self) -> tuple[Route, ...] | None:
        """The routes of the settings on disk, which are read again only after a change."""
        with self._reading:
            seen = _stamp(self._file)
            if seen is None or seen != self._seen:
                try:
                    self._routes = self._read(str(self._file))
                except SettingsError:
                    self._routes = None
                self._seen = seen
            return self._routes


def _stamp(file: Path) -> object:
    """Changes with the file; None if it cannot be read."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
