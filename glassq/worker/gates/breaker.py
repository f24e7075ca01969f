"""When a route pauses itself: the state of a circuit breaker, and what failures and successes make of it.

| state  | event                                           | next   | effect                                           |
|--------|-------------------------------------------------|--------|--------------------------------------------------|
| closed | an attempt fails by the same cause as the last  | closed | one failure more in a row                        |
| closed | that failure is the `failures`-th               | open   | deliveries of the route are parked               |
| closed | an attempt fails by another cause               | closed | the row begins again, with this one              |
| closed | an attempt succeeds                             | closed | the row is over                                  |
| open   | a delivery comes, and a probe is due            | open   | it is worked: one at a time in the whole pool    |
| open   | a probe fails, by whatever cause                | open   | the next is due after a longer pause             |
| open   | an attempt fails that began before it opened    | open   |                                                  |
| open   | any attempt succeeds                            | closed | what was parked is worked                        |

A handler that raises Bury, or Retry(counts=False), has decided; it has neither failed nor succeeded. Pure functions.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from glassq.backoff import ceiling


@dataclass(frozen=True, slots=True)
class BreakerRule:
    """How many failures in a row open it, and the pauses before probes, from the first to the longest, in seconds."""

    failures: int
    backoff: float
    backoff_cap: float


@dataclass(frozen=True, slots=True)
class BreakerState:
    """`failures` in a row by the `cause` (hashed), which `why` says in words.

    `since` is when it opened, in seconds since 1970 (0: it is closed). The next probe is due at `due`, on
    time.monotonic(), after `probes` that failed.
    """

    failures: int = 0
    cause: int = 0
    since: float = 0.0
    due: float = 0.0
    probes: int = 0
    why: str = ""

    @property
    def is_open(self) -> bool:
        """Whether deliveries are parked."""
        return self.since > 0


CLOSED = BreakerState()


def after_failure(
    state: BreakerState, cause: int, why: str, rule: BreakerRule, *, now: float, wall: float, probe: bool
) -> BreakerState:
    """The state after an attempt failed at `now` (time.monotonic()) and `wall` (since 1970); `probe`: it was one."""
    if state.is_open:
        if not probe:
            return state
        probes = state.probes + 1
        return replace(state, cause=cause, why=why, probes=probes, due=now + _pause(probes, rule))
    failures = state.failures + 1 if cause == state.cause else 1
    if failures < rule.failures:
        return BreakerState(failures, cause, why=why)
    return BreakerState(failures, cause, wall, now + rule.backoff, 0, why)


def after_probe_began(state: BreakerState, rule: BreakerRule, now: float) -> BreakerState:
    """The state once a probe runs: whatever becomes of it, the next one comes no sooner."""
    return replace(state, due=now + _pause(state.probes + 1, rule))


def _pause(probes: int, rule: BreakerRule) -> float:
    return ceiling(probes, rule.backoff, rule.backoff_cap)
