"""`glassq journal`: what intake keeps on disk itself until the queue has it."""

from __future__ import annotations

import os
from dataclasses import asdict

import click

from glassq.cli.app import App, as_json, pass_app
from glassq.cli.group import CommandGroup
from glassq.cli.output import console, line, print_facts, print_json, print_table, table
from glassq.operations import journal as operation
from glassq.operations.words import span
from glassq.values import Size


@click.group(cls=CommandGroup, invoke_without_command=True)
@as_json
@click.pass_context
def journal(context: click.Context, as_json: bool) -> None:
    """What intake keeps on disk while the queue cannot take it: the intake journal. It moves on by itself.

    The spool of older versions is what the journal is now.
    """
    if context.invoked_subcommand is None:
        _look(context.find_object(App) or App(None, os.environ), as_json)


def _look(app: App, as_json: bool) -> None:
    directory = app.settings.intake.journal
    opened = operation.open_journal(app.operations)
    found = opened.look() if opened else None
    if as_json:
        print_json({"directory": directory, **(asdict(found) if found else {}), "exists": found is not None})
        return
    out = console()
    if found is None and (words := operation.gone(app.operations)):
        out.print(f"! {words}: {operation.GONE_TODO}", style="yellow")
        return
    if found is None:
        out.print(f"no journal at {directory}: nothing was ever kept there")
        return
    rows: list[tuple[str, object]] = [
        ("journal", directory),
        ("deliveries", found.count),
        ("on disk", f"{_mebibytes(found.size)} of at most {app.settings.intake.journal_max}"),
        ("oldest", f"received {span(found.oldest)} ago" if found.count else "none"),
        ("damaged", found.damaged),
        ("refused", found.refused),
        *([("bodies to store", found.bodies)] if found.bodies else []),
    ]
    print_facts(out, rows)
    if found.damaged:
        out.print(f"! {found.damaged} set aside in {directory}/damaged: {app.command('journal check')}", style="yellow")
    if found.refused:
        out.print(f"! {found.refused} too big for the queue: look at {directory}/refused", style="yellow")
    if found.count:
        again = app.command("journal move-on")
        out.print(f"! glassq-web puts them into the queue once that takes them; {again} tries now")


def _mebibytes(size: int) -> str:
    return f"{size / (1 << 20):.1f} MiB" if size % (1 << 20) else str(Size(size))


@journal.command("move-on")
@as_json
@pass_app
def move_on(app: App, as_json: bool) -> int:
    """Put what is in the journal into the queue, oldest first, now."""
    with app.progress(stoppable=True) as progress:
        came_to = operation.move_on(app.operations, progress)
    app.has_done("journal move-on", done=came_to.moved)
    if as_json:
        print_json(came_to.document())
    elif not came_to.before:
        click.echo("the journal is empty")
    else:
        aside = f"{came_to.damaged} damaged and {came_to.refused} refused in all"
        click.echo(f"{came_to.moved} put into the queue, {came_to.left} left, {aside}")
    if came_to.error is not None:
        raise came_to.error
    if came_to.left and not came_to.moved:
        click.echo("glassq: another process moves it on at this moment, or still writes it", err=True)
    return int(came_to.left > 0)


# The name of the last release, for one more.
journal.add_command(click.Command("drain", hidden=True, callback=move_on.callback, params=move_on.params))


@journal.command()
@as_json
@pass_app
def check(app: App, as_json: bool) -> int:
    """Read every file of the journal, and the large bodies that it names, and say what is there.

    Exit code 1 if something is damaged or lost. Nothing is changed.
    """
    with app.progress() as progress:
        found = operation.check(app.operations, progress)
    wrong = int(bool(found.damaged or found.bodiless))
    if as_json:
        print_json(found.document())
        return wrong
    rows = [
        (file.file, file.deliveries, file.left, file.damage or ("in use, not checked" if file.in_use else "good"))
        for file in found.files
    ]
    if rows:
        print_table(console(), table("", ("file", "deliveries", "to move on", "content"), rows))
    else:
        click.echo("the journal has no files")
    for why in found.bodiless:
        click.echo(line(f"{why}: its delivery will be buried when it is worked"), err=True)
    return wrong
