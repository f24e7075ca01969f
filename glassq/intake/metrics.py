"""What the intake counts, and GET /metrics."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import falcon

from glassq import __version__
from glassq.errors import SpoolError
from glassq.intake.listen import places
from glassq.metrics import Counter, Gauge, Histogram, SharedCounters, SharedGauge

if TYPE_CHECKING:
    from glassq.intake.safekeeping import Safekeeping
    from glassq.intake.spool import Spool
    from glassq.metrics import ProcessCounters
    from glassq.values import Address

# What a request can be refused for, by its status.
REASONS = {
    400: "malformed",
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
# No room for its connection: closed before its request had arrived.
_CROWDED = "connections"
_OTHER = "other"

ACKNOWLEDGED = Counter(
    "glassq_pings_acknowledged_total", "Pings answered with 200, by where they were kept.", "kept", ("queue", "spool")
)
REFUSED = Counter(
    "glassq_requests_refused_total",
    "Requests that were not answered as they asked, by why.",
    "reason",
    (*dict.fromkeys(REASONS.values()), _CROWDED, _OTHER),
)
# From what a healthy disk takes, to the 5 seconds within which every ping is answered; the sender waits for 10.
SECONDS = Histogram(
    "glassq_ping_seconds",
    "From when a ping had arrived to when it was acknowledged.",
    (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
)
WORKERS = SharedGauge("glassq_intake_workers", "Processes that answer.")
# Each of them finds out for itself, so whoever is asked for metrics must not tell of its own luck alone.
SPOOLING = SharedGauge("glassq_intake_workers_spooling", "Of these, how many put pings into the spool now.")

_READY = Gauge("glassq_intake_ready", "1 if a ping would be kept now, in the queue or in the spool.")
_USABLE = Gauge("glassq_queue_usable", "1 if pings go into the queue now; 0: some go into the spool.")
_SPOOLED = Gauge("glassq_spool_deliveries", "Deliveries that wait in the spool.")
_BYTES = Gauge("glassq_spool_bytes", "Bytes they take.")
_OLDEST = Gauge("glassq_spool_oldest_seconds", "How long the oldest of them waits; 0 for none.")
_DAMAGED = Gauge("glassq_spool_damaged", "Damaged deliveries that were set aside.")

# The parent's row is the first. More workers at a time than there are rows share the last.
ROWS = 257


def new_board() -> SharedCounters:
    """For the parent and its workers; made before the fork."""
    return SharedCounters((ACKNOWLEDGED, REFUSED, SECONDS, WORKERS, SPOOLING), ROWS)


class Meter:
    """What one worker counts."""

    def __init__(self, tally: ProcessCounters) -> None:
        self._tally = tally

    def acknowledged(self, kept: str, arrived: float) -> None:
        """A ping was kept; it had `arrived` (time.monotonic())."""
        self._tally.count(ACKNOWLEDGED, kept)
        self._tally.observe(SECONDS, time.monotonic() - arrived)

    def refused(self, status: int) -> None:
        """A request was answered with this status, 400 or above."""
        self._tally.count(REFUSED, REASONS.get(status, _OTHER))

    def crowded(self) -> None:
        """A connection was closed to make room for others, before a whole request had arrived on it."""
        self._tally.count(REFUSED, _CROWDED)

    def spooling(self, spooling: bool) -> None:
        """Whether this worker puts pings into the spool now."""
        self._tally.set(SPOOLING, spooling)


class Metrics:
    """What all workers have counted, and how intake is now."""

    def __init__(self, board: SharedCounters, keeping: Safekeeping, spool: Spool) -> None:
        self._board = board
        self._keeping = keeping
        self._spool = spool

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """200, whatever the queue does."""
        from glassq.metrics import exposition

        resp.content_type = exposition.CONTENT_TYPE
        resp.data = exposition.text(self._board, self._look(), __version__)

    def _look(self) -> dict[Gauge, dict[tuple[str, ...], float]]:
        # the watcher asks each second; a queue that is frozen must not hold up who watches
        found = self._keeping.readiness(ask=False)
        (spooling,) = self._board.total(SPOOLING)
        numbers: dict[Gauge, float] = {_READY: found.ready, _USABLE: not spooling}
        try:
            lies = self._spool.look()
        except SpoolError:
            # `ready` says so where it matters
            pass
        else:
            numbers |= {_SPOOLED: lies.count, _BYTES: lies.size, _OLDEST: lies.oldest, _DAMAGED: lies.damaged}
        return {gauge: {(): float(number)} for gauge, number in numbers.items()}


class Doors:
    """Metrics are for those who watch, pings for those who send: neither is answered at the other one's address."""

    def __init__(self, address: Address) -> None:
        self._inside = places(address)

    def process_request(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Raises HTTPNotFound for who came by the wrong one."""
        came_by: Any = req.env["glassq.listener"]
        inside = not isinstance(came_by, str) and came_by[:2] in self._inside
        if inside != (req.path == "/metrics"):
            raise falcon.HTTPNotFound
