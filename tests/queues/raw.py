"""beanstalkd's own commands on a connection of its own, for tests that prepare a queue or look at all of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from glassq.queues.beanstalk.connection import BeanstalkConnection
from glassq.queues.beanstalk.scan import Scan

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from glassq.queues.beanstalk.protocol import JobStats, ScanProgress, ScanShort
    from glassq.settings import QueueSettings


class Queue(BeanstalkConnection):
    """A connection that can search, too."""

    def scan(
        self, states: frozenset[str], *tubes: str, hints: Sequence[int] = (), since: int = 0
    ) -> Iterator[JobStats | ScanProgress | ScanShort]:
        return Scan(self, states, frozenset(tubes) or frozenset({self.tube}), since).run(hints)


def open_queue(settings: QueueSettings, *, require_durable: bool = False) -> Queue:
    return Queue(
        settings.url,
        settings.tube,
        ttr=int(settings.ttr),
        connect_timeout=settings.connect_timeout,
        timeout=settings.timeout,
        require_durable=require_durable,
    )
