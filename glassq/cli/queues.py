"""`glassq queues`: the push queues as they are now; pausing, resuming and purging them."""

from __future__ import annotations

import difflib
import os
import sys
import time
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import click

from glassq.cli.app import App, as_json, pass_app
from glassq.cli.jobs import _ask, dry_run, yes
from glassq.cli.output import PATIENCE, line, print_json
from glassq.cli.queues_list import left_over, planned_queues, push_of, show
from glassq.delivery import decode
from glassq.errors import DamagedDelivery, JobNotFound, QueueError
from glassq.ledger.names import open_names
from glassq.push.request import SOURCE, tube_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from rich.progress import Progress

    from glassq.delivery import Delivery
    from glassq.ledger.names import Names
    from glassq.push.queue_yaml import PushQueue
    from glassq.queues import Job, Queue
    from glassq.queues.base import Waiting

# As long as the protocol allows, in seconds: 136 years.
FOR_EVER = (1 << 32) - 1
# What a purge takes, in an order in which little escapes it: what was delayed may be ready meanwhile, and what was
# worked may lie buried.
PURGED: tuple[Waiting, ...] = ("delayed", "ready", "buried")


@dataclass(slots=True)
class Purged:
    """What became of a queue's tasks. `waiting` are those that were there, by state; `running` those that are worked.

    Of the `deleted` ones `damaged` could not be read; `taken` were worked, or deleted by others, meanwhile.
    """

    waiting: dict[str, int]
    deleted: int = 0
    damaged: int = 0
    taken: int = 0
    running: int = 0


@click.group(invoke_without_command=True)
@as_json
@click.pass_context
def queues(context: click.Context, as_json: bool) -> None:
    """Push queues: how fast each is delivered, and how many of its tasks wait for what."""
    if context.invoked_subcommand is None:
        show(context.find_object(App) or App(None, os.environ), as_json)


@queues.command()
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@as_json
@pass_app
def pause(app: App, names: tuple[str, ...], as_json: bool) -> int:
    """Deliver nothing of these queues until they are resumed, or beanstalkd is restarted. What runs goes on."""
    file = push_of(app).queue_yaml or "the queue.yaml that [push] queue_yaml names"
    lasting = f"what lasts is rate: 0 in {file} and a reload of glassq-worker"
    planned = planned_queues(app)
    with app.queue() as queue:
        chosen = _chosen(planned, queue, names)
        paused = {name: queue.pause(FOR_EVER, tube_of(queue.tube, name)) for name in chosen}
    if as_json:
        print_json({"queues": [{"queue": name, "paused": done} for name, done in paused.items()]})
    for name, done in paused.items():
        if not done:
            nothing = "beanstalkd has nothing to pause: it holds no task, and no glassq-worker waits on it"
            click.echo(f"glassq: queue {line(name)}: {nothing}; {lasting}", err=True)
        elif not as_json:
            click.echo(f"queue {line(name)} is paused: what runs goes on, the rest waits")
    if any(paused.values()) and not as_json:
        ends = "beanstalkd forgets it when it is restarted, and perhaps while a queue holds no task"
        click.echo(f"! {ends}; {lasting}")
    return int(not all(paused.values()))


@queues.command()
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@as_json
@pass_app
def resume(app: App, names: tuple[str, ...], as_json: bool) -> None:
    """Let paused queues go on."""
    planned, file = planned_queues(app), push_of(app).queue_yaml
    resumed = {}
    with app.queue() as queue:
        for name in _chosen(planned, queue, names):
            tube = tube_of(queue.tube, name)
            resumed[name] = queue.stats_tube(tube).paused_for > 0 and queue.pause(0, tube)
    if as_json:
        print_json({"queues": [{"queue": name, "resumed": done} for name, done in resumed.items()]})
        return
    for name, done in resumed.items():
        click.echo(f"queue {line(name)} " + ("goes on" if done else "was not paused"))
        if (plan := planned.get(name)) and not plan.rate:
            click.echo(f"! it is not delivered all the same: its rate is 0 in {file}")


