"""How long an attempt may take, and when a failed one is repeated: by the keys of its route, else of [worker]."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from glassq.backoff import between, ceiling

if TYPE_CHECKING:
    from collections.abc import Callable

    from glassq.settings import Route, Settings

# The minimum delay of a retry, in seconds: the cause of a failure rarely goes away at once.
MIN_DELAY = 1.0


@dataclass(frozen=True, slots=True)
class Policy:
    """The RetryPolicy of the settings. `backoff` and `backoff_cap` are in seconds."""

    max_attempts: int
    max_lost: int
    backoff: float
    backoff_cap: float

    def after(self, failures: int, age: float) -> float | None:
        return None if failures >= self.max_attempts else self.delay(failures)

    def delay(self, failures: int, uniform: Callable[[float, float], float] = between) -> float:
        """Seconds until the attempt after the `failures`-th failure: capped exponential with full jitter."""
        return max(MIN_DELAY, uniform(0.0, ceiling(failures - 1, self.backoff, self.backoff_cap)))


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Deadlines in seconds from the start of the attempt: soft (an exception) and hard (the process is killed)."""

    soft: float
    hard: float


def policy_of(settings: Settings, route: Route | None = None) -> Policy:
    """The policy of a route; without one, that of the pool."""
    worker = settings.worker
    if route is None:
        return Policy(worker.max_attempts, worker.max_lost, worker.backoff, worker.backoff_cap)
    return Policy(
        route.max_attempts or worker.max_attempts,
        worker.max_lost,
        route.backoff or worker.backoff,
        route.backoff_cap or worker.backoff_cap,
    )


def deadlines_of(settings: Settings, route: Route | None = None) -> Deadlines:
    """The deadlines of a route; without one, those of the pool.

    The soft one comes [worker] grace before the hard one, but never in the first half of a route's own deadline.
    """
    worker = settings.worker
    if route is None or route.deadline is None:
        return Deadlines(soft=worker.deadline - worker.grace, hard=worker.deadline)
    return Deadlines(soft=route.deadline - min(worker.grace, route.deadline / 2), hard=route.deadline)
