"""How commands for very many deliveries tell what came of them: a sum, and a line for each that was not done."""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from glassq.cli.output import line, print_json
from glassq.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from glassq.cli.app import App
    from glassq.cli.jobs import Done
    from glassq.ledger import Entry

# What stands in `Done.did` of one that is as it should be already.
LEFT_OUT = "left out"
# So many reasons to leave something out are told, the commonest first.
MAX_REASONS = 5


def told(results: Sequence[Done], as_json: bool, *words: str, every: bool, **more: Any) -> int:
    """Prints the results and the `words`, a line each; returns the exit code.

    With `every` each result has a line of its own, else only what was not done; JSON has them all, and `more` before.
    """
    undone = [done for done in results if done.did == "nothing"]
    if as_json:
        print_json({**more, "results": [asdict(done) for done in results]})
        return int(bool(undone))
    for done in results if every else undone:
        what = f"delivery {done.delivery}" if done.delivery else f"job {done.job}" if done.job else done.id
        click.echo(line(f"{what}: {done.did}" + (f": {done.why}" if done.why else "")))
    if not every:
        left_out = Counter(done.why for done in results if done.did == LEFT_OUT)
        for why, count in left_out.most_common(MAX_REASONS):
            click.echo(line(f"{count} left out: {why}"))
    for each in filter(None, words):
        click.echo(line(each))
    return int(bool(undone))


def either(ids: Sequence[str], bulk: bool, what: str, limited: bool) -> None:
    """Raises click.UsageError unless the command line has either ids, or says otherwise which ones are meant."""
    if bulk == bool(ids):
        raise click.UsageError(f"expected either ids, or which {what} are meant (--help tells how)")
    if ids and limited:
        raise click.UsageError("--limit goes with filters, not with ids")


@contextmanager
def recorder(app: App) -> Iterator[Callable[[Entry], None]]:
    """What records an entry in the ledger. Where that cannot be written, says so once, and records nothing.

    A ledger that is not there is not made: it would be the operator's, and the pool could not write it.
    """
    from glassq.database.engine import write_problem
    from glassq.ledger import open_ledger

    try:
        problem = write_problem(app.settings.ledger.url, "[ledger] url")
    except SettingsError as error:
        problem = str(error)
    if problem is not None:
        click.echo(line(f"glassq: `show` will not know of it: {problem}"), err=True)
        yield lambda _: None
        return
    ledger = open_ledger(app.settings.ledger)
    try:
        yield ledger.record
    finally:
        ledger.close()
