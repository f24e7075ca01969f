"""Helpers of all measurements: processes side by side, the rate of a drain, medians, progress."""

from __future__ import annotations

import multiprocessing
import statistics
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import greenstalk

# The pause of a tube while it is filled, in seconds.
PAUSE = 3600


@contextmanager
def side_by_side(processes: int, loop: Callable[..., None], *arguments: object) -> Iterator[None]:
    """Runs `loop(*arguments)` in this number of processes until the block ends."""
    started = [multiprocessing.Process(target=loop, args=arguments, daemon=True) for _ in range(processes)]
    for process in started:
        process.start()
    try:
        yield
    finally:
        for process in started:
            process.kill()
        for process in started:
            process.join()


def rate_of_drain(client: greenstalk.Client[bytes], tube: str, jobs: int) -> float:
    """Jobs per second, from now until the tube is empty."""
    started = time.perf_counter()
    while True:
        counts = client.stats_tube(tube)
        if not counts["current-jobs-ready"] + counts["current-jobs-reserved"]:
            return jobs / (time.perf_counter() - started)
        time.sleep(0.01)


def median(values: Any) -> float:
    return statistics.median(list(values))


def compared(mine: list[float], theirs: list[float]) -> tuple[str, str, str]:
    """Both medians, and the median of the rounds' ratios with the least and the greatest."""
    ratios = [a / b for a, b in zip(mine, theirs, strict=True)]
    ratio = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
    return f"{statistics.median(mine):,.0f}", f"{statistics.median(theirs):,.0f}", ratio


def say(what: str) -> None:
    print(f"bench: {what}", file=sys.stderr)
