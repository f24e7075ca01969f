"""The intake's counters, and GET /metrics."""

from __future__ import annotations

from collections import Counter as Counts
from typing import TYPE_CHECKING

from glassq import __version__
from glassq.errors import JournalError
from glassq.metrics import Counter, Gauge, Histogram, SharedCounters, SharedGauge

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import falcon

    from glassq.intake.source_counters import SharedSourceCounters
    from glassq.intake.state import IntakeState
    from glassq.intake.watcher import Watcher
    from glassq.journal import Journal
    from glassq.metrics import ProcessCounters
    from glassq.metrics.exposition import GaugeValues

# Why a request was refused, by the status of its answer.
REASONS = {
    400: "malformed",
    401: "token",
    403: "token",
    404: "path",
    405: "method",
    408: "slow",
    411: "length",
    413: "too_large",
    414: "head",
    415: "media_type",
    417: "expectation",
    431: "head",
    500: "bug",
    503: "unavailable",
}
# The connection was closed to make room, before its request had arrived.
_CROWDED = "connections"
_OTHER = "other"

ACKNOWLEDGED = Counter(
    "glassq_pings_acknowledged_total",
    "Pings answered with 200, by where they were stored.",
    "kept",
    ("queue", "journal"),
)
REFUSED = Counter(
    "glassq_requests_refused_total",
    "Refused requests, by reason.",
    "reason",
    (*dict.fromkeys(REASONS.values()), _CROWDED, _OTHER),
)
# From the time of a healthy disk to the 5 seconds within which every ping is answered. The sender waits for 10.
SECONDS = Histogram(
    "glassq_ping_seconds",
    "Time from a ping's arrival to its acknowledgement.",
    (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
)
BATCH = Histogram(
    "glassq_intake_batch_pings",
    "Pings that were kept together, with one proof.",
    (1, 2, 4, 8, 16, 32, 64, 128, 256, 512),
)
KEEPING = Histogram(
    "glassq_intake_keep_seconds",
    "Time until a batch of pings was kept: put into the queue and proven, or written into the journal.",
    (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5),
)
WORKERS = SharedGauge("glassq_intake_workers", "Worker processes.")
# Each worker finds out for itself whether the queue works, so the one that answers /metrics reports for all of them.
JOURNALING = SharedGauge(
    "glassq_intake_workers_journaling",
    "Worker processes that put pings into the journal now, because the queue takes none.",
)

_READY = Gauge("glassq_intake_ready", "1 if a ping would be stored now, in the queue or in the journal.")
_USABLE = Gauge("glassq_queue_usable", "1 if pings go into the queue now; 0: some go into the journal.")
_JOURNALED = Gauge("glassq_journal_deliveries", "Deliveries in the journal.")
_BYTES = Gauge("glassq_journal_bytes", "Blocks of the journal on disk, in bytes, with what is allocated ahead.")
_OLDEST = Gauge("glassq_journal_oldest_seconds", "Age of the oldest delivery in the journal; 0 for none.")
_DAMAGED = Gauge("glassq_journal_damaged", "Damaged deliveries and segments in the journal that were set aside.")

_REFUSED = Gauge("glassq_journal_refused", "Deliveries that were set aside because the queue refuses them for good.")

# Row 0 is the parent's. If there are more workers than rows, those beyond share the last one.
ROWS = 257


def shared_counters() -> SharedCounters:
    """The counters of the parent and its workers; made before the fork."""
    return SharedCounters((ACKNOWLEDGED, REFUSED, SECONDS, BATCH, KEEPING, WORKERS, JOURNALING), ROWS)


class IntakeCounters:
    """What one worker counts."""

    def __init__(self, counters: ProcessCounters) -> None:
        self._counters = counters

    def acknowledged(self, places: Sequence[str], seconds: Iterable[float]) -> None:
        """Pings are kept at these places, "queue" or "journal", so many seconds after they arrived."""
        for place, many in Counts(places).items():
            self._counters.count(ACKNOWLEDGED, place, many)
        self._counters.observe(SECONDS, *seconds)

    def batch(self, size: int, seconds: float) -> None:
        """So many pings have been kept together, or refused, within so many seconds."""
        self._counters.observe(BATCH, size)
        self._counters.observe(KEEPING, seconds)

    def refused(self, status: int) -> None:
        """A request was answered with this status, 400 or above."""
        self._counters.count(REFUSED, REASONS.get(status, _OTHER))

    def crowded(self) -> None:
        """A connection was closed to make room for others, before a whole request had arrived on it."""
        self._counters.count(REFUSED, _CROWDED)

    def journaling(self, journaling: bool) -> None:
        """Whether this worker puts pings into the journal now, because the queue takes none."""
        self._counters.set(JOURNALING, journaling)


class MetricsResource:
    """GET /metrics: the counters of all workers, and the intake's state now."""

    def __init__(
        self,
        shared: SharedCounters,
        sources: SharedSourceCounters,
        state: IntakeState,
        watcher: Watcher,
        journal: Journal,
    ) -> None:
        self._shared = shared
        self._sources = sources
        self._state = state
        self._watcher = watcher
        self._journal = journal

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answers 200, also while the queue is down."""
        from glassq.metrics import exposition

        resp.content_type = exposition.CONTENT_TYPE
        resp.data = exposition.text(self._shared, self._gauges(), __version__)

    def _gauges(self) -> GaugeValues:
        # no request to the queue: the watcher asks it each second, and a frozen queue must not delay this answer
        self._watcher.look_at_journal()
        (journaling,) = self._shared.total(JOURNALING)
        numbers: dict[Gauge, float] = {_READY: self._state.ready, _USABLE: not journaling}
        try:
            found = self._journal.look()
        except JournalError:
            # where it matters, `ready` says so
            pass
        else:
            numbers |= {_JOURNALED: found.count, _BYTES: found.size, _OLDEST: found.oldest, _DAMAGED: found.damaged}
            numbers[_REFUSED] = found.refused
        return self._sources.gauges() | {gauge: {(): float(number)} for gauge, number in numbers.items()}
