"""`glassq sources`: who may send pings, how that goes, which kinds there are; why a saved request is refused."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from glassq.cli.app import App, as_json
from glassq.cli.group import CommandGroup
from glassq.cli.output import console, line, print_hints, print_json, print_table, table
from glassq.operations import sources as operation
from glassq.operations.words import span

if TYPE_CHECKING:
    from glassq.intake.report import SourceReport
    from glassq.operations.sources import SourceRow


@click.group(cls=CommandGroup, invoke_without_command=True)
@as_json
@click.pass_context
def sources(context: click.Context, as_json: bool) -> None:
    """Who may send pings: how many came, which were refused and why, which secret is in use."""
    if context.invoked_subcommand is None:
        _list(context.find_object(App) or App(None, os.environ), as_json)


# -- as people read it -------------------------------------------------------------------------------------------------


def _list(app: App, as_json: bool) -> None:
    found = operation.snapshot(app.operations)
    if as_json:
        print_json(app.adapt_hints(found.document()))
        return
    out = console()
    if not found.rows:
        out.print("the settings name no source ([sources.NAME])")
        return
    columns = ("source", "kind", "path", "pings", "last", "refused", "clock", "secrets, last used")
    print_table(out, table("", columns, map(_cells, found.rows), wraps="refused"))
    if found.counting is None:
        out.print(f"nothing is counted: {line(found.note)}", style="dim")
    else:
        out.print(f"counted for {span(found.counting)}, since glassq-web was started", style="dim")
    print_hints(out, map(app.adapt, map(str, found.hints)))


def _cells(row: SourceRow) -> tuple[object, ...]:
    named = (row.name, row.kind, row.path)
    if row.counted is None:
        return (*named, "?", "?", row.problem or "?", "?", "?")
    seen = row.counted
    often = sorted(seen.refused.items(), key=lambda item: -item[1])
    refused = ", ".join(f"{count} {reason}" for reason, count in often)
    return (*named, seen.pings, _ago(seen.last_ping), refused or "-", _clock(seen), _secrets(seen))


def _ago(age: float | None) -> str:
    return "never" if age is None else f"{span(age)} ago"


def _clock(seen: SourceReport) -> str:
    """The last skew, and the worst where it differs."""
    if seen.skew is None:
        return "-"
    worst = seen.max_skew
    more = f" (at most {worst:+.0f}s)" if worst is not None and round(worst) != round(seen.skew) else ""
    return f"{seen.skew:+.0f}s{more}"


def _secrets(seen: SourceReport) -> str:
    if len(seen.secrets) == 1:
        return _ago(seen.secrets[0])
    return ", ".join(f"{number}: {_ago(age)}" for number, age in enumerate(seen.secrets, 1)) or "-"
