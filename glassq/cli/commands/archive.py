"""`glassq archive`: buried deliveries go out of the queue, into a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from glassq.cli.app import App, as_directory, as_json, dry_run, examples, pass_app, yes
from glassq.cli.output import confirm
from glassq.cli.report import tell
from glassq.cli.selection import selection
from glassq.errors import Conflict
from glassq.operations import archive as operation
from glassq.operations.filters import nothing_found_text
from glassq.operations.result import Did
from glassq.operations.words import deliveries

if TYPE_CHECKING:
    from glassq.operations.archive import ArchiveReport
    from glassq.operations.filters import Selection


@click.command(
    epilog=examples(
        ("what lies buried for weeks, so that the queue's files get smaller", "glassq archive --older-than 14d"),
        ("back again, buried as they were", "glassq restore FILE"),
    )
)
@selection(everything="Every buried delivery, those of push queues too.", order="oldest")
@click.option(
    "--to",
    "directory",
    metavar="DIR",
    type=click.Path(exists=True, writable=True, path_type=Path),
    callback=as_directory,
    help="Where the file is made (else in archive/ beside the ledger's file).",
)
@dry_run
@yes
@as_json
@pass_app
def archive(app: App, selection: Selection, directory: Path | None, dry_run: bool, yes: bool, as_json: bool) -> int:
    """Take buried deliveries out of the queue, into a file that `glassq restore` puts back.

    A buried job keeps the queue from removing its files on disk, those of other jobs too. Each run makes one file, with
    checksums. A job leaves the queue only once it is in that file and on disk.
    """
    selection.check()
    directory = directory.absolute() if directory else operation.default_directory(app.operations)
    empty = nothing_found_text(selection.filter)
    with app.operations.queue() as queue:
        with app.progress() as progress:
            plan = operation.plan(app.operations, queue, selection, progress)
        count = deliveries(len(plan.chosen))
        if dry_run:
            summary = [f"{count} would go into a file in {directory}"] if plan.chosen else []
            return tell(app, plan.preview(), *summary, as_json=as_json, every=True, empty=empty, file=None)
        confirm(f"archive {count} into a file in {directory}?", needed=bool(plan.chosen and selection.bulk and not yes))
        with app.acting("archive", chosen=len(plan.chosen), filter_=selection.typed) as progress:
            report = progress.came_to(operation.carry_out(app.operations, queue, plan, progress, directory))
    summaries = _summary(report) if plan.chosen else []
    file = str(report.file) if report.file else None
    return tell(app, report, *summaries, as_json=as_json, every=bool(selection.ids), empty=empty, file=file)


def _summary(report: ArchiveReport) -> list[str]:
    if report.file is None:
        # a Conflict says so itself
        return [] if isinstance(report.error, Conflict) else ["nothing was archived"]
    return [f"{deliveries(report.count(Did.ARCHIVED))} archived in {report.file}"]
