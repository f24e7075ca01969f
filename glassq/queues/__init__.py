"""Where deliveries wait. `open_queue` is the one place that knows which URL means which queue."""

from __future__ import annotations

from typing import TYPE_CHECKING

from glassq.queues.base import Job, JobStats, Queue, ServerStats, TubeStats
from glassq.queues.beanstalk import Beanstalk

if TYPE_CHECKING:
    from glassq.settings import QueueSettings

__all__ = ["Job", "JobStats", "Queue", "ServerStats", "TubeStats", "open_queue"]


def open_queue(settings: QueueSettings, *, lease: int = 0, require_durable: bool = False) -> Queue:
    """The queue of the settings. It connects at its first command, and again after a connection broke.

    `lease` is how long a job that is put here is its consumer's, in whole seconds (`Settings.lease`); at least the
    settings' ttr.

    One queue object is one connection: it belongs to one thread of one process, and is made after a fork.
    With `require_durable` it refuses to work with a server that does not write to disk.
    """
    return Beanstalk(
        settings.url,
        settings.tube,
        ttr=max(lease, int(settings.ttr)),
        connect_timeout=settings.connect_timeout,
        timeout=settings.timeout,
        require_durable=require_durable,
    )
