"""`glassq kick`: buried deliveries are worked again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from glassq.cli.app import App, as_json, dry_run, examples, pass_app, yes
from glassq.cli.output import confirm
from glassq.cli.report import tell
from glassq.cli.selection import selection
from glassq.operations import kick as operation
from glassq.operations.filters import duration, nothing_found_text
from glassq.operations.pace import Pace, per_second
from glassq.operations.words import deliveries

if TYPE_CHECKING:
    from glassq.operations.filters import Selection


@click.command(
    epilog=examples(
        ("one, by its delivery's id or the beginning of that", "glassq kick 0198c2a4-7d10"),
        ("one, then ten, then the rest; stops when they fail again", "glassq kick --all --canary"),
        ("all of one cause, and what comes of them", "glassq kick --group 3f2a9c81d0e4 --follow"),
        ("the target is up again, and shall not be flooded", "glassq kick --where 'error~503' --rate 10/s"),
        ("which ones would that be?", "glassq kick --source mirror --older-than 2h --dry-run"),
    )
)
@selection(everything="Every buried delivery, those of push queues too.")
@click.option("--rate", metavar="N/s", help='Not faster than this: "10/s", "30/m", "5/h".')
@click.option("--canary", is_flag=True, help="First one, then ten, then the rest; stop when they fail again.")
@click.option("--follow", is_flag=True, help="Wait for the outcomes. Ctrl-C ends the waiting, not the work.")
@click.option(
    "--wait",
    metavar="DURATION",
    default="15m",
    show_default=True,
    help="How long --canary and --follow wait for outcomes.",
)
@dry_run
@yes
@as_json
@pass_app
def kick(
    app: App,
    selection: Selection,
    rate: str | None,
    canary: bool,
    follow: bool,
    wait: str,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> int:
    """Have buried deliveries worked again (retried), with a fresh budget of attempts: by id, all, or those that fit."""
    pace = Pace(per_second(rate, "--rate") if rate else None, canary, follow, duration("--wait", wait))
    operation.check(selection, pace)
    with app.operations.queue() as queue:
        with app.progress() as progress:
            plan = operation.plan(app.operations, queue, selection, progress, Pace() if dry_run else pace)
        empty = nothing_found_text(selection.filter)
        if dry_run:
            return tell(app, plan.preview(), as_json=as_json, empty=empty)
        confirm(f"kick {deliveries(len(plan.chosen))}?", needed=bool(plan.chosen and selection.bulk and not yes))
        with app.acting("kick", chosen=len(plan.chosen), filter_=selection.typed) as progress:
            report = progress.came_to(operation.carry_out(app.operations, queue, plan, progress, pace))
    return tell(app, report, as_json=as_json, empty=empty)
