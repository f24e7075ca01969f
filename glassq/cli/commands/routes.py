"""`glassq routes`: which handler gets what; where a saved ping would go."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click
import msgspec

from glassq.cli import completion
from glassq.cli.app import App, as_json, pass_app
from glassq.cli.files import read_input
from glassq.cli.group import CommandGroup
from glassq.cli.output import console, line, print_json, print_table, table
from glassq.operations import parked
from glassq.operations import routes as operation
from glassq.settings import MAX_BODY

if TYPE_CHECKING:
    from glassq.operations.routes import RouteRow, RouteTrial


@click.group(cls=CommandGroup, invoke_without_command=True)
@as_json
@click.pass_context
def routes(context: click.Context, as_json: bool) -> None:
    """Which handler gets what: the first route that matches, from the top."""
    if context.invoked_subcommand is None:
        _list(context.find_object(App) or App(None, os.environ), as_json)


@routes.command()
@click.argument("source", metavar="SOURCE", shell_complete=completion.sources)
@click.argument("file", metavar="FILE|-", shell_complete=completion.files)
@as_json
@pass_app
def test(app: App, source: str, file: str, as_json: bool) -> int:
    """Say where a ping would go, and why not elsewhere.

    FILE is a saved request (head and body), or the body alone; then labels that stand in headers are missing. Whether
    it is genuine, `glassq sources test` says. Exit 1 if no route takes it.
    """
    found = operation.trial(app.operations, source, read_input(file, 2 * MAX_BODY))
    if as_json:
        print_json(found.document())
    else:
        _tell(found)
    return int(found.chosen is None)


# -- as people read it -------------------------------------------------------------------------------------------------


def _list(app: App, as_json: bool) -> None:
    rows, paused = operation.listing(app.operations.settings), parked.paused(app.operations)
    if as_json:
        known = [msgspec.structs.asdict(each) for each in paused]
        print_json({"routes": [row.document() for row in rows], "paused": known})
        return
    out = console()
    if not rows:
        out.print("the settings have no route ([[routes]])")
        return
    columns = ("route", "name", "source", "takes", "handler", "limits")
    print_table(out, table("", columns, map(_cells, rows), wraps="takes"))
    for row in rows:
        if row.never:
            out.print(f"! route {row.number + 1}: {line(row.never)}")
    for each in paused:
        out.print(f"! {line(parked.words_of(app.operations, each))}")


def _cells(row: RouteRow) -> tuple[object, ...]:
    wanted = row.route.conditions.items()
    takes = ", ".join(f"{name} = {operation.words_of(value)}" for name, value in wanted) or "all"
    limits = " ".join(f"{key}={value}" for key, value in row.limits.items()) or "-"
    return row.number + 1, row.route.name, row.route.source, takes, row.route.work, limits


def _tell(found: RouteTrial) -> None:
    for remark in found.remarks:
        click.echo(f"! {line(remark)}")
    labels = " ".join(f"{name}={value}" for name, value in found.labels.items()) or "none"
    click.echo(f"labels: {line(labels)}")
    if found.unread:
        click.echo(f"not to be read: {line(', '.join(found.unread))}")
    for each in found.tried:
        row, first = each.row, each.row is found.chosen
        verdict = each.why_not or ("takes it" if first else "would take it, if it came first")
        click.echo(f"route {row.number + 1} ({line(str(row.route.work))}): {line(verdict)}")
    chosen = found.chosen
    end = f"goes to {chosen.route.work}" if chosen else 'is dropped as "no route"'
    click.echo(f"a ping of {line(found.source)} with these labels waits in tube {line(found.tube)} and {line(end)}")
