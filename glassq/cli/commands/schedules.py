"""`glassq schedules`: what is put by the clock; running it now, pausing and resuming it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from glassq.cli import completion
from glassq.cli.app import App, as_json, examples, pass_app
from glassq.cli.group import CommandGroup
from glassq.cli.output import console, line, print_hints, print_json, print_table, table
from glassq.operations.words import span

if TYPE_CHECKING:
    from datetime import datetime

    from glassq.operations.schedules import ScheduleRow


@click.group(
    cls=CommandGroup,
    invoke_without_command=True,
    epilog=examples(
        ("what is due when, and how it went last", "glassq schedules"),
        ("put a delivery now, as if it were time", "glassq schedules run nightly-report"),
        ("put nothing until it is resumed", "glassq schedules pause nightly-report"),
    ),
)
@as_json
@click.pass_context
def schedules(context: click.Context, as_json: bool) -> None:
    """Periodic work: when each schedule is due next, and what became of its last delivery."""
    if context.invoked_subcommand is None:
        _list(context.find_object(App) or App(None, os.environ), as_json)


@schedules.command()
@click.argument("name", metavar="NAME", shell_complete=completion.schedules)
@as_json
@pass_app
def run(app: App, name: str, as_json: bool) -> None:
    """Put a delivery of a schedule now, and say what became of it.

    The schedule's times stay as they are; a paused one is put as well.
    """
    from glassq.operations import schedules as operation

    with app.progress(stoppable=True) as progress:
        delivery = operation.run_now(app.operations, name, progress)
        app.has_done("schedules run", filter_=name)
        outcome = operation.follow(app.operations, delivery, progress)
    if as_json:
        told = {"schedule": name, "delivery": delivery.id, "tube": delivery.tube, "labels": delivery.labels}
        print_json({**told, "outcome": outcome.state if outcome else None, "result": outcome.result if outcome else ""})
        return
    click.echo(f"schedule {line(name)}: put delivery {delivery.id}")
    if outcome is None:
        hint = app.adapt(f"`glassq show {delivery.id}`")
        click.echo(f"not worked yet: {hint}")
    else:
        why = outcome.result or outcome.reason
        click.echo(line(f"{outcome.state}: {why}" if why else outcome.state))


@schedules.command()
@click.argument("names", metavar="NAME...", nargs=-1, required=True, shell_complete=completion.schedules)
@as_json
@pass_app
def pause(app: App, names: tuple[str, ...], as_json: bool) -> None:
    """Put nothing for these schedules, on any host, until they are resumed. What was put already goes on."""
    from glassq.operations import schedules as operation

    operation.pause(app.operations, names)
    app.has_done("schedules pause", done=len(names), filter_=" ".join(names))
    _tell(names, "paused", "is paused: nothing is put until `glassq schedules resume {name}`", as_json)


@schedules.command()
@click.argument("names", metavar="NAME...", nargs=-1, required=True, shell_complete=completion.schedules)
@as_json
@pass_app
def resume(app: App, names: tuple[str, ...], as_json: bool) -> None:
    """Let paused schedules go on. What was due meanwhile is not made up for."""
    from glassq.operations import schedules as operation

    operation.resume(app.operations, names)
    app.has_done("schedules resume", done=len(names), filter_=" ".join(names))
    _tell(names, "resumed", "goes on", as_json)


# -- as people read it -------------------------------------------------------------------------------------------------


def _tell(names: tuple[str, ...], done: str, words: str, as_json: bool) -> None:
    if as_json:
        print_json({"schedules": [{"schedule": name, done: True} for name in names]})
        return
    for name in names:
        click.echo(f"schedule {line(name)} {words.format(name=line(name))}")


def _list(app: App, as_json: bool) -> None:
    from glassq.operations import schedules as operation

    found = operation.snapshot(app.operations)
    if as_json:
        print_json(app.adapt_hints(found.document()))
        return
    out, now = console(), app.operations.clock()
    if not found.rows:
        out.print("there are no schedules: [[schedule]] with name and cron puts a delivery by the clock")
        return
    columns = ("schedule", "when", "zone", "next", "last", "outcome", "delivery")
    print_table(out, table("", columns, (_cells(row, now) for row in found.rows)))
    if found.note:
        out.print(f"what was put is not known: {line(found.note)}", style="dim")
    print_hints(out, map(app.adapt, map(str, found.hints)))


def _cells(row: ScheduleRow, now: datetime) -> tuple[object, ...]:
    following = "paused" if row.paused else "?" if row.next is None else f"in {span((row.next - now).total_seconds())}"
    last = "never by the clock" if row.last is None else f"{span((now - row.last).total_seconds())} ago"
    outcome = row.outcome or ("waiting" if row.delivery else "-")
    return row.name, row.said, row.zone, following, last, outcome, row.delivery or "-"
