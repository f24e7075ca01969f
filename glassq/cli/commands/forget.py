"""`glassq forget`: all that is kept of the deliveries with some labels is removed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from glassq.cli.app import App, as_json, dry_run, examples, pass_app, yes
from glassq.cli.completion import sources
from glassq.cli.output import confirm, line
from glassq.cli.report import tell
from glassq.operations import forget as operation
from glassq.operations.words import deliveries

if TYPE_CHECKING:
    from glassq.operations.forget import Places
    from glassq.operations.result import Report


@click.command(
    epilog=examples(
        ("how much is kept of a customer, and where", "glassq forget label.customer=cus_4711 --dry-run"),
        ("remove it, of one source alone", "glassq forget label.customer=cus_4711 source=stripe"),
    )
)
@click.argument("conditions", metavar="label.NAME=VALUE...", nargs=-1, required=True)
@click.option("--source", metavar="NAME", shell_complete=sources, help="Only of this source (or source=NAME).")
@click.option(
    "--archive",
    "archives",
    metavar="PATH",
    multiple=True,
    type=click.Path(exists=True, path_type=Path),
    help="Look into this archive, or directory of archives, as well; several times.",
)
@dry_run
@yes
@as_json
@pass_app
def forget(
    app: App,
    conditions: tuple[str, ...],
    source: str | None,
    archives: tuple[Path, ...],
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> int:
    """Remove all that is kept of the deliveries with these labels, whatever state they are in.

    They go from the queue, the intake journal, the ledger, the stored bodies and the archives, for good. It says how
    many are where before it asks. One that is being worked stays: run it again when that is over. [sources.NAME] labels
    makes labels of what a ping holds, such as a customer's id.
    """
    asked = operation.wanted(conditions, source)
    with app.operations.queue() as queue:
        with app.progress() as progress:
            plan = operation.plan(app.operations, queue, asked, progress, archives)
        if dry_run or not (plan.places.total or plan.results):
            return _tell(app, plan.preview(), plan.places, as_json, planned=True)
        if not as_json or not yes:
            click.echo(line(f"found: {_where(plan.places)}"), err=True)
        confirm("remove all of it for good?", needed=not yes)
        # not of whom: that is to be forgotten as well
        names = " ".join(f"label.{name}=***" for name, _ in asked.labels)
        with app.acting(
            "forget", chosen=plan.places.total, filter_=names, command=f"glassq forget {names}"
        ) as progress:
            report = progress.came_to(operation.carry_out(app.operations, queue, plan, progress))
    return _tell(app, report, report.places, as_json)


def _tell(app: App, report: Report, places: Places, as_json: bool, *, planned: bool = False) -> int:
    nothing = "nothing with these labels was found"
    words = f"{'would be removed' if planned else 'removed'}: {_where(places)}" if places.total else nothing
    beyond = ["this cannot reach:", *(f"  {each}" for each in operation.BEYOND)]
    told = places.document()
    return tell(app, report, words, *beyond, as_json=as_json, every=False, places=told, beyond=operation.BEYOND)


def _where(places: Places) -> str:
    parts = {"in the queue": places.queue, "in the journal": places.journal, "in the ledger": places.ledger}
    parts["in the store of bodies"] = places.bodies
    parts |= {f"in {path}": count for path, count in places.archives.items()}
    return ", ".join(f"{deliveries(count)} {where}" for where, count in parts.items() if count) or "nothing"
