"""The pool of consumer daemons. Settings: glassq.toml (--config, GLASSQ_CONFIG, or /etc/glassq/glassq.toml)."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from itertools import chain, repeat
from typing import TYPE_CHECKING

import msgspec

from glassq import __version__, descriptors, hooks, loading, log, routes
from glassq.bodies import open_bodies
from glassq.errors import EX_CONFIG, SettingsError
from glassq.handlers.program import programs
from glassq.handlers.steps import in_steps
from glassq.in_effect import InEffect
from glassq.ledger.sql import open_ledger
from glassq.log import fields
from glassq.mask import masked_line
from glassq.policy import deadlines_of, policy_of
from glassq.programs import lanes, notifying, scheduling, sharing, shelving, sweeping
from glassq.programs.beginning import Beginning
from glassq.programs.context import adding_tasks, context_of
from glassq.programs.gating import (
    breakers_of,
    gated,
    keys_over_hosts,
    over_hosts,
    route_limits,
    rules_of,
    worked_tubes,
)
from glassq.programs.unrouted import unrouted_of
from glassq.push.endpoints import endpoints, task_handlers
from glassq.push.request import tube_of
from glassq.queues import check_tables, open_inspector, open_receiver
from glassq.schedules.opening import has_schedules, schedules_of
from glassq.settings import POOL, WorkerQueue, load, pool_prefixes, queue_tube
from glassq.startcheck import Finding, arguments, found
from glassq.systemd import Notifier
from glassq.worker import child, sidecar
from glassq.worker.bucket import UNLIMITED, Limit
from glassq.worker.children import EX_NO_LANES
from glassq.worker.collector import PoolCollector
from glassq.worker.consumer import Consumer
from glassq.worker.executor import Executor
from glassq.worker.idle import wait_for_work
from glassq.worker.lease import Lease
from glassq.worker.plan import SILENCE, PoolPlan
from glassq.worker.pool import Pool
from glassq.worker.settlement import Settlement
from glassq.worker.shares import QueueLimiter, Share
from glassq.worker.template import refuse

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from glassq.push.queue_yaml import PushQueue
    from glassq.settings import Settings
    from glassq.values import Address
    from glassq.worker.gates.shared import Gates
    from glassq.worker.scoreboard import Scoreboard
    from glassq.worker.slots import Slot
    from glassq.worker.template import ChildMain
    from glassq.worker.throttle import Throttle, TubeLimiter


def load_handlers(
    settings: Settings, queues: Mapping[str, PushQueue], beginning: Beginning, loaded: Callable[[str], None]
) -> ChildMain:
    """Loads what all children share; calls `loaded` after each handler. Raises SettingsError. See `template.Load`."""
    found = loading.load(settings, makers(settings, queues), lambda handler: _loaded(handler, loaded))
    # imported here, so that children share them; each child makes its own
    hooks.load(settings)
    # Imports the database's driver. This one is never used: each child opens its own.
    open_ledger(settings.ledger)
    if found.lane_routes:

        def work(slot: Slot, throttle: Throttle) -> int:
            main = lanes.consume if slot.lanes else consume
            return main(settings, queues, found, slot, throttle, beginning)

        return work
    return lambda slot, throttle: (
        EX_NO_LANES if slot.lanes else consume(settings, queues, found, slot, throttle, beginning)
    )


def _loaded(handler: str, loaded: Callable[[str], None]) -> None:
    loaded(handler)
    if lost := descriptors.lost():
        raise SettingsError(f"{handler} closes descriptors that are not its own when it is imported: {lost}")


def makers(settings: Settings, queues: Mapping[str, PushQueue]) -> loading.Makers:
    """Who makes handlers that are no functions."""
    return loading.Makers(
        endpoints(settings, queues), programs(settings, os.environ), in_steps, task_handlers(settings, queues)
    )


def consume(
    settings: Settings,
    queues: Mapping[str, PushQueue],
    loaded: routes.Routes,
    slot: Slot,
    throttle: Throttle,
    beginning: Beginning,
) -> int:
    """The main function of a child. Makes everything that the child needs, because it runs after the fork."""
    worker = settings.worker
    try:
        context = context_of(settings, queues)
        loaded.prepare(context)
        ledger = open_ledger(settings.ledger)
        watching = hooks.open_hooks(settings)
    except SettingsError as error:
        return refuse(error, slot)
    receiver = open_receiver(settings)
    lease = Lease(receiver, settings.queue.ttr, slot, context.loop)
    main = limiter_of(settings, queues, throttle, slot.index, loaded)
    hosts = keys_over_hosts(settings)
    limiter = gated(rules_of(settings, queues), main, throttle, slot.index, receiver, hosts)
    policy, deadlines = policy_of(settings), deadlines_of(settings)
    bodies = open_bodies(settings)
    executor = Executor(
        loaded,
        context,
        ledger,
        lease,
        policy,
        deadlines,
        bodies=bodies,
        skew=worker.clock_skew,
        unrouted=unrouted_of(settings).verdict,
        hooks=watching,
    )
    settlement = Settlement(receiver, ledger, slot.counters, bodies, watching, largest=settings.queue.url.largest)
    others = pool_prefixes(settings.queue.tube)
    consumer = Consumer(receiver, limiter, executor, settlement, slot, others, children=worker.processes)
    beginning.tell(ledger)
    with adding_tasks(settings):
        return child.run(consumer, receiver, lease, ledger, slot, max_jobs=worker.max_jobs, max_rss=worker.max_rss)


def limiter_of(
    settings: Settings, queues: Collection[str], throttle: Throttle, slot: int, loaded: routes.Routes
) -> TubeLimiter | QueueLimiter:
    """What a plain child may reserve from: the main tube, those of routes and push `queues`, [worker.queues] by weight.

    The tubes of routes with lanes are for lane children.
    """
    base = str(settings.queue.tube)
    of_lanes = {destination.tube for destination in loaded.lane_routes}
    of_routes = [limit.tube for limit in route_limits(settings) if limit.tube not in of_lanes]
    limited = [*(tube_of(base, name) for name in queues), *of_routes]
    limiter = throttle.limiter(slot, [base], limited, barred=of_lanes)
    tubes = {queue_tube(settings, name): queue for name, queue in settings.worker.queues.items()}
    if not tubes:
        return limiter
    main = tubes.pop(base, WorkerQueue())
    shares = [Share(base, main.weight), *(Share(tube, queue.weight) for tube, queue in tubes.items())]
    place = throttle.place(slot, [limit.tube for limit in kept_places(settings)])
    return QueueLimiter(limiter, shares, place)


def kept_places(settings: Settings) -> list[Limit]:
    """The places of children that are kept for queues, by the tubes of these."""
    queues = settings.worker.queues.items()
    return [
        Limit(queue_tube(settings, name), UNLIMITED, max(1, queue.children), queue.children) for name, queue in queues
    ]


def check(config: str | None) -> Iterator[Finding]:
    """Yields what `main` and `consume` would refuse, for --check. One mistake does not hide the others."""
    try:
        settings = read(config)
    except SettingsError as error:
        yield Finding("settings", problem=str(error))
        return
    queues: Mapping[str, PushQueue] = {}
    try:
        queues = push_queues(settings)
        context = context_of(settings, queues)
    except SettingsError as error:
        yield Finding("push", problem=str(error))
        # handlers that are functions need no [push] section
        local = tuple(route for route in settings.routes if not route.needs_push)
        settings = msgspec.structs.replace(settings, routes=local, push=None)
        context = routes.Context(settings)
    else:
        yield Finding("push")
        if idle := loading.without_routes(settings):
            # this is fine: the pool starts, and waits for a route
            yield Finding("idle", idle)
    for route, problem in loading.examine(settings, makers(settings, queues), context):
        yield Finding("handler", f"{route.work} (queue {route.queue})" if route.queue else route.work, problem)
    if settings.notify.on_buried is not None:
        yield found("notify", lambda: notifying.main_of(settings))
    if settings.worker.hooks:
        yield found("hooks", lambda: hooks.load(settings))
    yield found("queue", lambda: check_tables(settings))
    yield found("ledger", lambda: open_ledger(settings.ledger))
    yield found("bodies", lambda: open_bodies(settings))
    if has_schedules(settings):
        yield found("schedules", lambda: schedules_of(settings))


def serve_metrics(
    settings: Settings, address: Address, tubes: Sequence[str], scoreboard: Scoreboard, gates: Gates
) -> int:
    """The main function of the process beside the children, which serves the metrics."""
    # imported here because it takes memory that no child needs
    from glassq.metrics.server import serve

    prefixes = pool_prefixes(str(settings.queue.tube))
    inspector, bodies, known = open_inspector(settings), open_bodies(settings), breakers_of(settings)
    collector = PoolCollector(scoreboard, inspector, tubes, bodies, prefixes=prefixes, gates=gates, breakers=known)
    return sidecar.run(
        lambda: serve(address, scoreboard.shared_counters, collector, __version__), address, scoreboard.parent
    )


def read(config: str | None) -> Settings:
    """Loads the settings, and sets up the log by them. Raises SettingsError."""
    settings = load(config, os.environ, POOL)
    log.setup(settings.log.level, form=settings.log.format, journal=os.environ.get("JOURNAL_STREAM"))
    return settings


def plan(settings: Settings, in_effect: InEffect | None = None, *, first: bool = True) -> PoolPlan:
    """The plan of the pool according to the settings, the `first` one or that of a reload. Raises SettingsError."""
    for mistake in settings.ignored:
        log.logger("glassq.worker").warning("settings of another program are wrong %s", fields(why=mistake))
    check_tables(settings)
    # The engine is imported here, in the parent: the children share its memory. This one is never used.
    open_receiver(settings)
    open_bodies(settings)
    worker, queue = settings.worker, settings.queue
    # The keeper does not beat while it extends a lease, and may have to connect for that.
    silence = SILENCE + queue.connect_timeout + 2 * queue.timeout
    queues = push_queues(settings)
    max_running = worker.most_of_a_queue
    limits = [
        *route_limits(settings),
        *(
            Limit(tube_of(queue.tube, name), push.rate, push.bucket_size, push.max_concurrent_requests or max_running)
            for name, push in queues.items()
        ),
    ]
    if over_hosts(settings):
        limits = [replace(limit, shared=True) for limit in limits]
    tubes = worked_tubes(settings, queues)
    pool, beginning = settings.metrics.pool, Beginning(first=first)
    return PoolPlan(
        lambda loaded: load_handlers(settings, queues, beginning, loaded),
        processes=worker.processes,
        drain=settings.longest_deadline + worker.grace,
        preload=worker.preload,
        silence=silence,
        limits=tuple(limits),
        kept=tuple(kept_places(settings)),
        sidecar=(lambda scoreboard, gates: serve_metrics(settings, pool, tubes, scoreboard, gates)) if pool else None,
        beside={
            "schedules": scheduling.main_of(settings),
            "notify": notifying.main_of(settings),
            "shelf": shelving.main_of(settings),
        },
        sharing=sharing.main_of(settings, limits),
        sweep=lambda: sweeping.sweep_main(settings),
        queue=queue.url,
        made_of=in_effect.read(settings) if in_effect else None,
        lane_processes=lanes.processes(settings),
        lanes=lanes.most_lanes(settings),
        breakers=breakers_of(settings),
    )


def push_queues(settings: Settings) -> Mapping[str, PushQueue]:
    """The queues of queue.yaml; none without a [push] section. Raises SettingsError."""
    if settings.push is None:
        return {}
    # Imported in the parent, so that the children share its memory; and only here, so that a pool without [push] needs
    # none of it.
    from glassq.push import dispatch, queue_yaml, taskqueue  # noqa: F401

    return queue_yaml.load(settings.push.queue_yaml, settings.push.targets)


def main() -> int:
    given = arguments("glassq-worker", __doc__, check)
    notify = Notifier(os.environ.pop("NOTIFY_SOCKET", None))
    watchdog = os.environ.pop("WATCHDOG_USEC", None)
    seconds = int(watchdog) / 1e6 if watchdog else None
    directory = os.environ.get("RUNTIME_DIRECTORY")
    in_effect = InEffect("glassq-worker", POOL, directory)
    first = chain([True], repeat(False))
    try:
        if not wait_for_work(lambda: loading.without_routes(read(given.config)), notify, seconds):
            return 0
        return Pool(
            lambda: plan(read(given.config), in_effect, first=next(first)),
            notify,
            watchdog=seconds,
            in_effect=in_effect,
            directory=directory,
        ).run()
    except SettingsError as error:
        print(f"glassq-worker: {error}", file=sys.stderr)
        notify(STATUS=masked_line(str(error)))
        return EX_CONFIG


if __name__ == "__main__":
    sys.exit(main())
