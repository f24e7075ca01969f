"""`glassq replay`: deliveries that are done, dropped or lost are put again, as new deliveries."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from glassq.cli.app import App, as_json, dry_run, examples, pass_app, yes
from glassq.cli.output import confirm
from glassq.cli.report import tell
from glassq.cli.selection import once, selection
from glassq.operations import replay as operation
from glassq.operations.pace import Pace, per_second
from glassq.operations.replay_plan import LOST, STATES, ReplayFilter
from glassq.operations.result import Did
from glassq.operations.words import deliveries

if TYPE_CHECKING:
    from glassq.operations.filters import Selection
    from glassq.operations.result import Report


@click.command(
    epilog=examples(
        ("after a route was added for what was dropped", "glassq replay --state dropped --where 'reason~no route'"),
        ("what a faulty handler did in the last hours, slowly", "glassq replay --newer-than 3h --rate 5/s"),
        ("what was buried or retried in a queue whose files are gone", "glassq replay --state lost"),
    )
)
@click.argument("ids", metavar="[ID]...", nargs=-1)
@once(
    "--state",
    type=click.Choice((*STATES, LOST)),
    help="Those in this state (with other filters: done); lost: neither over nor in the queue.",
)
@selection(ids=False, order="oldest", recorded=True)
@click.option("--rate", metavar="N/s", help='Not faster than this: "10/s", "30/m", "5/h".')
@click.option("--again", is_flag=True, help="Also those that were replayed before.")
@click.option("--from-step", default="", metavar="NAME", help="Begin with this step; the results before it are kept.")
@dry_run
@yes
@as_json
@pass_app
def replay(
    app: App,
    state: str | None,
    selection: Selection,
    rate: str | None,
    again: bool,
    from_step: str,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> int:
    """Put deliveries again that are done, dropped or lost: by id, or those that fit, the oldest first.

    Each becomes a new delivery with the same body, which is not dropped as a duplicate of what was done before; its
    label replay_of names the old one. Where its route has steps, all run again, unless --from-step names one. The
    ledger keeps the bodies ([ledger] keep_bodies).
    """
    asked = ReplayFilter(selection=selection, state=state, again=again, from_step=from_step)
    asked.check()
    pace = Pace(per_second(rate, "--rate") if rate else None)
    with app.operations.queue() as queue:
        with app.progress() as progress:
            plan = operation.plan(app.operations, queue, asked, progress)
        if dry_run:
            return tell(app, plan.preview(), _summary(asked, plan.preview(), "would be "), as_json=as_json, every=True)
        many = bool(plan.chosen and not selection.ids)
        confirm(f"replay {deliveries(len(plan.chosen))}?", needed=many and not yes)
        with app.acting("replay", chosen=len(plan.chosen), filter_=asked.typed) as progress:
            report = progress.came_to(operation.carry_out(app.operations, queue, plan, progress, pace, from_step))
    return tell(app, report, _summary(asked, report), as_json=as_json, every=bool(selection.ids))


def _summary(asked: ReplayFilter, report: Report, would_be: str = "") -> str:
    count = report.count(Did.REPLAYED)
    if count or asked.selection.ids or not report.complete:
        return f"{deliveries(count)} {would_be}replayed"
    return asked.nothing_found_text()
