"""What the pool sweeps out of the body store, in a process of its own."""

from __future__ import annotations

import os
import time
from contextlib import closing, suppress
from typing import TYPE_CHECKING

from setproctitle import setproctitle

from glassq.bodies.sweep import SCAN_AGAIN, SCAN_EVERY, Sweeper, journaled_jobs, named_in
from glassq.errors import BodyError, JournalError, QueueError
from glassq.log import fields, logger
from glassq.queues import open_inspector

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from glassq.settings import Settings

log = logger("glassq.worker")

# In the store's directory: its time of modification says when all jobs were looked at last.
_LOOKED = ".looked"


def sweep_main(settings: Settings) -> Callable[[], int] | None:
    """The main function of the process; None while there is no store."""
    try:
        there = (settings.bodies.url.directory / "live").is_dir()
    except OSError:
        # the pool's parent goes on; the process finds the same trouble, and says so
        there = True
    return (lambda: sweep(settings)) if there else None


def sweep(settings: Settings) -> int:
    """Sweeps once; the exit code."""
    setproctitle("glassq-worker: sweeping bodies")
    try:
        looks = _is_due(settings.bodies.url.directory)
        swept = Sweeper.of(settings).sweep((lambda wanted: _named(settings, wanted)) if looks else None)
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


def _is_due(directory: Path) -> bool:
    """Whether all jobs are to be looked at, if there is reason to; on one of the hosts that share the store."""
    with suppress(FileNotFoundError):
        return time.time() - (directory / _LOOKED).stat().st_mtime > SCAN_EVERY
    return True


def _named(settings: Settings, wanted: frozenset[str]) -> frozenset[str]:
    directory = settings.bodies.url.directory
    # a look that fails or is killed is made again soon, but not each minute
    _note_look(directory, time.time() - SCAN_EVERY + SCAN_AGAIN)
    # the journal first: what moves on meanwhile is in the queue by the time that this is read
    journaled = list(journaled_jobs(settings))
    with closing(open_inspector(settings)) as queue:
        named = named_in(wanted, journaled, queue)
    _note_look(directory, time.time())
    return named


def _note_look(directory: Path, when: float) -> None:
    file = directory / _LOOKED
    file.touch(mode=0o600)
    os.utime(file, (when, when))
