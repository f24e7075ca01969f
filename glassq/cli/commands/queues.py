"""`glassq queues`: the queues as they are now; pausing, resuming and purging them."""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING

import click

from glassq.cli.app import App, as_json, dry_run, pass_app, yes
from glassq.cli.completion import push_queues as push_queue_names
from glassq.cli.completion import queues as queue_names
from glassq.cli.group import CommandGroup
from glassq.cli.output import confirm, console, line, print_hints, print_json, print_table, table
from glassq.cli.pause import tell_paused, tell_resumed
from glassq.operations import pause as pausing
from glassq.operations import purge as operation
from glassq.operations import push_queues, worker_queues
from glassq.operations.words import PAUSED_FOR_GOOD, span

if TYPE_CHECKING:
    from rich.console import Console

    from glassq.operations.purge import PurgeReport
    from glassq.operations.push_queues import PushQueueList, PushQueueRow
    from glassq.operations.worker_queues import WorkerQueueRow
    from glassq.push.purge import Purged
    from glassq.queues.base import TubeCounts


@click.group(cls=CommandGroup, invoke_without_command=True)
@as_json
@click.pass_context
def queues(context: click.Context, as_json: bool) -> None:
    """Queues of pings and push queues: how each is worked, and how much waits in it for what."""
    if context.invoked_subcommand is None:
        _list(context.find_object(App) or App(None, os.environ), as_json)


@queues.command()
@click.argument("names", metavar="NAME...", nargs=-1, required=True, shell_complete=queue_names)
@as_json
@pass_app
def pause(app: App, names: tuple[str, ...], as_json: bool) -> int:
    """Have nothing of these queues worked.

    It lasts until they are resumed, or the queue's server is restarted. What runs goes on.
    """
    push = app.operations.settings.push
    file = (push and push.queue_yaml) or "the queue.yaml that [push] queue_yaml names"
    lasting = f"what lasts for a push queue is rate: 0 in {file} and a reload of glassq-worker"
    with app.progress() as progress, app.operations.queue() as queue:
        tubes = worker_queues.chosen(app.operations, queue, progress, names)
        paused = pausing.pause(queue, tubes, queue.capabilities.max_delay)
        kept = queue.capabilities.keeps_pause
    app.has_done("pause", done=sum(paused.values()), filter_=shlex.join(names))
    return tell_paused("queue", "task", paused, lasting, as_json, kept=kept)


@queues.command()
@click.argument("names", metavar="NAME...", nargs=-1, required=True, shell_complete=queue_names)
@as_json
@pass_app
def resume(app: App, names: tuple[str, ...], as_json: bool) -> None:
    """Let paused queues go on."""
    with app.progress() as progress, app.operations.queue() as queue:
        resumed = pausing.resume(queue, worker_queues.chosen(app.operations, queue, progress, names))
    app.has_done("resume", done=sum(resumed.values()), filter_=shlex.join(names))
    tell_resumed("queue", resumed, as_json)
    push = app.operations.settings.push
    planned = push_queues.planned(app.operations).queues if push and not as_json else {}
    for name in resumed:
        if push and (limits := planned.get(name)) and not limits.rate:
            click.echo(f"! queue {line(name)} is not worked all the same: its rate is 0 in {push.queue_yaml}")


@queues.command()
@click.argument("name", metavar="NAME", shell_complete=push_queue_names)
@dry_run
@yes
@as_json
@pass_app
def purge(app: App, name: str, dry_run: bool, yes: bool, as_json: bool) -> int:
    """Delete what waits in a queue, for good.

    What lies buried is deleted too; what runs goes on. The names of its tasks stay taken for 9 days, as on App Engine.
    """
    with app.operations.queue() as queue:
        with app.progress() as progress:
            plan = operation.plan(app.operations, queue, push_queues.planned_or_warn(app.operations, progress), name)
            if plan.running and not plan.paused:
                hold = f"`glassq queues pause {shlex.quote(name)}` first holds them"
                progress.note(f"{_tasks(plan.running)} at work, and more may begin: {hold}")
        if dry_run:
            return _tell(plan.preview(), as_json)
        question = f"delete {_tasks(plan.total)} of queue {line(name)} for good ({_by_state(plan.waiting)})?"
        confirm(question, needed=plan.total > 0 and not yes)
        with app.acting("purge", chosen=plan.total, filter_=f"queue={name}") as progress:
            report = operation.carry_out(app.operations, queue, plan, progress)
            done = report.purged.deleted
            progress.counted(done=done, left=max(0, plan.total - done))
            if report.error is not None:
                progress.note(f"until then {_tasks(report.purged.deleted)} of queue {name} were deleted")
                raise report.error
    return _tell(report, as_json)


