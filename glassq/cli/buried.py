"""`glassq buried`: deliveries that wait for an operator's decision."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

import click

from glassq.cli.app import App, as_json, pass_app
from glassq.cli.find import walk
from glassq.cli.output import console, print_json, print_table, span, table
from glassq.mask import masked_text

if TYPE_CHECKING:
    from glassq.cli.find import Found

BURIED = frozenset({"buried"})


@click.command()
@click.option(
    "--limit", default=50, show_default=True, type=click.IntRange(1, 1_000_000), help="How many, newest first."
)
@as_json
@pass_app
def buried(app: App, limit: int, as_json: bool) -> None:
    """Deliveries that wait for a decision, newest first."""
    with app.queue() as queue:
        total = queue.stats_tube().buried
        rows = [_row(found) for found in islice(walk(queue, BURIED), limit)]
        tube = queue.tube
    if as_json:
        print_json({"tube": tube, "total": total, "jobs": rows})
        return
    out = console()
    if not rows:
        out.print(f"nothing lies buried in tube {tube}")
        return
    columns = ("job", "delivery", "age", "source", "attempts", "reason")
    print_table(out, table("", columns, [_cells(row) for row in rows], wraps="reason"))
    if total > len(rows):
        out.print(f"{total - len(rows)} more: --limit {total} shows all", style="dim")
    look, again = app.command("show ID"), app.command("kick ID")
    out.print(f"Look at one with {look}, have it worked again with {again}.", style="dim")


def _row(found: Found) -> dict[str, Any]:
    delivery = found.delivery
    if delivery is None:
        row = {"delivery": None, "received": None, "age": found.stats.age, "source": None, "attempts": None}
        return {"job": found.job.id, **row, "reason": found.damage, "damaged": True}
    return {
        "job": found.job.id,
        "delivery": delivery.id,
        "received": delivery.received,
        "age": round(delivery.age()),
        "source": delivery.source,
        "attempts": delivery.attempt,
        "reason": reason(found),
        "damaged": False,
    }


def reason(found: Found) -> str:
    """Why the delivery lies buried, as far as it says so itself."""
    delivery = found.delivery
    if delivery is None:
        return found.damage
    if delivery.buried or not delivery.evidence:
        return masked_text(delivery.buried) or "not by glassq: it says no reason"
    return masked_text(delivery.evidence[-1].message)


def _cells(row: dict[str, Any]) -> tuple[object, ...]:
    if row["damaged"]:
        return row["job"], "damaged", span(row["age"]), "", "", row["reason"]
    return row["job"], row["delivery"], span(row["age"]), row["source"], row["attempts"], row["reason"]
