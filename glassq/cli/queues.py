"""`glassq queues`: the push queues as they are now; pausing, resuming and purging them."""

from __future__ import annotations

import difflib
import os
import shlex
from contextlib import closing
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from glassq.cli.app import App, as_json, dry_run, pass_app, yes
from glassq.cli.completion import push_queues
from glassq.cli.corrector import corrector
from glassq.cli.output import confirm, each_of, line, print_json
from glassq.cli.pause import pause_tubes, resume_tubes, tell_paused, tell_resumed
from glassq.cli.queues_list import Plan, plan_or_warn, push_of, show
from glassq.errors import QueueError
from glassq.push import purge as purging
from glassq.push.names import open_names
from glassq.push.purge import Purged
from glassq.push.request import tube_of
from glassq.queues.beanstalk.protocol import MAX_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from glassq.delivery import Delivery
    from glassq.push.names import Names
    from glassq.queues import Inspector, Queue


@click.group(invoke_without_command=True)
@as_json
@click.pass_context
def queues(context: click.Context, as_json: bool) -> None:
    """Push queues: how fast each is worked, and how many of its tasks wait for what."""
    if context.invoked_subcommand is None:
        show(context.find_object(App) or App(None, os.environ), as_json)


@queues.command()
@click.argument("names", metavar="NAME...", nargs=-1, required=True, shell_complete=push_queues)
@as_json
@pass_app
def pause(app: App, names: tuple[str, ...], as_json: bool) -> int:
    """Have nothing of these queues worked.

    It lasts until they are resumed, or beanstalkd is restarted. What runs goes on.
    """
    file = push_of(app).queue_yaml or "the queue.yaml that [push] queue_yaml names"
    lasting = f"what lasts is rate: 0 in {file} and a reload of glassq-worker"
    plan = plan_or_warn(app)
    with app.queue() as queue:
        tubes = {name: tube_of(queue.tube, name) for name in _chosen(plan, queue, names)}
        paused = pause_tubes(queue, tubes, MAX_SECONDS)
    return tell_paused("queue", "task", paused, lasting, as_json)


@queues.command()
@click.argument("names", metavar="NAME...", nargs=-1, required=True, shell_complete=push_queues)
@as_json
@pass_app
def resume(app: App, names: tuple[str, ...], as_json: bool) -> None:
    """Let paused queues go on."""
    plan, file = plan_or_warn(app), push_of(app).queue_yaml
    with app.queue() as queue:
        resumed = resume_tubes(queue, {name: tube_of(queue.tube, name) for name in _chosen(plan, queue, names)})
    tell_resumed("queue", resumed, as_json)
    for name in resumed if not as_json else ():
        if (planned := plan.queues.get(name)) and not planned.rate:
            click.echo(f"! queue {line(name)} is not worked all the same: its rate is 0 in {file}")


@queues.command()
@click.argument("name", metavar="NAME", shell_complete=push_queues)
@dry_run
@yes
@as_json
@pass_app
def purge(app: App, name: str, dry_run: bool, yes: bool, as_json: bool) -> int:
    """Delete what waits in a queue, for good.

    What lies buried is deleted too; what runs goes on. The names of its tasks stay taken for 9 days, as on App Engine.
    """
    plan = plan_or_warn(app)
    with closing(open_names(push_of(app))) as names, app.queue() as queue, app.operations.queue() as inspector:
        _chosen(plan, queue, [name])
        (before,) = inspector.counts([tube_of(queue.tube, name)])
        done = Purged.of(before)
        if before.reserved and not before.paused_for:
            pause = app.command(f"queues pause {shlex.quote(name)}")
            click.echo(
                f"glassq: {_tasks(before.reserved)} at work, and more may begin: {pause} first holds them", err=True
            )
        if dry_run:
            _say(name, done, as_json, dry_run=True)
            return 0
        total = sum(done.waiting.values())
        words = f"delete {_tasks(total)} of queue {line(name)} for good ({_by_state(done)})?"
        confirm(words, needed=total > 0 and not yes)
        try:
            with corrector(app) as ledger:
                why = f"by {app.operator()}, who purged queue {name}"
                tube = before.name
                _purge(inspector, tube, names, total, done, lambda delivery: ledger.deleted(delivery, why))
        except QueueError:
            click.echo(f"glassq: until then {_tasks(done.deleted)} of queue {line(name)} were deleted", err=True)
            raise
        (after,) = inspector.counts([before.name])
        done.running = after.reserved
    _say(name, done, as_json)
    return int(done.untold > 0)


def _chosen(plan: Plan, queue: Queue, names: Sequence[str]) -> list[str]:
    """The names, each once. Raises click.UsageError where there is no such queue, and then no other is touched."""
    known = plan.names(queue)
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {line(close[0])}?" if close else f"there are: {line(', '.join(known)) or 'none'}"
            raise click.UsageError(f"there is no queue {line(name)}; {hint}")
    return list(dict.fromkeys(names))


def _purge(
    inspector: Inspector,
    tube: str,
    names: Names,
    most: int,
    done: Purged,
    deleted: Callable[[Delivery], None] = lambda _: None,
) -> None:
    # it ends before the names' database is closed, which it writes to in the end
    with closing(purging.purge(inspector, tube, names, done, deleted)) as steps:
        for _ in each_of(steps, "deleting", most):
            pass


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
    if done.untold:
        taken = "1 name stays taken as that of a living task"
        if done.untold > 1:
            taken = f"{done.untold} names stay taken as those of living tasks"
        words.append(f"{taken}: [push] names cannot be written")
    click.echo(f"queue {line(name)}: {'; '.join(words)}")


def _by_state(done: Purged) -> str:
    return ", ".join(f"{count} {state}" for state, count in done.waiting.items())


def _tasks(count: int) -> str:
    return "1 task" if count == 1 else f"{count} tasks"