@queues.command()
@click.argument("name", metavar="NAME")
@dry_run
@yes
@as_json
@pass_app
def purge(app: App, name: str, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Delete what waits in a queue, and what lies buried, for good. What runs goes on.

    The names of its tasks stay taken for 9 days, as on App Engine.
    """
    planned = planned_queues(app)
    with closing(open_names(push_of(app))) as names, app.queue() as queue:
        _chosen(planned, queue, [name])
        before = queue.stats_tube(tube_of(queue.tube, name))
        counts = {state: getattr(before, state) for state in ("ready", "delayed", "buried")}
        done = Purged(counts, running=before.reserved)
        if dry_run:
            return _say(name, done, as_json, dry_run=True)
        total = sum(counts.values())
        words = f"delete {_tasks(total)} of queue {line(name)} for good ({_by_state(done)})?"
        _ask(words, needed=total > 0 and not yes)
        try:
            _purge(queue, name, names, total, done)
        except QueueError:
            click.echo(f"glassq: until then {_tasks(done.deleted)} of queue {line(name)} were deleted", err=True)
            raise
        done.running = queue.stats_tube(before.name).reserved
    return _say(name, done, as_json)


def _chosen(planned: Mapping[str, PushQueue], queue: Queue, names: Sequence[str]) -> list[str]:
    """The names, each once. Raises click.UsageError where there is no such queue, and then no other is touched."""
    known = [*planned, *left_over(queue, planned)]
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {line(close[0])}?" if close else f"there are: {line(', '.join(known))}"
            raise click.UsageError(f"there is no queue {line(name)}; {hint}")
    return list(dict.fromkeys(names))


def _purge(queue: Queue, name: str, names: Names, most: int, done: Purged) -> None:
    """Deletes up to `most` jobs: others may put new ones for as long as it takes."""
    for job in _shown(_heads(queue, tube_of(queue.tube, name), most), most):
        delivery = _readable(job)
        try:
            queue.delete(job.id)
        except JobNotFound:
            done.taken += 1
            continue
        done.deleted += 1
        done.damaged += delivery is None
        # one that its author did not name bears its delivery's id
        task = delivery.labels.get("task", "") if delivery is not None and delivery.source == SOURCE else ""
        if delivery is not None and task not in ("", delivery.id):
            names.gone(delivery.labels.get("queue", name), task)


def _readable(job: Job) -> Delivery | None:
    try:
        return decode(job.body)
    except DamagedDelivery:
        return None


def _heads(queue: Queue, tube: str, most: int) -> Iterator[Job]:
    """The first job again and again, whoever removes it; `most` in all."""
    for state in PURGED:
        while most and (job := queue.head(state, tube)) is not None:
            most -= 1
            yield job


def _shown(jobs: Iterator[Job], total: int) -> Iterator[Job]:
    """The same jobs; on a terminal, standard error shows how far it is once that takes a while."""
    started, bar = time.monotonic(), None
    try:
        for number, job in enumerate(jobs):
            if bar is not None:
                bar.update(bar.task_ids[0], completed=number)
            elif time.monotonic() - started > PATIENCE and sys.stderr.isatty():
                bar = _bar(total)
            yield job
    finally:
        if bar is not None:
            bar.stop()


def _bar(total: int) -> Progress:
    from rich.console import Console
    from rich.progress import Progress

    bar = Progress(console=Console(stderr=True), transient=True)
    bar.add_task("deleting", total=total)
    bar.start()
    return bar


def _say(name: str, done: Purged, as_json: bool, *, dry_run: bool = False) -> None:
    if as_json:
        print_json({"queue": name, "dry_run": dry_run, **asdict(done)})
        return
    total = sum(done.waiting.values())
    words = [f"{_tasks(total)} would be deleted ({_by_state(done)})" if dry_run else f"{_tasks(done.deleted)} deleted"]
    if done.damaged:
        words[0] += f", {done.damaged} of them damaged"
    if done.taken:
        words.append(f"{done.taken} worked, or deleted by others, meanwhile")
    if done.running:
        words.append(f"{done.running} at work now, which goes on")
    click.echo(f"queue {line(name)}: {'; '.join(words)}")


def _by_state(done: Purged) -> str:
    return ", ".join(f"{count} {state}" for state, count in done.waiting.items())


def _tasks(count: int) -> str:
    return "1 task" if count == 1 else f"{count} tasks"
