"""Delays before a retry: exponential, capped, with jitter so that many clients do not retry at the same time.

Source of the rule: "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
"""

from __future__ import annotations

import random

# 2**40 exceeds every cap; without a bound, a float overflows at 2**1024.
_MAX_DOUBLINGS = 40


def ceiling(doublings: int, first: float, cap: float) -> float:
    """The maximum delay, in seconds: `first`, doubled `doublings` times, at most `cap`."""
    return min(cap, first * 2.0 ** min(doublings, _MAX_DOUBLINGS))


def between(least: float, most: float) -> float:
    """A random number of seconds from `least` to `most`."""
    return random.uniform(least, most)  # noqa: S311 - jitter, no secret
