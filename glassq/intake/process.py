"""What takes pings in one web process, put together of the settings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from glassq.bodies import open_bodies
from glassq.bodies.waiting import WaitingBodies
from glassq.errors import JournalError, SettingsError
from glassq.intake.body_holder import BodyHolder
from glassq.intake.durable_store import DurableStore
from glassq.intake.forwarder import Forwarder
from glassq.intake.hook import HookResource
from glassq.intake.keeper import PingKeeper
from glassq.intake.large_bodies import LargeBodies, cannot_be_made
from glassq.intake.peers import TrustedProxies
from glassq.intake.refusals import RefusalLog
from glassq.intake.state import IntakeState
from glassq.intake.tubes import PingTubes
from glassq.intake.watcher import Watcher
from glassq.journal import DIRECTORIES, Journal
from glassq.queues import open_producer
from glassq.settings import ping_tube

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from glassq.intake.metrics import IntakeCounters
    from glassq.intake.source_counters import SourceCounters
    from glassq.settings import Settings
    from glassq.sources.base import Source

# A stopping process waits so long, in seconds, for what the journal has and the queue has not. The rest is moved on
# later, by whoever comes.
STOP_WAIT = 2.0


class IntakeProcess:
    """What takes pings in one process; made after the fork."""

    def __init__(self, settings: Settings, counters: IntakeCounters, sources: Mapping[str, SourceCounters]) -> None:
        """`sources` are the counters of each source, by its name."""
        self.refusals = RefusalLog(counters)
        self._by_source = sources
        producer, tubes = open_producer(settings), PingTubes.of(settings)
        self.journal = open_journal(settings)
        journal_first = settings.intake.acknowledge == "journal"
        self.state = IntakeState(counters.journaling, journal_first=journal_first)
        bodies = open_bodies(settings)
        holder, waiting = BodyHolder(bodies, self.journal, settings.queue.url), WaitingBodies.of(settings, self.journal)

        def tend() -> None:
            holder.tend()
            if waiting is not None:
                waiting.tend()

        self.watcher = Watcher(producer, self.journal, self.state, tubes, tend, waiting)
        self.forwarder = Forwarder(producer, self.journal, self.state, self.watcher) if journal_first else None
        apart = waiting.is_apart if waiting is not None else lambda key: False
        store = DurableStore(producer, self.journal, self.state, self.watcher, self.forwarder, apart)
        self.bodies = LargeBodies(waiting or bodies, self.state, inline=settings.queue.url.inline)
        self.keeper = PingKeeper(store, counters, sources, self.bodies)

    def hooks(self, settings: Settings, sources: Iterable[Source]) -> dict[str, HookResource]:
        """What takes the requests to these sources, by their names."""
        proxies, found = TrustedProxies(settings.intake.trusted_proxies), {}
        for source in sources:
            counters, tube = self._by_source[source.name], ping_tube(settings, source.name)
            found[source.name] = HookResource(
                source, self.keeper, self.bodies, self.refusals, counters, proxies, tube=tube
            )
        return found

    def start(self) -> None:
        """Starts its threads."""
        self.journal.start()
        self.watcher.start()
        if self.forwarder is not None:
            self.forwarder.start()

    def close(self) -> None:
        """Nothing more comes."""
        if self.forwarder is not None:
            self.forwarder.stop(STOP_WAIT)
        self.watcher.stop(STOP_WAIT)
        self.journal.close()


def open_journal(settings: Settings) -> Journal:
    """The journal of the settings; its directory is made if it is missing. Raises SettingsError where that fails."""
    intake = settings.intake
    try:
        return Journal(Path(intake.journal), max_size=intake.journal_max, min_free=intake.journal_min_free)
    except JournalError as error:
        raise _no_journal(settings, str(error)) from None


def can_open_journal(settings: Settings) -> None:
    """Raises SettingsError where `open_journal` would, as far as one can see without creating anything."""
    path = Path(settings.intake.journal)
    if why := cannot_be_made(path, DIRECTORIES):
        raise _no_journal(settings, f"journal {path}: cannot be made: {why}")


def _no_journal(settings: Settings, why: str) -> SettingsError:
    return SettingsError(f'{settings.file}: [intake] journal = "{settings.intake.journal}": {why}')
