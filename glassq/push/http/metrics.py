"""The counters of glassq-tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from glassq.metrics import Counter, Histogram, SharedCounters, SharedGauge

if TYPE_CHECKING:
    from collections.abc import Sequence

    from glassq.metrics import ProcessCounters

# Why a request was refused, by the status of its answer.
REASONS = {
    400: "invalid",
    401: "token",
    404: "not_found",
    405: "method",
    408: "slow",
    409: "exists",
    411: "length",
    413: "too_large",
    414: "head",
    417: "expectation",
    429: "too_many",
    431: "head",
    500: "bug",
    501: "unimplemented",
    503: "unavailable",
}
_CROWDED = "connections"
_OTHER = "other"

ADDED = Counter("glassq_tasks_added_total", "Tasks answered with 200: the queue has proven to keep them.")
REFUSED = Counter(
    "glassq_tasks_requests_refused_total",
    "Refused requests, by reason.",
    "reason",
    (*dict.fromkeys(REASONS.values()), _CROWDED, _OTHER),
)
SECONDS = Histogram(
    "glassq_task_add_seconds",
    "Time from the arrival of a request to the proof of its task.",
    (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
)
BATCH = Histogram(
    "glassq_tasks_batch", "Tasks that were put together, with one proof.", (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
)
KEEPING = Histogram(
    "glassq_tasks_keep_seconds",
    "Time until a batch of tasks was put and proven, or refused.",
    (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
)
WORKERS = SharedGauge("glassq_tasks_workers", "Worker processes.")

# Row 0 is the parent's. If there are more workers than rows, those beyond share the last one.
ROWS = 65


def shared_counters() -> SharedCounters:
    """The counters of the parent and its workers; made before the fork."""
    return SharedCounters((ADDED, REFUSED, SECONDS, BATCH, KEEPING, WORKERS), ROWS)


class TaskCounters:
    """What one worker counts."""

    def __init__(self, counters: ProcessCounters) -> None:
        self._counters = counters

    def added(self, seconds: Sequence[float]) -> None:
        """Tasks are kept, so many seconds after their requests had arrived."""
        self._counters.count(ADDED, "", len(seconds))
        self._counters.observe(SECONDS, *seconds)

    def batch(self, size: int, seconds: float) -> None:
        """So many tasks have been put together, or refused, within so many seconds."""
        self._counters.observe(BATCH, size)
        self._counters.observe(KEEPING, seconds)

    def refused(self, status: int, many: int = 1) -> None:
        """Requests were answered with this status, 400 or above."""
        self._counters.count(REFUSED, REASONS.get(status, _OTHER), many)

    def crowded(self) -> None:
        """A connection was closed to make room for others, before a whole request had arrived on it."""
        self._counters.count(REFUSED, _CROWDED)
