"""What one process of the console has: one object of each kind, put together."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from glassq import __version__, host
from glassq.console.assets import Assets
from glassq.console.doors import Doors
from glassq.console.guard import TWIN
from glassq.console.keys import open_key, state_directory
from glassq.console.limits import ConcurrencyLimit, Tries
from glassq.console.links import Links
from glassq.console.notes import Notes
from glassq.console.plans import Plans
from glassq.console.render import Frame, Renderer
from glassq.console.roles import VIA
from glassq.console.runs import Runs
from glassq.console.sessions import Sessions
from glassq.console.trail import Trail
from glassq.operations import Operations, hints
from glassq.operations.census import Census
from glassq.operations.doctor import Doctor
from glassq.operations.find import MAX_CANDIDATES
from glassq.operations.pauses import Pausers, pauses
from glassq.operations.sampler import Sampler
from glassq.operations.verdict import verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from glassq.console.roles import Actor
    from glassq.ledger.activity import Activity
    from glassq.operations.verdict import SystemVerdict
    from glassq.settings import Settings

# So many failed logins of one name and peer, and then so long none, in seconds.
LOGINS, LOGIN_PAUSE = 5, 30.0
# Of the server's threads so many may search, or ask the queue for one delivery: a pause, or a stop, finds one free.
SEARCHES, LOOKUPS = 2, 4
# And so many may make pages, so many of them for one person: whatever is slow, a button finds a thread.
PAGES, PAGES_EACH = 6, 4
# The actor of what the console does by itself.
ITSELF = "glassq-console"
# Who is refused and has no name.
NOBODY = "somebody"


class Console:
    """One per process. `start` begins its threads, `close` ends them."""

    def __init__(
        self,
        settings: Settings,
        config: str | None = None,
        confined: bool = False,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """`config` is the settings file as --config names it, for commands that can be copied; `confined` as in
        Operations.

        Raises SettingsError where the key cannot be used.
        """
        self.settings = settings
        self.clock = clock
        self._config = config
        self._confined = confined
        directory = state_directory(settings)
        key = open_key(directory)
        self.instance = key.instance
        self.url = str(settings.console.url or "")
        self.base = urlsplit(self.url).path.rstrip("/")
        self.doors = Doors(settings.console)
        self.sessions = Sessions(key, directory, self._unix)
        self.links = Links(key, self._unix)
        self.tries = Tries(LOGINS, LOGIN_PAUSE, time.monotonic)
        self.searches = ConcurrencyLimit(SEARCHES, 1, "searches")
        self.lookups = ConcurrencyLimit(LOOKUPS, LOOKUPS, "looks at single deliveries")
        self.pages = ConcurrencyLimit(PAGES, PAGES_EACH, "pages")
        self.assets = Assets()
        self.renderer = Renderer(self.assets, self.base, self.adapt)
        self.operations = self._operations(ITSELF)
        self.census = Census(self.operations)
        self.trail = Trail(self._operations_of)
        self.doctor = Doctor(self.operations)
        self.sampler = Sampler(self.operations, turned=self.doctor.look)
        self.notes = Notes(self.operations)
        self.pausers = Pausers(self.operations)
        self.plans = Plans(clock)
        self.runs = Runs(self.operations_for, self.operations, self.instance, self.census.left, directory)

    def start(self) -> None:
        """Begins to look at the queue."""
        for watcher in (self.census, self.sampler, self.doctor, self.runs):
            watcher.start()

    def close(self) -> None:
        """Ends what was begun, in time for a stop of the service."""
        for watcher in (self.runs, self.census, self.sampler, self.doctor):
            watcher.close()

    def verdict(self) -> SystemVerdict | None:
        """The most urgent of what is wrong; None before anybody has looked."""
        watched = (("the queue", self.sampler), ("what lies buried", self.census), ("the checks", self.doctor))
        ended = [what for what, watcher in watched if watcher.has_ended]
        return verdict(self.census.snapshot(), self.sampler.view(), self.doctor.view(), self.clock(), ended)

    def operations_for(self, actor: Actor) -> Operations:
        """What this actor does on the installation."""
        return self._operations(actor.identity, actor.via)

    def _operations_of(self, actor: Actor | None) -> Operations:
        return self._operations(NOBODY) if actor is None else self.operations_for(actor)

    def _operations(self, name: str, via: str = VIA) -> Operations:
        return Operations(
            self.settings,
            actor=name,
            via=via,
            confined=self._confined,
            clock=self.clock,
            known_buried=self._known_buried,
        )

    def _known_buried(self, prefix: str) -> dict[str, str]:
        """See Operations."""
        return {entry.delivery: entry.ref for entry in self.census.snapshot().beginning(prefix, MAX_CANDIDATES + 1)}

    def note_on(self, cause: str) -> Activity | None:
        """The newest note on a group."""
        return self.notes.on(cause)

    def command(self, words: str) -> str:
        """`glassq WORDS` as it is typed for these settings."""
        return hints.command(words, self._config)

    def adapt(self, text: str) -> str:
        """The text with each command of ours in it as it is typed for these settings."""
        return hints.adapt(text, self._config)

    def frame(self, actor: Actor | None, url: str) -> Frame:
        """What stands on the page of this path and query; "" where it is no page of its own."""
        path, _, query = url.partition("?")
        twin = f"{self.base}{path}{TWIN}" + (f"?{query}" if query else "") if path else ""
        # who has not signed in sees nothing of the queue
        seen: dict[str, Any] = {}
        if actor is not None:
            census, samples = self.census.snapshot(), self.sampler.view()
            seen = {
                "verdict": self.verdict(),
                "buried": census.total if census.looked_at is not None else None,
                "paused": pauses(samples.tubes, samples.at, self.pausers) if samples.at else (),
            }
        return Frame(
            actor=actor,
            instance=self.instance,
            host=host.name(),
            version=__version__,
            base=self.base,
            path=path,
            twin=twin,
            now=self.clock(),
            **seen,
        )

    def html(self, template: str, values: Mapping[str, Any], actor: Actor | None, url: str = "") -> str:
        """A page."""
        return self.renderer.page(template, self.frame(actor, url), values)

    def _unix(self) -> float:
        return self.clock().timestamp()
