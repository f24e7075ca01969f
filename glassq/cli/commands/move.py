"""`glassq move`: deliveries go into another tube, or all of them to another engine, in the state they have."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from glassq.cli import completion
from glassq.cli.app import App, as_json, dry_run, examples, pass_app, yes
from glassq.cli.output import confirm, line
from glassq.cli.report import tell
from glassq.cli.selection import once, selection
from glassq.errors import InvalidRequest
from glassq.operations import move as operation
from glassq.operations import move_engine as engines
from glassq.operations.filters import Selection, nothing_found_text
from glassq.operations.find import unworked
from glassq.operations.move import Move
from glassq.operations.words import deliveries

if TYPE_CHECKING:
    from glassq.cli.progress import Terminal
    from glassq.operations.move_engine import EngineMove
    from glassq.queues.base import Inspector


@click.command(
    epilog=examples(
        ("all that was left behind when [queue] tube was renamed", "glassq move --from old-name --to glassq"),
        ("a poisoned kind, aside for a pool of its own", "glassq move --where 'error~MemoryError' --to glassq-large"),
        (
            "everything to PostgreSQL, while pings come (docs/scaling.md)",
            "glassq move --follow --to-engine postgres://glassq@db/glassq",
        ),
    )
)
@once(
    "--to",
    "target",
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
@once(
    "--to-engine",
    metavar="URL",
    help="Everything, in all tubes, goes to the queue at this URL; as [queue] url would name it.",
)
@once(
    "--from-engine",
    metavar="URL",
    help="Everything in the queue at this URL comes into the queue of these settings.",
)
@click.option("--follow", is_flag=True, help="With another engine: go on with what comes, until Ctrl-C.")
@selection(everything="Every buried delivery, those of push queues too.")
@dry_run
@yes
@as_json
@pass_app
def move(
    app: App,
    selection: Selection,
    target: str | None,
    origin: str | None,
    to_engine: str | None,
    from_engine: str | None,
    follow: bool,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> int:
    """Put deliveries into another tube: ready, delayed (for the time that is left) or buried, as they are.

    Ids name deliveries in any state that waits. --all or filters select buried deliveries. --from selects all that wait
    in a tube, which may be one that these settings do not name any more. Deliveries that are being worked stay. A pool
    moves pings whose handler is a URL back into the tube of their push queue, and those of a route with concurrency
    into its tube.

    --to-engine and --from-engine move all deliveries between two queues, with their large bodies, while pings come and
    pools of both queues work. What is at work stays until it is over: give the command again, or --follow.
    """
    if to_engine or from_engine:
        if selection != Selection() or target or origin or (to_engine and from_engine):
            raise InvalidRequest("--to-engine or --from-engine moves everything: expected it without ids and filters")
        return _between_engines(app, to_engine, from_engine, follow, dry_run, yes, as_json)
    if target is None or follow:
        raise InvalidRequest(
            "--follow goes with --to-engine or --from-engine" if target else "expected --to TUBE, or --to-engine URL"
        )
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
        about = asked.selection.typed or (f"tube={origin}" if origin else "")
        with app.acting("move", chosen=0 if dry_run else len(plan.chosen), filter_=about) as progress:
            report = plan.preview()
            if not dry_run:
                report = progress.came_to(operation.carry_out(app.operations, queue, plan, progress, target))
            if origin and report.error is None:
                _warn_at_work(queue, origin, progress)
    nothing = f"nothing waits in tube {origin} that fits" if origin else nothing_found_text(selection.filter)
    return tell(app, report, as_json=as_json, empty=nothing)


def _between_engines(
    app: App, to_engine: str | None, from_engine: str | None, follow: bool, dry_run: bool, yes: bool, as_json: bool
) -> int:
    other = app.with_queue("--to-engine" if to_engine else "--from-engine", to_engine or from_engine or "")
    moving = engines.between(app.operations, other, arriving=to_engine is None)
    place = line(str(moving.target.settings.queue.url))
    with moving.origin.queue() as queue, moving.target.queue() as there:
        with app.progress() as progress:
            plan = engines.plan(moving, queue, progress)
            unseen = engines.unseen(moving, queue)
        # a URL that is wrong is known before anything is asked, or believed
        engines.check(moving, queue, there, plan, follow=follow)
        if not dry_run:
            tubes = f"{len(plan.tubes)} tube{'' if len(plan.tubes) == 1 else 's'}"
            asked = f"move {deliveries(len(plan.chosen))} of {tubes} to {place}?"
            if unseen:
                asked = f"move {deliveries(len(plan.chosen))} and about {unseen} that wait to {place}?"
            confirm(asked, needed=bool(plan.chosen or unseen) and not yes)
        chosen = 0 if dry_run else max(len(plan.chosen) + unseen, int(follow))
        with app.acting("move", chosen=chosen, filter_=f"everything to {place}") as progress:
            report = plan.preview()
            if dry_run and unseen:
                progress.note(f"about {unseen} more wait, and would be received and moved")
            if not dry_run:
                report = progress.came_to(engines.carry_out(moving, queue, there, plan, progress, follow=follow))
            for words in moving.left_behind():
                progress.note(words)
            if not dry_run and report.error is None:
                _say_left(moving, queue, progress)
    return tell(app, report, as_json=as_json, empty=f"nothing waits in {moving.origin.settings.queue.url}")


def _say_left(moving: EngineMove, queue: Inspector, progress: Terminal) -> None:
    """Says what is in the old queue by now: what came meanwhile, and what is at work."""
    for counts in engines.left(moving, queue):
        waiting = counts.jobs - counts.reserved
        progress.warn(
            f"tube {counts.name} still holds {deliveries(waiting)} that wait and {counts.reserved} at work: give the "
            "same command again"
        )


def _warn_at_work(queue: Inspector, origin: str, progress: Terminal) -> None:
    """Says how many deliveries of the tube stay there because they are being worked."""
    if held := sum(counts.reserved for counts in queue.counts([origin])):
        progress.warn(
            f"{deliveries(held)} of tube {origin} at work now: what is tried again stays in that tube, until the same "
            "command is given again"
        )
