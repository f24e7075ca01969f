"""`glassq tail`: the outcomes of deliveries, as they happen."""

from __future__ import annotations

import select
import sys
from datetime import UTC
from typing import TYPE_CHECKING

import click
from rich.text import Text

from glassq.cli.app import App, examples, pass_app
from glassq.cli.output import console, line, print_json_line
from glassq.cli.selection import filters
from glassq.operations import follow
from glassq.operations.words import attempts, span

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

    from glassq.ledger import Entry
    from glassq.operations.filters import Filter

# Between two looks at the ledger, in milliseconds.
LOOK = 500
_STYLES = {"done": "green", "dropped": "dim", "retrying": "yellow", "buried": "bold red"}


@click.command(
    epilog=examples(
        ("what fails", "glassq tail --state retrying"),
        ("what a handler returned", "glassq tail --where 'result~photo'"),
    )
)
@click.option(
    "-n",
    "--lines",
    metavar="N",
    type=click.IntRange(0),
    default=10,
    show_default=True,
    help="How many of the latest outcomes to show first.",
)
@click.option("--state", type=click.Choice(follow.STATES), help="Only deliveries with this outcome.")
@filters
@click.option("--once", is_flag=True, help="End when those are shown; without a ledger yet, at once.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line (durations in seconds).")
@pass_app
def tail(app: App, lines: int, state: str | None, filter_: Filter, once: bool, as_json: bool) -> None:
    """Outcomes of deliveries, as they happen, until Ctrl-C: time, state, delivery, source, attempts, duration, why.

    A delivery with several outcomes between two looks, half a second apart, is shown once, with the last.
    """
    with app.progress() as progress:
        follower = follow.Follower(app.operations, filter_, state, progress, once=once)
        show: Callable[[Entry], None] = _print_json if as_json else _printer(console())
        for entry in follower.before(lines):
            show(entry)
        while not once:
            _wait()
            for entry in follower.news():
                show(entry)


def _wait() -> None:
    """Until the next look. Raises BrokenPipeError as soon as nobody reads what we say, even if we say nothing."""
    poll = select.poll()
    # No event is asked for: an error, or a hang-up, is told all the same.
    poll.register(sys.stdout.fileno(), 0)
    if poll.poll(LOOK):
        raise BrokenPipeError


def _printer(out: Console) -> Callable[[Entry], None]:
    def show(entry: Entry) -> None:
        # To the millisecond, so that columns stay columns.
        at = entry.updated.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
        masked = follow.recorded(entry)
        said = masked.reason or masked.result
        tried = f"{attempts(entry.attempts):>11}"
        words = f"{entry.delivery}  {entry.source:8}  {tried}  {span(entry.duration):>6}  {said}"
        state = (f"{entry.state:8}", _STYLES.get(entry.state, ""))
        out.print(Text.assemble(f"{at}  ", state, f"  {line(words).rstrip()}"), soft_wrap=True)

    return show


def _print_json(entry: Entry) -> None:
    print_json_line(follow.document(entry))
