"""`glassq bodies`: the store of large bodies."""

from __future__ import annotations

import os

import click

from glassq.bodies.base import NO_LIMIT
from glassq.cli.app import App, as_json, pass_app
from glassq.cli.group import CommandGroup
from glassq.cli.output import console, print_facts, print_json
from glassq.operations import bodies as operation
from glassq.operations.words import span


@click.group(cls=CommandGroup, invoke_without_command=True)
@as_json
@click.pass_context
def bodies(context: click.Context, as_json: bool) -> None:
    """Large bodies, which are in a store of their own and not in the queue.

    A body goes when its job does. The pool sweeps by itself what a crash has left over.
    """
    if context.invoked_subcommand is None:
        _look(context.find_object(App) or App(None, os.environ), as_json)


def _look(app: App, as_json: bool) -> None:
    seen = operation.view(app.operations)
    if as_json:
        print_json(seen.document())
        return
    out = console()
    if not seen.exists:
        out.print(f"no bodies at {seen.url}: nothing large was ever taken")
        return
    found = seen.found
    rows: list[tuple[str, object]] = [
        ("store", seen.url),
        ("of jobs", f"{found.live}, {_mebibytes(found.live_bytes)}"),
        ("longest untouched", span(found.oldest) if found.live else "none"),
        ("done, for a replay", f"{found.done}, {_mebibytes(found.done_bytes)}"),
        ("being received", f"{found.unfinished}, {_mebibytes(found.unfinished_bytes)}"),
        ("room", "not known here" if seen.room == NO_LIMIT else _mebibytes(seen.room)),
    ]
    print_facts(out, rows)


def _mebibytes(size: int) -> str:
    return f"{size / (1 << 20):.1f} MiB"


@bodies.command()
@as_json
@pass_app
def sweep(app: App, as_json: bool) -> int:
    """Remove now what no job names and no replay needs. This looks at every job, as the pool does every six hours."""
    with app.operations.queue() as queue, app.progress() as progress:
        swept = operation.sweep(app.operations, queue, progress)
    app.has_done("bodies sweep", done=swept.removed + swept.orphans)
    if as_json:
        print_json(swept._asdict())
    elif swept.unsure and not swept.looked:
        click.echo(f"{swept.removed} removed; whether others are needed cannot be told now: {swept.unsure}")
    else:
        click.echo(f"{swept.removed} removed, {swept.orphans} put aside that no job names")
        if swept.unsure:
            click.echo(f"left: {swept.unsure}")
    return 1 if swept.unsure else 0
