"""How many examples a test of chance tries: so many every day, twenty times as many by `make thorough`."""

from __future__ import annotations

from hypothesis import settings

EVERYDAY = 25
THOROUGH = 20 * EVERYDAY


def examples(everyday: int) -> int:
    """For `max_examples` of a test that needs another number than EVERYDAY."""
    return everyday * settings.default.max_examples // EVERYDAY
