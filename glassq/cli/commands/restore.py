"""`glassq restore`: archived deliveries go back into the queue, buried as they were."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import click

from glassq.cli.app import App, as_json, dry_run, pass_app, yes
from glassq.cli.output import confirm
from glassq.cli.report import tell
from glassq.operations import restore as operation
from glassq.operations.result import Did
from glassq.operations.words import deliveries


@click.command()
@click.argument(
    "files", metavar="FILE...", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
@click.option("--skip-damaged", is_flag=True, help="From a damaged file, restore the jobs that are whole.")
@click.option("--again", is_flag=True, help="Also those that were worked since, as the ledger knows.")
@dry_run
@yes
@as_json
@pass_app
def restore(
    app: App, files: tuple[Path, ...], skip_damaged: bool, again: bool, dry_run: bool, yes: bool, as_json: bool
) -> int:
    """Put archived deliveries back into the queue, buried as they were; the files stay as they are.

    Each file is checked as a whole first: nothing is restored from a damaged file. A delivery that the queue still
    holds, or that was worked since, is left out, so the same file can be restored twice without duplicates.
    """
    with nullcontext() if dry_run else operation.locked(files), app.operations.queue() as queue:
        with app.progress() as progress:
            if not dry_run:
                # A queue that takes no jobs says so now, and not after a long search.
                queue.check(aside=True)
            plan = operation.plan(app.operations, queue, files, progress, skip_damaged=skip_damaged, again=again)
        count = deliveries(len(plan.jobs))
        if dry_run:
            code = tell(app, plan.preview(), f"{count} would be restored", as_json=as_json, every=bool(plan.jobs))
            return code or int(bool(plan.damage))
        confirm(f"put {count} back, buried?", needed=bool(plan.jobs) and not yes)
        with app.acting("restore", chosen=len(plan.jobs), filter_=" ".join(map(str, files))) as progress:
            report = progress.came_to(operation.carry_out(app.operations, queue, plan, progress))
    restored = report.count(Did.RESTORED)
    hint = "Look at them with `glassq buried`, have one worked again with `glassq kick ID`."
    lines = [f"{deliveries(restored)} restored, buried", *([hint] if restored else [])]
    return tell(app, report, *lines, as_json=as_json, every=False) or int(bool(plan.damage))
