"""`glassq tail`: what deliveries come to, as it happens.

The ledger holds one line for each delivery: what it came to last. Several processes write it, each a batch at a time,
so a line may come after ones that are younger.
"""

from __future__ import annotations

import select
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import click
from rich.text import Text

from glassq.cli import completion
from glassq.cli.app import App, pass_app
from glassq.cli.output import console, line, print_json_line
from glassq.errors import SettingsError
from glassq.mask import masked_text
from glassq.operations.words import reason, span

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rich.console import Console

    from glassq.ledger import Entry

# Between two looks at the ledger, in milliseconds.
LOOK = 500
# A writer waits for another one's batch, and clocks of hosts differ: what is younger than this is looked at again.
LATE = timedelta(seconds=10)
# Writers that were kept from the ledger for long are later still: every so many looks, what is younger than this is.
SELDOM, VERY_LATE = 20, timedelta(minutes=2)
STATES = ("done", "dropped", "retrying", "buried", "archived", "deleted")
_STYLES = {"done": "green", "dropped": "dim", "retrying": "yellow", "buried": "bold red"}


@click.command()
@click.option(
    "-n",
    "--lines",
    metavar="N",
    type=click.IntRange(0),
    default=10,
    show_default=True,
    help="First so many of what was before.",
)
@click.option("--state", type=click.Choice(STATES), help="Only what came to this.")
@click.option("--source", metavar="SOURCE", shell_complete=completion.sources, help='Only from this source: "mirror".')
@click.option("--tube", metavar="TUBE", shell_complete=completion.tubes, help="Only out of this tube.")
@click.option("--once", is_flag=True, help="End when what was before is shown.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line (durations in seconds).")
@pass_app
def tail(
    app: App, lines: int, state: str | None, source: str | None, tube: str | None, once: bool, as_json: bool
) -> None:
    """What deliveries come to, as it happens, until Ctrl-C: time, state, delivery, source, attempts, duration, why.

    A delivery that comes to several things between two looks, half a second apart, is shown once, with the last.
    """
    asked = {"state": state, "source": source, "tube": tube}
    follower = Follower(app, {name: value for name, value in asked.items() if value is not None})
    show: Callable[[Entry], None] = _print_json if as_json else _printer(console())
    for entry in follower.before(lines):
        show(entry)
    while not once:
        _wait()
        for entry in follower.news():
            show(entry)


class Follower:
    """What is new in the ledger since the last look. Its database may be absent, or be moved and begun anew."""

    def __init__(self, app: App, wanted: dict[str, str]) -> None:
        """`wanted` as `LedgerReader.since` takes it."""
        self._app = app
        self._wanted = wanted
        self._latest = datetime.fromtimestamp(0, UTC)
        # when the deliveries of the last seconds were updated, as it was shown
        self._shown: dict[str, datetime] = {}
        self._trouble = ""
        self._looks = 0

    def before(self, count: int) -> list[Entry]:
        """The latest `count` entries, oldest first; all that is there counts as shown. Raises SettingsError."""
        with self._app.ledger() as ledger:
            self._note(ledger.since(limit=1))
            known = ledger.since(self._horizon(VERY_LATE), self._wanted)
            # what comes between the two questions is shown now, so it is known too
            last = ledger.since(None, self._wanted, count) if count else []
            self._note([*known, *last])
            self._say(ledger.absent)
        return last

    def news(self) -> list[Entry]:
        """The entries that were not shown yet, oldest first. What keeps it from looking is said once."""
        try:
            # opened anew each time: the path may name another file by now
            with self._app.ledger() as ledger:
                self._looks += 1
                horizon = self._horizon(VERY_LATE if self._looks % SELDOM == 0 else LATE)
                found = ledger.since(horizon, self._wanted)
                newest = ledger.since(limit=1)
                self._say(ledger.absent)
        except SettingsError as error:
            self._say(str(error))
            return []
        fresh = [entry for entry in found if self._shown.get(entry.delivery) != entry.updated]
        self._note(found, newest)
        return fresh

    def _note(self, shown: list[Entry], newest: Sequence[Entry] = ()) -> None:
        """From now on these are known, and what is much older than the newest is forgotten."""
        self._latest = max([self._latest, *(entry.updated for entry in (*shown, *newest))])
        self._shown |= {entry.delivery: entry.updated for entry in shown}
        horizon = self._horizon(VERY_LATE)
        self._shown = {name: updated for name, updated in self._shown.items() if updated >= horizon}

    def _horizon(self, late: timedelta) -> datetime:
        """What was updated before this is known. The clocks of those who write may be behind ours, or ahead."""
        return min(self._latest, datetime.now(UTC)) - late

    def _say(self, trouble: str) -> None:
        if trouble != self._trouble:
            words = f"{line(trouble)}: waiting" if trouble else "the ledger can be read now"
            click.echo(f"glassq: {words}", err=True)
        self._trouble = trouble


def _wait() -> None:
    """Until the next look. Raises BrokenPipeError as soon as nobody reads what we say: that may be long before we say
    anything."""
    poll = select.poll()
    # no event is asked for: an error, or a hang-up, is told all the same
    poll.register(sys.stdout.fileno(), 0)
    if poll.poll(LOOK):
        raise BrokenPipeError


def _printer(out: Console) -> Callable[[Entry], None]:
    def show(entry: Entry) -> None:
        attempts = "1 attempt" if entry.attempts == 1 else f"{entry.attempts} attempts"
        # to the millisecond, so that columns stay columns
        at = entry.updated.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
        said = reason(entry.reason) or masked_text(entry.result)
        words = f"{entry.delivery}  {entry.source:6}  {attempts:>11}  {span(entry.duration):>6}  {said}"
        state = (f"{entry.state:8}", _STYLES.get(entry.state, ""))
        out.print(Text.assemble(f"{at}  ", state, f"  {line(words).rstrip()}"), soft_wrap=True)

    return show


def _print_json(entry: Entry) -> None:
    print_json_line(
        {
            "time": entry.updated,
            "state": entry.state,
            "delivery": entry.delivery,
            "source": entry.source,
            "tube": entry.tube,
            "received": entry.received,
            "attempts": entry.attempts,
            "duration": entry.duration,
            "job": entry.job,
            "result": masked_text(entry.result),
            "reason": reason(entry.reason),
        }
    )
