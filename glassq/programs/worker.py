"""The pool of consumer daemons. Settings: glassq.toml (--config, GLASSQ_CONFIG, or /etc/glassq/glassq.toml)."""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence

from glassq import __version__, log, routes
from glassq.errors import SettingsError
from glassq.in_effect import InEffect
from glassq.ledger.sql import open_ledger
from glassq.log import kv
from glassq.push import queue_yaml
from glassq.push.dispatch import Desk
from glassq.push.endpoints import endpoints
from glassq.push.queue_yaml import PushQueue
from glassq.push.request import tube_of
from glassq.queues import open_queue
from glassq.settings import POOL, Settings, load
from glassq.values import Address
from glassq.worker import child, sidecar
from glassq.worker.bucket import Limit
from glassq.worker.consumer import Consumer
from glassq.worker.lease import Lease
from glassq.worker.look import Look
from glassq.worker.outcome import Policy
from glassq.worker.pool import EX_CONFIG, SILENCE, Plan, Pool
from glassq.worker.scoreboard import Scoreboard, Slot
from glassq.worker.systemd import Notifier
from glassq.worker.throttle import Throttle


def consume(settings: Settings, queues: Mapping[str, PushQueue], slot: Slot, throttle: Throttle) -> int:
    """One child: everything it needs is made here, after the fork."""
    worker = settings.worker
    try:
        context = routes.Context(settings)
        if settings.push is not None:
            # as the parent has read them: a mistake that is made in the file meanwhile is no new child's death
            context.keep(Desk.open, Desk.open(settings, queues))
        loaded = routes.load(settings, endpoints(settings, queues))
        loaded.prepare(context)
        ledger = open_ledger(settings.ledger)
    except SettingsError as error:
        log.logger("glassq.worker").error("cannot work %s", kv(why=error))
        return EX_CONFIG
    queue = open_queue(settings.queue)
    lease = Lease(queue, settings.queue.ttr, slot)
    gate = throttle.gate(
        slot.index, free=[settings.queue.tube], limited=[tube_of(settings.queue.tube, name) for name in queues]
    )
    policy = Policy(worker.max_attempts, worker.max_lost, worker.backoff, worker.backoff_cap)
    consumer = Consumer(
        queue, loaded, context, ledger, lease, slot, gate, policy,
        deadline=worker.deadline, grace=worker.grace, skew=worker.clock_skew,
    )  # fmt: skip
    return child.run(consumer, queue, lease, ledger, slot, max_jobs=worker.max_jobs, max_rss=worker.max_rss)


def tell_metrics(settings: Settings, address: Address, tubes: Sequence[str], scoreboard: Scoreboard) -> int:
    """The process beside the children."""
    # here, as it takes memory that no child needs
    from glassq.metrics.server import serve

    look = Look(scoreboard, open_queue(settings.queue), tubes)
    return sidecar.run(lambda: serve(address, scoreboard.counted, look, __version__), address, scoreboard.parent)


def plan(settings: Settings, in_effect: InEffect | None = None) -> Plan:
    """What the parent needs to know of the settings."""
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
    return Plan(
        lambda slot, throttle: consume(settings, queues, slot, throttle),
        worker.processes, worker.deadline + worker.grace, silence, tuple(limits),
        (lambda scoreboard: tell_metrics(settings, pool, tubes, scoreboard)) if pool else None,
        in_effect.read(settings) if in_effect else None,
    )  # fmt: skip


def push_queues(settings: Settings) -> Mapping[str, PushQueue]:
    """The queues of queue.yaml; none without a [push] section."""
    return {} if settings.push is None else queue_yaml.load(settings.push.queue_yaml, settings.push.targets)


def main() -> int:
    parser = argparse.ArgumentParser(prog="glassq-worker", description=__doc__)
    parser.add_argument("--config", metavar="FILE", help="the settings file")
    parser.add_argument("--version", action="version", version=f"glassq {__version__}")
    arguments = parser.parse_args()
    notify = Notifier(os.environ.pop("NOTIFY_SOCKET", None))
    watchdog = os.environ.pop("WATCHDOG_USEC", None)
    in_effect = InEffect("glassq-worker", POOL, os.environ.get("RUNTIME_DIRECTORY"))

    def read() -> Plan:
        settings = load(arguments.config, os.environ, POOL)
        log.setup(settings.log.level, form=settings.log.format, journal=os.environ.get("JOURNAL_STREAM"))
        for mistake in settings.ignored:
            log.logger("glassq.worker").warning("settings of another program are wrong %s", kv(why=mistake))
        return plan(settings, in_effect)

    try:
        return Pool(read, notify, watchdog=int(watchdog) / 1e6 if watchdog else None, in_effect=in_effect).run()
    except SettingsError as error:
        print(f"glassq-worker: {error}", file=sys.stderr)
        return EX_CONFIG


if __name__ == "__main__":
    sys.exit(main())
