"""What the pool sweeps out of the body store, in a process of its own."""

from __future__ import annotations

import time
from contextlib import closing
from typing import TYPE_CHECKING

from setproctitle import setproctitle

from glassq.bodies import open_bodies
from glassq.bodies.queue_holder import hold_queue
from glassq.bodies.sweep import SCAN_AGAIN, SCAN_EVERY, Sweeper, journaled_jobs, named_in
from glassq.errors import BodyError, JournalError, QueueError
from glassq.log import fields, logger
from glassq.queues import open_inspector

if TYPE_CHECKING:
    from collections.abc import Callable

    from glassq.bodies import BodyStore
    from glassq.settings import Settings

log = logger("glassq.worker")


def sweep_main(settings: Settings) -> Callable[[], int] | None:
    """The main function of the process; None while there is no store."""
    if settings.bodies.url.directory is None:
        # the pool's parent connects to nothing
        return lambda: sweep(settings)
    try:
        there = open_bodies(settings).exists()
    except BodyError:
        # the pool's parent goes on; the process finds the same trouble, and says so
        there = True
    return (lambda: sweep(settings)) if there else None


def sweep(settings: Settings) -> int:
    """Sweeps once; the exit code."""
    setproctitle("glassq-worker: sweeping bodies")
    try:
        sweeper = Sweeper.of(settings)
        with sweeper.store.alone() as alone:
            if not alone or not sweeper.store.exists():
                # another host does it, or there is nothing yet
                return 0
            looks = time.time() - sweeper.store.looked() > SCAN_EVERY
            swept = sweeper.sweep((lambda wanted: _named(settings, sweeper.store, wanted)) if looks else None)
            # for the sweeps of others; on a full disk what is done goes first
            hold_queue(sweeper.store, settings.queue.url)
    except (BodyError, QueueError, JournalError, OSError) as error:
        log.error("large bodies cannot be swept %s", fields(why=error))
        return 0
    if swept.unsure:
        log.warning("large bodies that may be needed stay %s", fields(why=swept.unsure))
    if swept.orphans:
        log.warning("large bodies that no job names are put aside %s", fields(bodies=swept.orphans))
    if swept.removed:
        log.info("large bodies removed %s", fields(bodies=swept.removed, bytes=swept.removed_bytes))
    return 0


def _named(settings: Settings, store: BodyStore, wanted: frozenset[str]) -> frozenset[str]:
    # a look that fails or is killed is made again soon, but not each minute
    store.note_look(time.time() - SCAN_EVERY + SCAN_AGAIN)
    # the journal first: what moves on meanwhile is in the queue by the time that this is read
    journaled = list(journaled_jobs(settings))
    with closing(open_inspector(settings)) as queue:
        named = named_in(wanted, journaled, queue)
    store.note_look(time.time())
    return named
