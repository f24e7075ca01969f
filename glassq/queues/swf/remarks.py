"""What settings ask for that SWF does not give, and what it will cost: said before somebody meets it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from glassq.queues.swf.forms import MAX_JOB, MAX_SECONDS
from glassq.queues.swf.limits import DELIVERIES, HEARTBEATS, MAX_OPEN, price, price_again
from glassq.queues.swf.making import RETENTION

if TYPE_CHECKING:
    from collections.abc import Iterator

    from glassq.settings import Settings

_MILLION = 1_000_000
# From so many hosts on nobody is warned of their heartbeats.
_MANY = 10


def remarks(settings: Settings) -> Iterator[str]:
    """See `glassq.queues.remarks`."""
    file, million = settings.file, price(_MILLION, days=int(RETENTION))
    yield (
        f"{file}: [queue] url: at Amazon SWF a million deliveries cost up to ${million:,.0f}, as each history is kept "
        f"for {RETENTION} days (${price(_MILLION, days=0):,.0f} where none is), and a million further attempts "
        f"${price_again(_MILLION):,.0f}; an account has {DELIVERIES} deliveries a second at most, and a domain "
        f"{MAX_OPEN:,} that wait or lie buried"
    )
    attempts = settings.worker.processes + settings.worker.lane_processes
    if (hosts := enough_hosts(attempts, settings.lease)) < _MANY:
        yield (
            f"{file}: [worker] processes = {attempts}: each that is busy sends a heartbeat every {settings.lease // 3} "
            f"s, so the {HEARTBEATS} a second that Amazon SWF takes of an account are used up by {hosts + 1} such hosts"
        )
    if settings.lease > MAX_SECONDS:
        yield f"{file}: a deadline over {MAX_SECONDS // 86_400} days: no execution at Amazon SWF lives for that long"
    if settings.push is not None:
        yield (
            f"{file}: [push]: tasks of more than {MAX_JOB} bytes, their headers included, are refused, as Amazon SWF "
            "takes no more; App Engine took 100 KB"
        )


def enough_hosts(attempts: int, lease: float) -> int:
    """For how many hosts with so many attempts at once, each extended every third of its lease, heartbeats suffice."""
    return int(HEARTBEATS * lease / 3 // attempts)
