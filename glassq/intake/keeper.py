"""Between the app and the store: hands pings over, and answers for what became of them."""

from __future__ import annotations

import logging
import time
from collections import Counter as Counts
from typing import TYPE_CHECKING, Any

import msgspec

from glassq import delivery as envelope
from glassq.errors import QueueError, QueueRefused
from glassq.http.log_limiter import LogLimiter
from glassq.log import fields, logger
from glassq.queues.base import NewJob

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from glassq.delivery import Delivery
    from glassq.intake.durable_store import DurableStore, Place
    from glassq.intake.large_bodies import LargeBodies
    from glassq.intake.metrics import IntakeCounters
    from glassq.intake.source_counters import SourceCounters

log = logger("glassq.intake")


class CheckedPing(msgspec.Struct, frozen=True, gc=False):
    """A checked ping, ready to be kept.

    `arrived` is when its request had arrived, on time.monotonic(). `stored`: its body is not in the job.
    """

    job: NewJob
    source: str
    arrived: float
    stored: bool = False


class PingKeeper:
    """Keeps the pings of one process, and counts them."""

    def __init__(
        self,
        store: DurableStore,
        counters: IntakeCounters,
        sources: Mapping[str, SourceCounters],
        bodies: LargeBodies,
    ) -> None:
        """`sources` has the counters of each source, by its name."""
        self._store = store
        self._bodies = bodies
        self._counters = counters
        self._sources = sources
        self._limiter = LogLimiter()

    def take(self, delivery: Delivery, environ: Mapping[str, Any]) -> None:
        """Hands a delivery to the turn of our own worker's loop, which holds the answer until it is kept.

        Another WSGI server has no turns: there it is kept on return. Raises QueueError if it is kept nowhere.
        """
        new = NewJob(delivery.id, envelope.encode(delivery), delivery.tube)
        arrived = environ.get("glassq.arrived") or time.monotonic()
        ping = CheckedPing(new, delivery.source, arrived, delivery.stored is not None)
        turn = environ.get("glassq.turn")
        if turn is not None:
            turn.append(ping)
            return
        (place,) = self._keep([ping])
        if isinstance(place, QueueError):
            raise place

    def keep(self, pings: Sequence[CheckedPing]) -> list[bool]:
        """Keeps a batch; whether each of its pings is kept. Called in one thread of the worker."""
        places = self._keep(pings)
        refused = [place for place in places if isinstance(place, QueueError)]
        for _ in refused:
            self._counters.refused(503)
        if refused and (left_out := self._limiter.admit()) is not None:
            log.error("not acknowledged %s", fields(status=503, pings=len(refused), why=refused[0], **left_out))
        return [not isinstance(place, QueueError) for place in places]

    def forsake(self, pings: Sequence[CheckedPing]) -> None:
        """These are not going to be kept."""
        self._bodies.drop(ping.job.key for ping in pings if ping.stored)

    def _keep(self, pings: Sequence[CheckedPing]) -> Sequence[Place | QueueError]:
        began = time.monotonic()
        places = self._store.store([ping.job for ping in pings])
        now = time.monotonic()
        self._counters.batch(len(pings), now - began)
        taken = [(ping, place) for ping, place in zip(pings, places, strict=True) if not isinstance(place, QueueError)]
        self._count_by_source(pings, taken)
        if len(taken) < len(pings):
            # what may be in the queue all the same keeps its body
            self.forsake([ping for ping, place in zip(pings, places, strict=True) if isinstance(place, QueueRefused)])
        self._counters.acknowledged([place for _, place in taken], [now - ping.arrived for ping, _ in taken])
        # a log line takes a fifth of a ping's time, so it is written at debug level only
        if log.isEnabledFor(logging.DEBUG):
            for ping, place in taken:
                log.debug("acknowledged %s", fields(delivery=ping.job.key, source=ping.source, kept=place))
        return places

    def _count_by_source(self, pings: Sequence[CheckedPing], taken: Sequence[tuple[CheckedPing, Place]]) -> None:
        kept = Counts(ping.source for ping, _ in taken)
        for source, many in kept.items():
            self._sources[source].acknowledged(many)
        if len(taken) < len(pings):
            for source, many in (Counts(ping.source for ping in pings) - kept).items():
                self._sources[source].refused("not kept", requests=many)
