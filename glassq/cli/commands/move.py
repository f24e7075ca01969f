"""`glassq move`: deliveries go into another tube, in the state they have."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from glassq.cli import completion
from glassq.cli.app import App, as_json, dry_run, examples, pass_app, yes
from glassq.cli.output import confirm, line
from glassq.cli.report import tell
from glassq.cli.selection import once, selection
from glassq.operations import move as operation
from glassq.operations.filters import nothing_found_text
from glassq.operations.find import unworked
from glassq.operations.move import Move
from glassq.operations.words import deliveries

if TYPE_CHECKING:
    from glassq.cli.progress import Terminal
    from glassq.operations.filters import Selection
    from glassq.queues.base import Inspector


@click.command(
    epilog=examples(
        ("all that was left behind when [queue] tube was renamed", "glassq move --from old-name --to glassq"),
        ("a poisoned kind, aside for a pool of its own", "glassq move --where 'error~MemoryError' --to glassq-large"),
    )
)
@once(
    "--to",
    "target",
    required=True,
    metavar="TUBE",
    shell_complete=completion.tubes,
    help="Where they go; the tube need not be there yet.",
)
@once(
    "--from",
    "origin",
    metavar="TUBE",
    shell_complete=completion.tubes,
    help="All that waits in this tube: ready, delayed and buried.",
)
@selection(everything="Every buried delivery, those of push queues too.")
@dry_run
@yes
@as_json
@pass_app
def move(
    app: App, selection: Selection, target: str, origin: str | None, dry_run: bool, yes: bool, as_json: bool
) -> int:
    """Put deliveries into another tube: ready, delayed (for the time that is left) or buried, as they are.

    Ids name deliveries in any state that waits. --all or filters select buried deliveries. --from selects all that wait
    in a tube, which may be one that these settings do not name any more. Deliveries that are being worked stay. A pool
    moves pings whose handler is a URL back into the tube of their push queue, and those of a route with concurrency
    into its tube.
    """
    asked = Move(selection=selection, target=target, origin=origin)
    asked.check()
    with app.operations.queue() as queue:
        with app.progress() as progress:
            if why := unworked(app.operations, target):
                progress.warn(why)
            plan = operation.plan(app.operations, queue, asked, progress)
        many = bool(plan.chosen) and not selection.ids
        if not dry_run:
            confirm(f"move {deliveries(len(plan.chosen))} to tube {line(target)}?", needed=many and not yes)
        with app.progress(stoppable=True) as progress:
            report = plan.preview()
            if not dry_run:
                report = operation.carry_out(app.operations, queue, plan, progress, target)
            if origin and report.error is None:
                _warn_at_work(queue, origin, progress)
    nothing = f"nothing waits in tube {origin} that fits" if origin else nothing_found_text(selection.filter)
    return tell(app, report, as_json=as_json, empty=nothing)


def _warn_at_work(queue: Inspector, origin: str, progress: Terminal) -> None:
    """Says how many deliveries of the tube stay there because they are being worked."""
    if held := sum(counts.reserved for counts in queue.counts([origin])):
        progress.warn(
            f"{deliveries(held)} of tube {origin} at work now: what is tried again stays in that tube, until the same "
            "command is given again"
        )
