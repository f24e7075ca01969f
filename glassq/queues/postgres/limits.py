"""How much fits into the database: far less than PostgreSQL takes, and more than anybody puts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from glassq.errors import JobTooBig, QueueError
from glassq.values import Tube

if TYPE_CHECKING:
    from glassq.queues.base import NewJob

# The largest job, in bytes. A row may have 1 GB, but whoever reads a job has all of it in memory.
MAX_JOB = 1 << 20
# The longest delay, pause and lease, in seconds.
MAX_SECONDS = (1 << 32) - 1


def fault(job: NewJob) -> QueueError | None:
    """Why no PostgreSQL would take this job; None if it may."""
    if not job.key.isprintable():
        return QueueError("a key of unprintable characters")
    return bad_size(job.body) or bad_time(job.delay) or bad_tube(job.tube)


def bad_size(body: bytes) -> JobTooBig | None:
    """Why this is no body."""
    if len(body) <= MAX_JOB:
        return None
    return JobTooBig(f"a job of {len(body)} bytes: {MAX_JOB} are the maximum")


def bad_time(seconds: float) -> QueueError | None:
    """Why this is no delay, lease or pause."""
    if 0 <= seconds <= MAX_SECONDS:
        return None
    return QueueError(f"{seconds:g} seconds: expected 0 to {MAX_SECONDS}")


def bad_tube(name: str) -> QueueError | None:
    """Why this is no tube."""
    try:
        Tube(name)
    except ValueError as error:
        return QueueError(f"the tube {name!r}: {error}")
    return None
