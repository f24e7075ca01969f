"""A Glass room on this machine: the simulated Glass over real HTTP, a credential store and photos in directories."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from glassq import delivery
from glassq.dev.simulator.glass import SimulatedGlass
from glassq.glass.credentials import CredentialStore, new_key
from glassq.glass.photos import GlassServices, store
from glassq.routes import Context, Result
from glassq.settings import Settings, parse

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from glassq.dev.simulator.glass import TimelineItem
    from glassq.glass.api import Account
    from glassq.settings import GlassSettings


@dataclass
class Room:
    """What the tests of glass/ work in. `made` are the contexts, one for each simulated process."""

    simulated: SimulatedGlass
    settings: Settings
    photos: Path
    made: list[Context] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.new_process()

    def new_process(self, **changes: Any) -> Context:
        """A worker process that has just started, with these settings of [glass] changed."""
        glass: GlassSettings = msgspec.structs.replace(self.settings.glass, **changes)
        self.settings = msgspec.structs.replace(self.settings, glass=glass)
        self.made.append(Context(self.settings))
        return self.context

    @property
    def context(self) -> Context:
        return self.made[-1]

    @property
    def glass(self) -> GlassServices:
        return self.context.resource(GlassServices.open)

    @property
    def store(self) -> CredentialStore:
        return self.glass.credentials

    def consent(self, user: str) -> str:
        """The user consents, for the first time or afresh; the refresh token, which is stored."""
        token = self.simulated.add_user(user)["refresh_token"]
        self.store.add(user, token)
        return token

    def account(self, user: str) -> Account:
        return self.glass.mirror.account(user, self.context.remaining)

    def ping(
        self, user: str, item: TimelineItem | str, action: str | None = "SHARE", **fields: object
    ) -> dict[str, object]:
        return {
            "collection": "timeline",
            "itemId": item if isinstance(item, str) else item.id,
            "operation": "INSERT",
            "userToken": user,
            "verifyToken": "not for the logs",
            "userActions": [{"type": action}] if action else None,
            **fields,
        }

    def handle(self, ping: dict[str, object] | bytes, *, waits: int = 0, age: float = 0.0) -> Result:
        """Runs the handler on a ping that waited so many times and came in so many seconds ago."""
        body = ping if isinstance(ping, bytes) else json.dumps(ping).encode()
        received = datetime.now(UTC) - timedelta(seconds=age)
        fresh = delivery.new("mirror", body, {"collection": "timeline"})
        return store(msgspec.structs.replace(fresh, waits=waits, received=received), self.context)

    def share(self, user: str, item: TimelineItem | str) -> Result:
        return self.handle(self.ping(user, item))

    def stored(self) -> dict[str, bytes]:
        """Name and content of everything in the directory, temporary files too."""
        return {path.name: path.read_bytes() for path in sorted(self.photos.iterdir())} if self.photos.exists() else {}

    def asked(self, operation: str) -> int:
        """How many requests of this operation the simulated Glass has seen."""
        return sum(request.operation == operation for request in self.simulated.requests)

    def close(self) -> None:
        for context in self.made:
            context.resource(GlassServices.open).close()


def settings_for(simulated: SimulatedGlass, directory: Path) -> Settings:
    """Settings that work with this simulated Glass, everything else in `directory`."""
    (directory / "client-secret").write_text(simulated.client_secret + "\n")
    (directory / "credentials-key").write_text(new_key() + "\n")
    text = f"""
        [glass]
        api_url = "{simulated.api_url}"
        token_url = "{simulated.token_url}"
        client_id = "{simulated.client_id}"
        client_secret_file = "{directory}/client-secret"
        credentials = "{directory}/credentials"
        credentials_key_file = "{directory}/credentials-key"
        [storage]
        url = "file://{directory}/photos"
    """
    return parse(text, "glassq.toml")


@pytest.fixture
def simulated() -> Iterator[SimulatedGlass]:
    with SimulatedGlass() as simulated:
        yield simulated


@pytest.fixture
def room(simulated: SimulatedGlass, tmp_path: Path) -> Iterator[Room]:
    room = Room(simulated, settings_for(simulated, tmp_path), tmp_path / "photos")
    yield room
    room.close()
