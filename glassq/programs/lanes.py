"""Puts a lane child together (worker/lanes.py): what it shares, and what each lane has for itself."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from glassq.bodies import open_bodies
from glassq.errors import SettingsError
from glassq.hooks import open_hooks
from glassq.ledger.sql import open_ledger
from glassq.policy import deadlines_of, policy_of
from glassq.programs.context import adding_tasks, context_of
from glassq.programs.gating import gated, keys_over_hosts, rules_of
from glassq.programs.unrouted import unrouted_of
from glassq.queues import open_receiver
from glassq.settings import route_tube
from glassq.worker import lanes
from glassq.worker.consumer import Consumer
from glassq.worker.executor import Executor
from glassq.worker.lane_lease import LaneLease
from glassq.worker.lanes import Lane, Lanes
from glassq.worker.losses import LossWatch
from glassq.worker.settlement import Settlement
from glassq.worker.template import refuse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from glassq.bodies import BodyStore
    from glassq.hooks import Hooks
    from glassq.ledger import Ledger
    from glassq.programs.beginning import Beginning
    from glassq.push.queue_yaml import PushQueue
    from glassq.routes import Context, Routes
    from glassq.settings import Settings
    from glassq.worker.gates.rules import GateRules
    from glassq.worker.slots import Slot
    from glassq.worker.throttle import Throttle
    from glassq.worker.unrouted import Unrouted


def consume(
    settings: Settings,
    queues: Mapping[str, PushQueue],
    loaded: Routes,
    slot: Slot,
    throttle: Throttle,
    beginning: Beginning,
) -> int:
    """The main function of a lane child."""
    worker = settings.worker
    try:
        context = context_of(settings, queues)
        loaded.prepare(context)
        ledger = open_ledger(settings.ledger)
        hooks = open_hooks(settings)
    except SettingsError as error:
        return refuse(error, slot)
    rules, unrouted = rules_of(settings, queues), unrouted_of(settings)
    bodies, losses = open_bodies(settings), LossWatch(slot)
    shared = _Shared(settings, rules, unrouted, loaded, context, ledger, bodies, throttle, losses, hooks)
    most = _share([found.route.concurrency or 1 for found in loaded.lane_routes], processes(settings))
    made = Lanes(slot, shared.lane, most)
    limit = worker.max_jobs * min(most, len(slot.lanes))
    beginning.tell(ledger)
    with adding_tasks(settings):
        return lanes.run(made, context.loop, ledger, slot, max_jobs=limit, max_rss=worker.max_rss)


def processes(settings: Settings) -> int:
    """How many lane children the settings ask for; no more than a route has attempts at once."""
    worker = settings.worker
    wanted = worker.lane_processes or min(worker.processes, os.cpu_count() or 1)
    return min(wanted, max(_concurrencies(settings), default=0))


def most_lanes(settings: Settings) -> int:
    """How many lanes a lane child may need."""
    return _share(_concurrencies(settings), processes(settings))


def _concurrencies(settings: Settings) -> list[int]:
    """How many attempts may run at once, of each route that may have lanes.

    Only who has loaded the handlers knows which of them are `async`.
    """
    own = [route.concurrency or 1 for route in settings.routes if route_tube(settings, route)]
    return [most for most in own if most > 1]


def _share(concurrencies: Iterable[int], children: int) -> int:
    return sum(math.ceil(most / max(1, children)) for most in concurrencies)


@dataclass(frozen=True, slots=True)
class _Shared:
    """What all lanes of a child share."""

    settings: Settings
    rules: GateRules
    unrouted: Unrouted
    routes: Routes
    context: Context
    ledger: Ledger
    bodies: BodyStore | None
    throttle: Throttle
    losses: LossWatch
    hooks: Hooks

    def lane(self, slot: Slot, changed: Callable[[int], None]) -> Lane:
        """A lane in this slot."""
        settings = self.settings
        receiver = open_receiver(settings)
        lease = LaneLease(receiver, settings.queue.ttr, slot, changed)
        context = self.context.for_thread(lease.stoppable)
        executor = Executor(
            self.routes,
            context,
            self.ledger,
            lease,
            policy_of(settings),
            deadlines_of(settings),
            bodies=self.bodies,
            skew=settings.worker.clock_skew,
            hooks=self.hooks,
            unrouted=self.unrouted.verdict,
        )
        tubes = [found.tube for found in self.routes.lane_routes]
        main = self.throttle.limiter(slot.index, free=[], limited=tubes)
        limiter = gated(self.rules, main, self.throttle, slot.index, receiver, keys_over_hosts(settings))
        settlement = Settlement(
            receiver, self.ledger, slot.counters, self.bodies, self.hooks, largest=settings.queue.url.largest
        )
        consumer = Consumer(receiver, limiter, executor, settlement, slot, losses=self.losses)
        return Lane(slot, receiver, lease, consumer)
