"""The pool's counters: children count attempts, the parent counts what happens to children."""

from __future__ import annotations

from glassq.metrics import Counter, Histogram, SharedCounters, SharedGauge
from glassq.worker.outcome import Kind

ATTEMPTS = Counter(
    "glassq_attempts_total",
    "Attempts that are over, by outcome.",
    "outcome",
    tuple(kind.name.lower() for kind in Kind),
)
UNACKNOWLEDGED = Counter(
    "glassq_attempts_unacknowledged_total", "Attempts whose outcome the queue did not confirm: there may be another."
)
LOST = Counter("glassq_attempts_lost_total", "Attempts that ended with their process.")
DAMAGED = Counter("glassq_jobs_damaged_total", "Damaged jobs that were buried untouched.")
# From a handler that does nothing to the longest attempt that the default deadline allows.
SECONDS = Histogram(
    "glassq_handler_seconds",
    "How long attempts took.",
    (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 600),
)
WAIT = Histogram(
    "glassq_first_attempt_wait_seconds",
    "From when a ping was taken to its first attempt; without those that were put with a delay.",
    (0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300, 900, 3600),
)
WANTED = SharedGauge("glassq_children_wanted", "How many children there should be.")


def new_counters(rows: int) -> SharedCounters:
    """The counters of this number of processes. Call before the fork."""
    return SharedCounters((ATTEMPTS, UNACKNOWLEDGED, LOST, DAMAGED, SECONDS, WAIT, WANTED), rows)
