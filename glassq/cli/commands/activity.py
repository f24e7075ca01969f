"""`glassq activity`: who did what."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from glassq.cli.app import App, as_json, examples, pass_app
from glassq.cli.output import console, line, print_json, print_table, table
from glassq.operations import activity as operation
from glassq.operations.filters import duration
from glassq.operations.words import moment

if TYPE_CHECKING:
    from glassq.ledger.activity import Activity


@click.command(
    epilog=examples(
        ("what was done to the queue since yesterday evening", "glassq activity --since 12h"),
        ("when the pool was started or reloaded, and with which release", "glassq activity --did started"),
        ("by whom, from where, with which command", "glassq activity --who anna --json"),
    )
)
@click.option("--who", metavar="NAME", default="", help="Only by this operator; of the pool, on this host.")
@click.option("--did", metavar="WORD", default="", help='Only this: "kick", "pause", "note", "started" ...')
@click.option("--since", metavar="DURATION", help='Only within this time: "2h".')
@click.option(
    "--limit",
    metavar="N",
    type=click.IntRange(1, 100_000),
    default=50,
    show_default=True,
    help="At most N, the newest.",
)
@as_json
@pass_app
def activity(app: App, who: str, did: str, since: str | None, limit: int, as_json: bool) -> None:
    """Who did what, from where, and what came of it, newest first: operators, by command or console, and the pool.

    The ledger keeps it as long as it keeps deliveries ([ledger] retention).
    """
    seconds = None if since is None else duration("--since", since)
    found = operation.newest(app.operations, who=who, did=did, seconds=seconds, limit=limit)
    if as_json:
        print_json(operation.document(found))
        return
    out = console()
    if not found:
        out.print("nothing was done that the ledger knows of")
        return
    print_table(out, table("", ("at", "who", "via", "did", "came to", "what"), map(_cells, found), wraps="what"))


def _cells(each: Activity) -> tuple[object, ...]:
    what = each.cause or each.filter
    return (
        moment(each.at)[:19] + "Z",
        each.actor,
        each.via,
        each.did,
        operation.words(each),
        line("; ".join(filter(None, (what, each.note)))),
    )
