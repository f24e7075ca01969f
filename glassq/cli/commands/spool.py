"""`glassq spool`: what intake keeps on disk while the queue cannot take it."""

from __future__ import annotations

import os
from dataclasses import asdict

import click

from glassq.cli.app import App, as_json, pass_app
from glassq.cli.group import CommandGroup
from glassq.cli.output import console, facts, print_json
from glassq.operations import spool as operation
from glassq.operations.words import span


@click.group(cls=CommandGroup, invoke_without_command=True)
@as_json
@click.pass_context
def spool(context: click.Context, as_json: bool) -> None:
    """What intake keeps on disk while the queue cannot take it. It drains by itself when the queue is back."""
    if context.invoked_subcommand is None:
        _list(context.find_object(App) or App(None, os.environ), as_json)


def _list(app: App, as_json: bool) -> None:
    directory = app.settings.intake.journal
    opened = operation.open_spool(app.operations)
    found = opened.look() if opened else None
    if as_json:
        print_json({"directory": directory, **(asdict(found) if found else {}), "exists": found is not None})
        return
    out = console()
    if found is None:
        out.print(f"no spool at {directory}: nothing was ever kept there")
        return
    rows: list[tuple[str, object]] = [
        ("spool", directory),
        ("deliveries", found.count),
        ("size", f"{found.size} bytes of at most {app.settings.intake.journal_max}"),
        ("oldest", f"received {span(found.oldest)} ago" if found.count else "none"),
        ("damaged", found.damaged),
    ]
    out.print(facts(rows))
    if found.damaged:
        out.print(f"! {found.damaged} set aside: look at {directory}/damaged", style="yellow")
    if found.count:
        out.print(f"! glassq-web puts them into the queue once that takes them; {app.command('spool drain')} tries now")


@spool.command()
@as_json
@pass_app
def drain(app: App, as_json: bool) -> int:
    """Put what lies in the spool into the queue, oldest first, now."""
    with app.progress(stoppable=True) as progress:
        came_to = operation.drain(app.operations, progress)
    if as_json:
        print_json(came_to.document())
    elif not came_to.before:
        click.echo("the spool is empty")
    else:
        click.echo(f"{came_to.drained} put into the queue, {came_to.left} left, {came_to.damaged} damaged in all")
    if came_to.error is not None:
        raise came_to.error
    if came_to.left and not came_to.drained:
        click.echo("glassq: another process drains it at this moment, or its files cannot be read", err=True)
    return int(came_to.left > 0)
