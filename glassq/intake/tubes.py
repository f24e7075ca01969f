"""Which tube a delivery goes into that comes out of the intake journal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from glassq.delivery import tube_of
from glassq.queues.base import NewJob
from glassq.settings import route_tube, source_tube

if TYPE_CHECKING:
    from collections.abc import Iterable

    from glassq.journal import JournalRecord
    from glassq.settings import Settings


class PingTubes:
    """The tubes that pings go into, by the settings."""

    def __init__(self, pool: str, others: Iterable[str] = ()) -> None:
        """`pool` is [queue] tube, `others` are those of sources with a queue of their own, and of routes."""
        self.pool = pool
        self._known = frozenset({pool, *others})

    @classmethod
    def of(cls, settings: Settings) -> PingTubes:
        """Those of these settings."""
        of_routes = {route_tube(settings, route) for route in settings.routes}
        return cls(settings.queue.tube, {source_tube(settings, name) for name in settings.sources} | of_routes - {""})

    def jobs(self, records: Iterable[JournalRecord]) -> list[NewJob]:
        """The jobs that these become: each in the tube it was meant for, if the settings still know it.

        Into another tube nobody would look: such a delivery, and one of an older release, goes into the pool's.
        """
        return [NewJob(record.key, record.body, self._tube(record.body)) for record in records]

    def _tube(self, job: bytes) -> str:
        tube = tube_of(job)
        return tube if tube in self._known else self.pool
