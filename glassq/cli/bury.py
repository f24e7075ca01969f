"""`glassq bury`: a delivery is put aside before anybody works it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from glassq import host
from glassq.cli.app import App, as_json, dry_run, pass_app
from glassq.cli.corrector import corrector
from glassq.cli.find import is_ours, look
from glassq.cli.jobs import Done, each_found, refused, report, whole
from glassq.delivery import Evidence, encode
from glassq.errors import JobNotFound
from glassq.lifecycle import after_bury, after_loss
from glassq.queues.beanstalk.receiver import BURY_DELAY
from glassq.worker.outcome import Kind

if TYPE_CHECKING:
    from glassq.cli.corrector import Corrector
    from glassq.cli.find import Found
    from glassq.delivery import Delivery
    from glassq.queues import Queue


@click.command()
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
@click.option("--reason", default="", metavar="WORDS", help="Why; whoever looks at it later reads it.")
@dry_run
@as_json
@pass_app
def bury(app: App, ids: tuple[str, ...], reason: str, dry_run: bool, as_json: bool) -> int:
    """Put deliveries aside that are ready or delayed: nobody works them until they are kicked."""
    why = f"by {app.operator()}: {reason}" if reason else f"by {app.operator()}"
    with app.queue() as queue, corrector(app) as ledger:
        found, missing = each_found(queue, app, ids)
        done = [_bury(queue, ledger, text, each, why, dry_run) for text, each in found]
    return report([*done, *missing], as_json)


def _bury(queue: Queue, ledger: Corrector, text: str, found: Found, why: str, dry_run: bool) -> Done:
    stats, name = found.stats, found.name or None
    if not is_ours(queue.tube, stats.tube):
        return refused(text, found, f"it is in tube {stats.tube}, which is not ours")
    if stats.state == "buried":
        return refused(text, found, "it lies buried already")
    if stats.state == "reserved":
        return refused(text, found, "a consumer works it right now: try again when that is over")
    if dry_run:
        return Done(text, found.job.id, name, "would be buried")
    try:
        if look(queue, found.job.id).job.body != found.job.body:
            return refused(text, found, "it is another delivery's job by now")
        with whole():
            holder = _put_aside(queue, found, found.delivery, why)
            ledger.held(found.delivery, holder, stats.tube)
    except JobNotFound:
        return refused(text, found, "it was worked or removed meanwhile")
    return Done(text, holder, name, "buried")


def _put_aside(queue: Queue, found: Found, delivery: Delivery | None, why: str) -> int:
    """The way a consumer buries; returns the id of the job that holds the delivery from now on.

    Dying between two steps leaves two jobs, never none. Raises JobNotFound where somebody else took the job meanwhile.
    """
    old, holder = found.job.id, found.job.id
    if delivery is not None:
        # first of all, so that a queue that takes no puts leaves everything as it is
        holder = queue.put(encode(_aside(delivery, found, why)), delay=BURY_DELAY, tube=found.stats.tube)
        try:
            queue.reserve_job(old)
        except JobNotFound:
            queue.delete(holder)
            raise
    queue.reserve_job(holder)
    queue.bury(holder)
    if holder != old:
        queue.delete(old, held=True)
    return holder


def _aside(delivery: Delivery, found: Found, why: str) -> Delivery:
    words = f"put aside {why}"
    evidence = Evidence(
        attempt=delivery.attempt,
        outcome=Kind.BURY.value,
        error="operator",
        message=words,
        at=datetime.now(UTC),
        duration=0.0,
        host=host.name(),
    )
    return after_bury(after_loss(delivery) if found.lost else delivery, words, evidence)
