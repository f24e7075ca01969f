"""`glassq buried`: deliveries that wait for an operator's decision."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

import click

from glassq.cli.app import App, as_json, examples, pass_app
from glassq.cli.output import console, print_json, print_table, table
from glassq.cli.where import Where, filters, lying
from glassq.operations.words import span

if TYPE_CHECKING:
    from glassq.cli.find import Found


@click.command(
    epilog=examples(
        ("those of one cause", "glassq buried --where 'error~HttpError.*503'"),
        ("the ids alone, for a script", "glassq buried --limit 1000 --json | jq -r '.jobs[].delivery'"),
    )
)
@filters
@click.option(
    "--limit",
    metavar="N",
    default=50,
    show_default=True,
    type=click.IntRange(1, 1_000_000),
    help="How many, newest first.",
)
@as_json
@pass_app
def buried(app: App, where: Where, limit: int, as_json: bool) -> None:
    """Deliveries that wait for a decision, newest first; those of push queues too."""
    with app.queue() as queue:
        tubes, tube = where.tubes(queue), where.tube or queue.tube
        total = sum(queue.stats_tube(name).buried for name in tubes)
        rows = [_row(found) for found in islice(lying(app, queue, where), limit)]
    if as_json:
        print_json({"tube": tube, "total": total, "jobs": rows})
        return
    out = console()
    if not rows:
        others = f", nor in those of {len(tubes) - 1} push queues" if len(tubes) > 1 else ""
        out.print(f"none of {total} fits" if total else f"nothing lies buried in tube {tube}{others}")
        return
    columns = ["job", "delivery", "age", "source", "attempts", "reason"]
    if named := any(row["tube"] != tube for row in rows):
        columns.insert(2, "tube")
    print_table(out, table("", columns, [_cells(row, named=named) for row in rows], wraps="reason"))
    if where and total > len(rows):
        cut = f" (--limit {total} shows all that fit)" if len(rows) == limit else ""
        out.print(f"{len(rows)} of {total} buried{cut}", style="dim")
    elif total > len(rows):
        out.print(f"{total - len(rows)} more: --limit {total} shows all", style="dim")
    look, again = app.command("show ID"), app.command("kick ID")
    out.print(f"Look at one with {look}, have it worked again with {again}.", style="dim")


def _row(found: Found) -> dict[str, Any]:
    delivery = found.delivery
    return {
        "job": found.job.id,
        "delivery": delivery.id if delivery else None,
        "tube": found.stats.tube,
        "received": delivery.received if delivery else None,
        "age": round(found.age),
        "source": delivery.source if delivery else None,
        "attempts": delivery.attempt if delivery else None,
        "reason": found.reason,
        "damaged": delivery is None,
    }


def _cells(row: dict[str, Any], *, named: bool) -> tuple[object, ...]:
    tube = (row["tube"],) if named else ()
    if row["damaged"]:
        return row["job"], "damaged", *tube, span(row["age"]), "", "", row["reason"]
    return row["job"], row["delivery"], *tube, span(row["age"]), row["source"], row["attempts"], row["reason"]
