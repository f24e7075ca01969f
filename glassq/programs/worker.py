"""The pool of consumer daemons. Settings: glassq.toml (--config, GLASSQ_CONFIG, or /etc/glassq/glassq.toml)."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec

from glassq import __version__, log, routes
from glassq.errors import EX_CONFIG, SettingsError
from glassq.in_effect import InEffect
from glassq.ledger.sql import open_ledger
from glassq.log import fields
from glassq.mask import masked_line
from glassq.push.endpoints import endpoints, task_handlers
from glassq.push.request import tube_of
from glassq.queues import open_inspector, open_receiver
from glassq.settings import POOL, load
from glassq.startcheck import Finding, arguments, found
from glassq.systemd import Notifier
from glassq.worker import child, sidecar
from glassq.worker.bucket import Limit
from glassq.worker.collector import PoolCollector
from glassq.worker.consumer import Consumer
from glassq.worker.executor import Deadlines, Executor
from glassq.worker.idle import wait_for_work
from glassq.worker.lease import Lease
from glassq.worker.outcome import Policy
from glassq.worker.pool import SILENCE, Pool, PoolPlan
from glassq.worker.settlement import Settlement

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from glassq.push.queue_yaml import PushQueue
    from glassq.settings import Settings
    from glassq.values import Address
    from glassq.worker.scoreboard import Scoreboard, Slot
    from glassq.worker.throttle import Throttle


def consume(settings: Settings, queues: Mapping[str, PushQueue], slot: Slot, throttle: Throttle) -> int:
    """One child: everything it needs is made here, after the fork."""
    worker = settings.worker
    try:
        context = context_of(settings, queues)
        loaded = routes.load(settings, endpoints(settings, queues), task_handlers(settings, queues))
        loaded.prepare(context)
        ledger = open_ledger(settings.ledger)
    except SettingsError as error:
        log.logger("glassq.worker").error("cannot work %s", fields(why=error))
        slot.problem(str(error))
        return EX_CONFIG
    receiver = open_receiver(settings)
    lease = Lease(receiver, settings.queue.ttr, slot)
    limiter = throttle.limiter(
        slot.index, free=[settings.queue.tube], limited=[tube_of(settings.queue.tube, name) for name in queues]
    )
    policy = Policy(worker.max_attempts, worker.max_lost, worker.backoff, worker.backoff_cap)
    deadlines = Deadlines(soft=worker.deadline - worker.grace, hard=worker.deadline)
    executor = Executor(loaded, context, ledger, lease, policy, deadlines, skew=worker.clock_skew)
    consumer = Consumer(receiver, limiter, executor, Settlement(receiver, ledger, slot.counters), slot)
    with adding_tasks(settings):
        return child.run(consumer, receiver, lease, ledger, slot, max_jobs=worker.max_jobs, max_rss=worker.max_rss)


@contextmanager
def adding_tasks(settings: Settings) -> Iterator[None]:
    """Handlers may add tasks meanwhile; those that they have added and not waited for are put at the end."""
    if settings.push is None:
        yield
        return
    from glassq.push import taskqueue

    # A handler that adds tasks adds them to the queues that it works for.
    taskqueue.configure(settings.file)
    try:
        yield
    finally:
        taskqueue.finish()


def context_of(settings: Settings, queues: Mapping[str, PushQueue]) -> routes.Context:
    """What handlers get. Raises SettingsError."""
    context = routes.Context(settings)
    if settings.push is not None:
        from glassq.push.dispatch import Dispatcher

        # as the parent has read them: a mistake that is made in the file meanwhile is no new child's death
        context.provide(Dispatcher.open, Dispatcher.open(settings, queues))
    return context


def check(config: str | None) -> Iterator[Finding]:
    """What `main` and `consume` would refuse, one after the other; a mistake in one does not hide those in others."""
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
        # handlers that are functions need none of it
        local = tuple(route for route in settings.routes if not route.handler.is_url)
        settings = msgspec.structs.replace(settings, routes=local, push=None)
        context = routes.Context(settings)
    else:
        yield Finding("push")
        if idle := routes.without_routes(settings):
            # no refusal: the pool starts, and waits for a route
            yield Finding("idle", idle)
    for route, problem in routes.examine(
        settings, endpoints(settings, queues), context, task_handlers(settings, queues)
    ):
        yield Finding("handler", f"{route.handler} (queue {route.queue})" if route.queue else route.handler, problem)
    yield found("ledger", lambda: open_ledger(settings.ledger))


def tell_metrics(settings: Settings, address: Address, tubes: Sequence[str], scoreboard: Scoreboard) -> int:
    """The process beside the children."""
    # here, as it takes memory that no child needs
    from glassq.metrics.server import serve

    collector = PoolCollector(scoreboard, open_inspector(settings), tubes)
    return sidecar.run(
        lambda: serve(address, scoreboard.shared_counters, collector, __version__), address, scoreboard.parent
    )


def read(config: str | None) -> Settings:
    """The settings, after which the log goes by them. Raises SettingsError."""
    settings = load(config, os.environ, POOL)
    log.setup(settings.log.level, form=settings.log.format, journal=os.environ.get("JOURNAL_STREAM"))
    return settings


def plan(settings: Settings, in_effect: InEffect | None = None) -> PoolPlan:
    """What the parent needs to know of the settings."""
    for mistake in settings.ignored:
        log.logger("glassq.worker").warning("settings of another program are wrong %s", fields(why=mistake))
    worker, queue = settings.worker, settings.queue
    # the keeper does not beat while it waits for an answer to a touch, which may need a connection first
    silence = SILENCE + queue.connect_timeout + 2 * queue.timeout
    queues = push_queues(settings)
    most = worker.most_of_a_queue
    limits = (
        Limit(tube_of(queue.tube, each.name), each.rate, each.bucket_size, each.max_concurrent_requests or most)
        for each in queues.values()
    )
    tubes = [queue.tube, *(tube_of(queue.tube, name) for name in queues)]
    pool = settings.metrics.pool
    return PoolPlan(
        lambda slot, throttle: consume(settings, queues, slot, throttle),
        worker.processes, worker.deadline + worker.grace, silence, tuple(limits),
        (lambda scoreboard: tell_metrics(settings, pool, tubes, scoreboard)) if pool else None, queue.url,
        in_effect.read(settings) if in_effect else None,
    )  # fmt: skip


def push_queues(settings: Settings) -> Mapping[str, PushQueue]:
    """The queues of queue.yaml; none without a [push] section, which needs none of the room's libraries either."""
    if settings.push is None:
        return {}
    # All that children need is imported here, in the parent: they share its memory.
    from glassq.push import dispatch, queue_yaml, taskqueue  # noqa: F401

    return queue_yaml.load(settings.push.queue_yaml, settings.push.targets)


def main() -> int:
    given = arguments("glassq-worker", __doc__, check)
    notify = Notifier(os.environ.pop("NOTIFY_SOCKET", None))
    watchdog = os.environ.pop("WATCHDOG_USEC", None)
    seconds = int(watchdog) / 1e6 if watchdog else None
    in_effect = InEffect("glassq-worker", POOL, os.environ.get("RUNTIME_DIRECTORY"))
    try:
        if not wait_for_work(lambda: routes.without_routes(read(given.config)), notify, seconds):
            return 0
        return Pool(lambda: plan(read(given.config), in_effect), notify, watchdog=seconds, in_effect=in_effect).run()
    except SettingsError as error:
        print(f"glassq-worker: {error}", file=sys.stderr)
        notify(STATUS=masked_line(str(error)))
        return EX_CONFIG


if __name__ == "__main__":
    sys.exit(main())
