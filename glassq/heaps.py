"""How many heaps malloc has: by default each of many threads gets one, and what it frees there stays there."""

from __future__ import annotations

import ctypes
from contextlib import suppress

# mallopt(3)
_M_ARENA_MAX = -8


def limit_heaps(count: int) -> None:
    """From now on threads of this process, and of those forked from it, share so many heaps; where libc knows of it."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, count)
