"""Makes sources out of the sections [sources.NAME] of glassq.toml. What would refuse every ping is refused here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from glassq.errors import SettingsError
from glassq.settings import source_tube
from glassq.sources import mirror

if TYPE_CHECKING:
    from glassq.settings import Settings
    from glassq.sources.base import Source


def open_sources(settings: Settings) -> list[Source]:
    """The sources that the settings name. Raises SettingsError if one cannot be used, or a secret cannot be read."""
    return [_open(settings, name) for name in settings.sources]


def _open(settings: Settings, name: str) -> Source:
    section = settings.sources[name]
    kind = section.kind_of(name)
    if kind != mirror.KIND:
        raise SettingsError(f'{settings.file}: [sources.{name}] kind = "{kind}": expected one of: {mirror.KIND}')
    tokens = settings.secret(f"sources.{name}.verify_tokens_file")
    max_body = section.max_body or settings.intake.max_body
    return mirror.MirrorSource(tokens, name=name, max_body=max_body, tube=source_tube(settings, name))
