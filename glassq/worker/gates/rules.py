"""Which routes have gates: at most so many of one key at once, and a breaker."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from glassq.policy import policy_of
from glassq.settings import hashed_key
from glassq.worker.gates.breaker import BreakerRule

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from glassq.delivery import Delivery
    from glassq.settings import Route, Settings


@dataclass(frozen=True, slots=True)
class KeyRule:
    """At most `most` deliveries of the route at once whose `label` has one value."""

    route: str
    label: str
    most: int

    def key(self, delivery: Delivery) -> str:
        """The delivery's key, as parking tubes are named by it; "" where it has no such label: then it has no limit."""
        value = delivery.labels.get(self.label)
        return "" if value is None else hashed_key(self.route, value)


@dataclass(frozen=True, slots=True)
class GateRules:
    """The rules of all routes, by their names. `base` is [queue] tube, `tubes` are those that are worked."""

    base: str
    tubes: frozenset[str]
    keys: Mapping[str, KeyRule]
    breakers: Mapping[str, BreakerRule]


def gate_rules(settings: Settings, routes: Iterable[Route], tubes: Iterable[str]) -> GateRules:
    """The rules of these routes. `tubes` are all that a pool with these settings works."""
    keys: dict[str, KeyRule] = {}
    breakers: dict[str, BreakerRule] = {}
    for route in routes:
        if route.concurrency_by is not None:
            keys[route.name] = KeyRule(route.name, route.concurrency_by.label, route.concurrency or 1)
        if route.breaker is not None:
            policy = policy_of(settings, route)
            breakers[route.name] = BreakerRule(route.breaker, policy.backoff, policy.backoff_cap)
    return GateRules(str(settings.queue.tube), frozenset(tubes), keys, breakers)
