"""How much fits into the database: far less than PostgreSQL takes, and more than anybody puts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from glassq.errors import QueueError
from glassq.queues.limits import JobLimits

if TYPE_CHECKING:
    from glassq.queues.base import NewJob

# The largest job, in bytes. A row may have 1 GB, but whoever reads a job has all of it in memory.
MAX_JOB = 1 << 20
# The longest delay, pause and lease, in seconds.
MAX_SECONDS = (1 << 32) - 1
LIMITS = JobLimits(MAX_JOB, MAX_SECONDS)


def fault(job: NewJob) -> QueueError | None:
    """Why no PostgreSQL would take this job; None if it may."""
    if not job.key.isprintable():
        return QueueError("a key of unprintable characters")
    return LIMITS.fault(job.body, job.tube, job.delay)
