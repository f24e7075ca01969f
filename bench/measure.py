"""What every measurement does: reads a queue's counts, takes the middle of several rounds, says how far it is."""

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

# A tube is paused for so long while it is filled, in seconds.
LONG = 3600


@contextmanager
def side_by_side(processes: int, loop: Callable[..., None], *arguments: object) -> Iterator[None]:
    """So many processes that each run `loop(*arguments)`, until the block ends."""
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
    """Jobs a second, from now to the last."""
    started = time.perf_counter()
    while True:
        counts = client.stats_tube(tube)
        if not counts["current-jobs-ready"] + counts["current-jobs-reserved"]:
            return jobs / (time.perf_counter() - started)
        time.sleep(0.01)


def median(values: Any) -> float:
    return statistics.median(list(values))


def say(what: str) -> None:
    print(f"bench: {what}", file=sys.stderr)
