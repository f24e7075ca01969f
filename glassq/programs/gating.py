"""What limits a child of the pool beside the tubes that it is for: the keys and breakers of routes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from glassq import routes
from glassq.push.request import tube_of
from glassq.settings import queue_tube, route_tube
from glassq.worker.bucket import UNLIMITED, Limit
from glassq.worker.gates.doorman import Doorman
from glassq.worker.gates.limiter import GatedLimiter
from glassq.worker.gates.rules import gate_rules

if TYPE_CHECKING:
    from collections.abc import Collection

    from glassq.queues import Receiver
    from glassq.settings import Settings
    from glassq.worker.gates.doorman import KeysOverHosts
    from glassq.worker.gates.rules import GateRules
    from glassq.worker.shares import QueueLimiter
    from glassq.worker.throttle import Throttle, TubeLimiter


def rules_of(settings: Settings, queues: Collection[str]) -> GateRules:
    """The gates of these settings; `queues` are those of queue.yaml."""
    return gate_rules(settings, routes.all_routes(settings), worked_tubes(settings, queues))


def gated(
    rules: GateRules,
    main: TubeLimiter | QueueLimiter,
    throttle: Throttle,
    slot: int,
    receiver: Receiver,
    hosts: KeysOverHosts | None = None,
) -> GatedLimiter:
    """What the child, or the lane, in this slot may work, of what `main` lets it reserve.

    `hosts` knows which keys other hosts work (None: there are no others).
    """
    doorman = Doorman(throttle.gates, slot, rules, hosts if rules.keys else None)
    return GatedLimiter(main, throttle.gates, doorman, rules, receiver)


def keys_over_hosts(settings: Settings) -> KeysOverHosts | None:
    """A connection of the child's own, or the lane's: its end frees the key that it holds."""
    if not over_hosts(settings):
        return None
    # imported here: only a pool on a database has the library
    from glassq.database.key_locks import KeyLocks
    from glassq.database.postgres import PostgresSession

    queue = settings.queue
    session = PostgresSession(
        queue.url, name="glassq keys", connect_timeout=queue.connect_timeout, timeout=queue.timeout
    )
    return KeyLocks(session)


def over_hosts(settings: Settings) -> bool:
    """Whether limits hold over all hosts that share the queue: where it is a database, whose rows and locks do that."""
    return settings.queue.url.is_database


def worked_tubes(settings: Settings, queues: Collection[str]) -> list[str]:
    """The tubes that a pool with these settings works, the main one first; `queues` are those of queue.yaml."""
    base = settings.queue.tube
    of_queues = [queue_tube(settings, name) for name in settings.worker.queues]
    of_routes = [limit.tube for limit in route_limits(settings)]
    return list(dict.fromkeys([str(base), *of_queues, *of_routes, *(tube_of(base, name) for name in queues)]))


def breakers_of(settings: Settings) -> frozenset[str]:
    """The names of the routes that have a breaker."""
    return frozenset(route.name for route in settings.routes if route.breaker is not None)


def route_limits(settings: Settings) -> list[Limit]:
    """The limits of routes with a tube of their own: how many of their attempts may run at once."""
    return [
        Limit(tube, UNLIMITED, route.concurrency, route.concurrency)
        for route in settings.routes
        if (tube := route_tube(settings, route)) and route.concurrency
    ]
