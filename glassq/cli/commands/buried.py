"""`glassq buried`: deliveries that wait for an operator's decision."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, cast

import click

from glassq.cli.app import App, as_json, examples, pass_app
from glassq.cli.output import console, line, print_folded, print_json, print_table, table
from glassq.cli.selection import selection
from glassq.operations import listing
from glassq.operations.words import span

if TYPE_CHECKING:
    from datetime import datetime

    from rich.console import Console

    from glassq.operations.filters import Selection
    from glassq.operations.groups import By
    from glassq.operations.listing import BuriedGroups, BuriedList, BuriedRow

# So many are listed where --limit does not say how many.
LIMIT = 50


@click.command(
    epilog=examples(
        ("the causes, and how many failed for each", "glassq buried --by reason"),
        ("those of one cause", "glassq buried --group 3f2a9c81d0e4"),
        ("those whose reason has a match", "glassq buried --where 'error~HttpError.*503'"),
        ("the ids alone, for a script", "glassq buried --limit 1000 --json | jq -r '.jobs[].delivery'"),
    )
)
@selection(ids=False)
@click.option(
    "--by",
    type=click.Choice(["reason", "handler", "source"]),
    help="Count them by the cause of their failure, by the handler that works them, or by source.",
)
@as_json
@pass_app
def buried(app: App, selection: Selection, by: str | None, as_json: bool) -> None:
    """Deliveries that wait for a decision (dead letters), newest first; those of push queues too.

    50 are listed unless --limit says how many. With --by all are counted.
    """
    with app.operations.looking() as queue, app.progress() as progress:
        if by is not None:
            groups = listing.buried_groups(app.operations, queue, selection, cast("By", by), progress)
        else:
            selection = replace(selection, limit=selection.limit or LIMIT)
            found = listing.buried(app.operations, queue, selection, progress)
    if short := (groups if by is not None else found).short:
        progress.warn(short)
    if as_json:
        print_json((groups if by is not None else found).document())
    elif by is not None:
        _print_groups(app, console(), groups)
    else:
        _print(app, console(), found, selection)


def _print(app: App, out: Console, found: BuriedList, selection: Selection) -> None:
    rows, total = found.rows, found.total
    if not rows:
        many = len(found.tubes) - 1
        others = f", nor in {many} other tube{'s' if many > 1 else ''}" if many else ""
        out.print(f"none of {total} fits" if total else f"nothing is buried in tube {found.tube}{others}")
        return
    columns = ["job", "delivery", "age", "source", "attempts", "reason"]
    if named := any(row.tube != found.tube for row in rows):
        columns.insert(2, "tube")
    print_table(out, table("", columns, [_cells(row, named=named) for row in rows], wraps="reason"))
    if selection.filter and found.fit is None and not found.short:
        cut = f"the newest {len(rows)} of those that fit; {total} are buried in all"
        print_folded(out, f"{cut} (--limit {total} shows all that fit)", 0, "dim")
    elif selection.filter and total > len(rows):
        out.print(f"{len(rows)} of {total} buried", style="dim")
    elif total > len(rows):
        causes = app.command("buried --by reason")
        print_folded(out, f"{total - len(rows)} more: --limit {total} shows all, {causes} their causes", 0, "dim")
    look, again = app.command("show ID"), app.command("kick ID")
    print_folded(out, f"Look at one with {look}, have it worked again with {again}.", 0, "dim")


def _cells(row: BuriedRow, *, named: bool) -> tuple[object, ...]:
    tube = (row.tube,) if named else ()
    if row.damaged:
        return row.job, "damaged", *tube, span(row.age), "", "", row.reason
    return row.job, row.delivery, *tube, span(row.age), row.source, row.attempts, row.reason


def _print_groups(app: App, out: Console, found: BuriedGroups) -> None:
    counted = sum(group.count for group in found.groups)
    if not found.groups:
        out.print(f"none of {found.total} fits" if found.total else "nothing is buried")
        return
    name = "cause" if found.by == "reason" else found.by
    # those of one handler or source may have failed for many reasons: it is that of the example
    words = "reason" if found.by == "reason" else "for example"
    columns = (name, "count", "oldest", "newest", "example", words)
    now = app.operations.clock()
    rows = [
        (group.id or "none", group.count, _age(group.first, now), _age(group.last, now), group.example, group.words)
        for group in found.groups
    ]
    print_table(out, table("", columns, rows, wraps=words))
    causes = f"{len(rows)} {name}{'s'[: len(rows) > 1]}"
    out.print(f"{counted} of {found.total} buried: {causes}", style="dim")
    condition = line(found.groups[0].condition)
    chosen = f"--group {found.groups[0].id}" if found.by == "reason" else f"--where '{condition}'"
    one, again = app.command(f"buried {chosen}"), app.command(f"kick {chosen} --canary")
    print_folded(out, f"List the deliveries of one with {one}, have them worked again with {again}.", 0, "dim")


def _age(at: datetime | None, now: datetime) -> str:
    return span(max(0.0, (now - at).total_seconds())) if at else ""
