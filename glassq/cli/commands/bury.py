"""`glassq bury`: a delivery is put aside before anybody works it."""

from __future__ import annotations

import click

from glassq.cli.app import App, as_json, dry_run, pass_app
from glassq.cli.report import tell
from glassq.operations import bury as operation
from glassq.operations.filters import Selection


@click.command()
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
@click.option("--reason", default="", metavar="WORDS", help="Why; whoever looks at it later reads it.")
@dry_run
@click.option("--yes", is_flag=True, expose_value=False, help="As for other commands; bury never asks.")
@as_json
@pass_app
def bury(app: App, ids: tuple[str, ...], reason: str, dry_run: bool, as_json: bool) -> int:
    """Put deliveries aside that are ready or delayed: nobody works them until they are kicked."""
    with app.operations.queue() as queue:
        with app.progress() as progress:
            plan = operation.plan(app.operations, queue, ids, progress)
        if dry_run:
            return tell(app, plan.preview(), as_json=as_json)
        with app.acting("bury", chosen=len(plan.chosen), filter_=Selection(ids=ids).typed) as progress:
            report = progress.came_to(operation.carry_out(app.operations, queue, plan, progress, reason))
    return tell(app, report, as_json=as_json)
