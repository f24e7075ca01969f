"""`glassq pause` and `glassq resume`: tubes that nobody reserves from for a while."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import click
import msgspec

from glassq.cli import completion
from glassq.cli.app import App, as_json, pass_app
from glassq.cli.find import checked_tube, is_ours, our_tubes
from glassq.cli.output import line, print_json
from glassq.cli.where import MAX_SECONDS, whole_seconds
from glassq.operations.words import span
from glassq.push.request import tube_of
from glassq.queues import open_queue
from glassq.values import Tube

if TYPE_CHECKING:
    from collections.abc import Mapping

    from glassq.queues import Queue

# What stops the work for good: a pause does not outlive beanstalkd.
_LASTING = "what lasts is to stop glassq-worker (systemctl stop glassq-worker)"

# The tube that beanstalkd always has.
_NOBODYS = Tube("default")


@click.command()
@click.argument("tubes", metavar="[TUBE]...", nargs=-1, shell_complete=completion.tubes)
@click.option("--for", "period", metavar="DURATION", help='How long: "10m"; without it, until they are resumed.')
@as_json
@pass_app
def pause(app: App, tubes: tuple[str, ...], period: str | None, as_json: bool) -> int:
    """Have nothing worked of these tubes, or of all of ours, until they are resumed or beanstalkd is restarted.

    What runs goes on. Pings are taken all the while, and wait.
    """
    length = whole_seconds("--for", period) if period is not None else MAX_SECONDS
    if not length:
        raise click.UsageError(f"--for 0 pauses nothing: {app.command('resume')} lets tubes go on")
    with app.queue() as queue:
        chosen = _chosen(queue, tubes)
    # A connection keeps its own tube in being: over one of that tube an empty one is paused for as long as we look.
    with closing(open_queue(msgspec.structs.replace(app.settings.queue, tube=_NOBODYS))) as queue:
        paused = pause_tubes(queue, {name: name for name in chosen}, length)
    code = tell_paused("tube", "job", paused, _LASTING, as_json, length)
    if any(paused.values()) and not as_json:
        click.echo(f"pings are taken all the while; {app.command('resume')} lets all tubes go on")
    return code


@click.command()
@click.argument("tubes", metavar="[TUBE]...", nargs=-1, shell_complete=completion.tubes)
@as_json
@pass_app
def resume(app: App, tubes: tuple[str, ...], as_json: bool) -> None:
    """Let these tubes, or all of ours, go on where they are paused."""
    with app.queue() as queue:
        resumed = resume_tubes(queue, {name: name for name in _chosen(queue, tubes)})
    tell_resumed("tube", resumed, as_json)


def pause_tubes(queue: Queue, tubes: Mapping[str, str], seconds: int) -> dict[str, bool]:
    """Pauses tubes, each under the name it is told by; says of which there was something to pause."""
    return {name: queue.pause(seconds, tube) for name, tube in tubes.items()}


def resume_tubes(queue: Queue, tubes: Mapping[str, str]) -> dict[str, bool]:
    """Ends their pauses; says which were paused."""
    return {name: queue.stats_tube(tube).paused_for > 0 and queue.pause(0, tube) for name, tube in tubes.items()}


def tell_paused(
    kind: str, held: str, paused: Mapping[str, bool], lasting: str, as_json: bool, seconds: int = MAX_SECONDS
) -> int:
    """Says which tubes or queues (`kind`) are paused, and for how long that holds; returns the exit code.

    `held` is what they hold, `lasting` what else can be done.
    """
    if as_json:
        print_json({f"{kind}s": [{kind: name, "paused": done} for name, done in paused.items()]})
    span_words = f" for {span(seconds)}" if seconds < MAX_SECONDS else ""
    for name, done in paused.items():
        if not done:
            nothing = f"beanstalkd has nothing to pause: it holds no {held}, and no glassq-worker waits on it"
            click.echo(f"glassq: {kind} {line(name)}: {nothing}; {lasting}", err=True)
        elif not as_json:
            click.echo(f"{kind} {line(name)} is paused{span_words}: what runs goes on, the rest waits")
    if any(paused.values()) and not as_json:
        ends = f"beanstalkd forgets it when it is restarted, and perhaps while a {kind} holds no {held}"
        click.echo(f"! {ends}; {lasting}")
    return int(not all(paused.values()))


def tell_resumed(kind: str, resumed: Mapping[str, bool], as_json: bool) -> None:
    """Says which tubes or queues (`kind`) go on."""
    if as_json:
        print_json({f"{kind}s": [{kind: name, "resumed": done} for name, done in resumed.items()]})
        return
    for name, done in resumed.items():
        click.echo(f"{kind} {line(name)} " + ("goes on" if done else "was not paused"))


def _chosen(queue: Queue, names: tuple[str, ...]) -> list[str]:
    """The tubes named, each once; all of ours where none is. Raises click.UsageError, and then none is touched."""
    main = queue.tube
    for name in names:
        if not is_ours(main, checked_tube("TUBE", name)):
            there = our_tubes(queue)
            hint = f"; did you mean {tube_of(main, name)}?" if tube_of(main, name) in there else ""
            raise click.UsageError(f"tube {name} is not ours: there are {', '.join(there)}{hint}")
    return list(dict.fromkeys(names)) or our_tubes(queue)
