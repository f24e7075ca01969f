"""How many examples a test of chance tries: so many every day, twenty times as many by `make thorough`.

The same for tests that end a process at each of its steps in turn, where each step takes a process of its own.
"""

from __future__ import annotations

import random

from hypothesis import settings

EVERYDAY = 25
THOROUGH = 20 * EVERYDAY


def examples(everyday: int) -> int:
    """For `max_examples` of a test that needs another number than EVERYDAY."""
    return everyday * settings.default.max_examples // EVERYDAY


def steps(first: int, end: int) -> range:
    """Of these steps every third, from another one on each time; by `make thorough` all of them."""
    if settings.default.max_examples > EVERYDAY:
        return range(first, end)
    return range(first + random.randrange(3), end, 3)
