"""Statistics of a push queue: App Engine's QueueStatistics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from glassq.delivery import decode
from glassq.errors import DamagedDelivery
from glassq.push.task_errors import InvalidDeadlineError

if TYPE_CHECKING:
    from typing import Self

    from glassq.push.queue_yaml import PushQueue
    from glassq.queues.base import Job, TubeCounts

# Default time limit of a lookup, in seconds.
DEADLINE = 10.0


@dataclass(frozen=True, slots=True)
class Statistics:
    """A push queue as it is now; `taskqueue.QueueStatistics` looks it up.

    `tasks`                 the number of waiting, delayed and running tasks, without the buried ones
    `oldest_eta_usec`       when the next task was due, in microseconds since 1970; None if none waits
    `executed_last_minute`  None: the queue does not count them
    `in_flight`             the number of running tasks
    `enforced_rate`         tasks per second: the rate of queue.yaml, 0.0 while the queue is paused
    """

    queue: Any
    tasks: int
    oldest_eta_usec: int | None = None
    executed_last_minute: int | None = None
    in_flight: int | None = None
    enforced_rate: float | None = None

    @classmethod
    def of(cls, queue: object, tube: TubeCounts, first: Job | None, known: PushQueue) -> Self:
        """Of a queue with these counts, where `first` is the job that is worked next."""
        return cls(
            queue=queue,
            tasks=tube.ready + tube.delayed + tube.reserved,
            oldest_eta_usec=None if first is None else _eta_usec(first),
            in_flight=tube.reserved,
            enforced_rate=0.0 if tube.paused_for else known.rate,
        )


def _eta_usec(job: Job) -> int | None:
    try:
        delivery = decode(job.body)
        eta = float(delivery.labels.get("eta", 0)) or delivery.received.timestamp()
        return round(eta * 1e6)
    except (DamagedDelivery, ValueError, OverflowError):
        return None


def check_deadline(deadline: object) -> float:
    """The seconds that a call may take. Raises TypeError or InvalidDeadlineError."""
    if not isinstance(deadline, int | float) or isinstance(deadline, bool):
        raise TypeError("deadline: expected a number of seconds")
    if not deadline > 0:
        raise InvalidDeadlineError("deadline: expected more than 0 seconds")
    return float(deadline)
