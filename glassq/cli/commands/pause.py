"""`glassq pause` and `glassq resume`: tubes that nobody reserves from for a while."""

from __future__ import annotations

import shlex

import click

from glassq.cli import completion
from glassq.cli.app import App, as_json, pass_app
from glassq.cli.pause import tell_paused, tell_resumed
from glassq.operations import pause as operation

# What stops the work for good: the queue forgets a pause when it is restarted.
_LASTING = "what lasts is to stop glassq-worker (systemctl stop glassq-worker)"


@click.command()
@click.argument("tubes", metavar="[TUBE]...", nargs=-1, shell_complete=completion.tubes)
@click.option("--for", "period", metavar="DURATION", help='How long: "10m"; without it, until they are resumed.')
@as_json
@pass_app
def pause(app: App, tubes: tuple[str, ...], period: str | None, as_json: bool) -> int:
    """Stop the work on these tubes, or on all of ours, until they are resumed or the queue is restarted.

    What runs goes on. Pings are still accepted, and wait. A pause of all shortens none of a single tube.
    """
    with app.operations.queue() as queue:
        lasts = queue.capabilities.keeps_pause
        plan = operation.plan(app.operations, queue, tubes, period, "--for")
        paused = operation.pause(queue, {name: name for name in plan.tubes}, plan.seconds)
    app.has_done("pause", done=sum(paused.values()), filter_=shlex.join(plan.tubes), note=plan.note)
    length = None if period is None else plan.seconds
    code = tell_paused("tube", "job", paused, _LASTING, as_json, length, kept=lasts, longer=plan.kept)
    if any(paused.values()) and not as_json:
        click.echo(f"pings are still accepted; {app.command('resume')} lets all tubes go on")
    return code


@click.command()
@click.argument("tubes", metavar="[TUBE]...", nargs=-1, shell_complete=completion.tubes)
@as_json
@pass_app
def resume(app: App, tubes: tuple[str, ...], as_json: bool) -> None:
    """Let these tubes, or all of ours, go on where they are paused."""
    with app.operations.queue() as queue:
        chosen = operation.chosen(app.operations, queue, tubes)
        resumed = operation.resume(queue, {name: name for name in chosen})
    app.has_done("resume", done=sum(resumed.values()), filter_=shlex.join(chosen))
    tell_resumed("tube", resumed, as_json)
