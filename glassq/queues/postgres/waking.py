"""Tells waiting receivers of new jobs, on a connection of its own.

NOTIFY in the transaction of a put would make commits go one after another, because they are told in the order of their
commits. So it comes after the commit, and many puts share one. What it does not tell, the receivers' own look finds.
"""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from glassq.errors import QueueError
from glassq.queues.postgres.statements import CHANNEL

if TYPE_CHECKING:
    from collections.abc import Iterable

    from glassq.database.postgres import PostgresSession

# At most so often, in seconds.
EVERY = 0.01
# The thread ends after so many seconds in which nothing came.
IDLE = 60.0
# Its commit must not wait for the disk: the next put's would wait for that as well.
TELL = f"""
SELECT pg_notify('{CHANNEL}', tube), set_config('synchronous_commit', 'off', true) FROM unnest(%b::text[]) AS tube
"""


class Waker:
    """For all threads of a process, and of a forked child. Its own thread lives while there is something to tell."""

    def __init__(self, session: PostgresSession) -> None:
        self._session = session
        self._thread: threading.Thread | None = None
        self._begin()

    def tell(self, tubes: Iterable[str]) -> None:
        """These tubes have got jobs that are ready."""
        if self._pid != os.getpid():
            self._session.close_inherited()
            self._begin()
        with self._changed:
            self._tubes.update(tubes)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="glassq-waker", daemon=True)
                self._thread.start()
            else:
                self._changed.notify()

    def close(self) -> None:
        """Tells what is left, and ends the thread; a later call starts another one."""
        if self._pid != os.getpid():
            return
        with self._changed:
            self._closing = True
            self._changed.notify()
            thread = self._thread
        if thread is not None:
            thread.join()
        self._closing = False

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._changed = threading.Condition()
        self._tubes: set[str] = set()
        self._thread = None
        self._closing = False

    def _run(self) -> None:
        while tubes := self._take():
            # who is not told looks by himself
            with suppress(QueueError):
                self._session.quick_rows(TELL, [sorted(tubes)])
            time.sleep(EVERY)
        self._session.close()

    def _take(self) -> set[str]:
        """What is to be told; nothing: the thread ends."""
        with self._changed:
            self._changed.wait_for(lambda: self._tubes or self._closing, IDLE)
            tubes, self._tubes = self._tubes, set()
            if not tubes:
                self._thread = None
            return tubes