# -- as people read it -------------------------------------------------------------------------------------------------


def _list(app: App, as_json: bool) -> None:
    with app.progress() as progress, app.operations.looking() as queue:
        own = worker_queues.snapshot(app.operations, queue)
        found = None
        if app.operations.settings.push or not own:
            plan = push_queues.planned_or_warn(app.operations, progress)
            found = push_queues.snapshot(app.operations, queue, plan)
    if as_json:
        document = found.document() if found else {"queues": [], "note": "", "hints": []}
        print_json(app.adapt_hints({**document, "worker_queues": [row.document() for row in own]}))
        return
    out = console()
    if own:
        shares = ("queue", "sources", "weight", "children", "in flight", "backlog", "oldest", "delayed")
        print_table(out, table("", (*shares, "parked", "buried", "paused"), map(_share_cells, own)))
    if found:
        _print_pushed(app, out, found)


def _print_pushed(app: App, out: Console, found: PushQueueList) -> None:
    columns = ("queue", "rate", "bucket", "at once", "in flight", "backlog", "oldest", "retrying")
    print_table(out, table("", (*columns, "scheduled", "parked", "buried", "paused"), map(_cells, found.rows)))
    if any(row.at_once_is_default for row in found.rows):
        words = "where no max_concurrent_requests is set, one child less than all"
        out.print(f"at once {found.default_at_once}: {words}", style="dim")
    if found.note:
        out.print(f"retrying or scheduled is not known: {line(found.note)}", style="dim")
    print_hints(out, map(app.adapt, map(str, found.hints)))


def _cells(row: PushQueueRow) -> tuple[object, ...]:
    tube, unknown = row.tube, "?" if row.in_queue_yaml is None else "-"
    limits: tuple[object, ...] = (unknown, unknown, unknown)
    if row.planned:
        limits = (str(row.planned.rate) if row.planned.rate else "paused", row.planned.bucket_size, row.at_once)
    delayed = ("?", "?") if row.retrying is None else (row.retrying, row.scheduled)
    oldest = "-" if row.oldest is None else span(row.oldest)
    waits = (tube.ready, oldest, *delayed, row.parked or "-")
    return row.name, *limits, tube.reserved, *waits, tube.buried, _paused(tube)


def _share_cells(row: WorkerQueueRow) -> tuple[object, ...]:
    tube, settings = row.tube, row.settings
    share = (settings.weight, settings.children) if settings else ("gone", "-")
    oldest = "-" if row.oldest is None else span(row.oldest)
    sources = ", ".join(row.sources) or "-"
    waits = (tube.ready, oldest, tube.delayed, row.parked or "-")
    return row.name, sources, *share, tube.reserved, *waits, tube.buried, _paused(tube)


def _paused(tube: TubeCounts) -> str:
    return "paused" if tube.paused_for >= PAUSED_FOR_GOOD else span(tube.paused_for) if tube.paused_for else "-"


def _tell(report: PurgeReport, as_json: bool) -> int:
    done = report.purged
    if as_json:
        print_json(report.document())
    else:
        click.echo(f"queue {line(report.name)}: {'; '.join(_words(done, dry_run=report.dry_run))}")
    return int(done.untold > 0)


def _words(done: Purged, *, dry_run: bool) -> list[str]:
    total = sum(done.waiting.values())
    words = [
        f"{_tasks(total)} would be deleted ({_by_state(done.waiting)})"
        if dry_run
        else f"{_tasks(done.deleted)} deleted"
    ]
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
    return words


def _by_state(waiting: dict[str, int]) -> str:
    return ", ".join(f"{count} {state}" for state, count in waiting.items())


def _tasks(count: int) -> str:
    return "1 task" if count == 1 else f"{count} tasks"
