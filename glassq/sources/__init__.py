"""Sources: who sends pings, and how we verify that a ping is genuine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from glassq.sources.mirror import MirrorSource

if TYPE_CHECKING:
    from glassq.settings import Settings


class Source(Protocol):
    """A sender of pings.

    When you add one: a module here, a section in settings.SourcesSettings, a line in `open_sources`.
    """

    @property
    def name(self) -> str:
        """The name in `/hooks/<name>`, in a delivery's `source`, and in routes."""

    def check(self, body: bytes) -> dict[str, str]:
        """The labels of an accepted ping. Raises PingRefused for any other ping, and nothing else."""


def open_sources(settings: Settings) -> list[Source]:
    """The sources that the settings name. Raises SettingsError if a secret cannot be read."""
    sources: list[Source] = []
    if settings.sources.mirror is not None:
        sources.append(MirrorSource(settings.secret("sources.mirror.verify_tokens_file")))
    return sources
