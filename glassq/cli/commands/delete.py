"""`glassq delete`: deliveries are removed for good."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from glassq.cli.app import App, as_json, dry_run, examples, pass_app, yes
from glassq.cli.output import confirm, line
from glassq.cli.report import tell
from glassq.cli.selection import selection
from glassq.operations import delete as operation
from glassq.operations.filters import nothing_found_text
from glassq.operations.words import deliveries, span

if TYPE_CHECKING:
    from glassq.operations.delete import DeletePlan
    from glassq.operations.filters import Selection


@click.command(
    epilog=examples(
        ("one, whatever state it is in", "glassq delete 0198c2a4-7d10"),
        ("buried ones that nobody will mend any more", "glassq delete --where 'error~410' --older-than 30d"),
    )
)
@selection()
@click.option("--lost", is_flag=True, help="Those that the queue has lost: the ledger no longer has them as waiting.")
@dry_run
@yes
@as_json
@pass_app
def delete(app: App, selection: Selection, lost: bool, dry_run: bool, yes: bool, as_json: bool) -> int:
    """Remove deliveries for good: by id, whatever state they are in (but not while one is being worked), or the buried
    ones that fit. Of one that the queue has lost only the ledger knows; there it counts as deleted then."""
    with app.operations.queue() as queue:
        with app.progress() as progress:
            plan = operation.plan(app.operations, queue, selection, progress, lost=lost)
        empty = "the queue has lost nothing" if lost else nothing_found_text(selection.filter)
        if dry_run:
            return tell(app, plan.preview(), as_json=as_json, empty=empty)
        if plan.count and not yes:
            if not selection.bulk:
                _name(plan)
            confirm(f"delete {deliveries(plan.count)} for good?", needed=True)
        with app.acting("delete", chosen=plan.count, filter_="lost" if lost else selection.typed) as progress:
            report = progress.came_to(operation.carry_out(app.operations, queue, plan, progress))
    return tell(app, report, as_json=as_json, empty=empty)


def _name(plan: DeletePlan) -> None:
    """Says which deliveries these are, before the question."""
    for each in plan.chosen:
        name = f"delivery {each.delivery}" if each.delivery else "damaged"
        click.echo(line(f"job {each.ref}, {name}: {each.state}, {span(each.age)} old"), err=True)
    for _, name in plan.lost:
        click.echo(f"delivery {line(name)}: not in the queue", err=True)
