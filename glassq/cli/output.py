"""How commands speak: one JSON document, or tables and lines for people.

Strings out of a delivery were written by a stranger. Everything printed here is plain text, never markup, with control
characters written out, so that none can move a cursor, change a title or hide a line.
"""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any

import click
from rich.cells import cell_len
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from glassq.errors import InvalidRequest
from glassq.log import escape
from glassq.operations.document import to_json, to_json_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

# Narrower than this, words are no longer read as sentences.
MIN_WORDS = 30
# rich lays out some two thousand rows a second: tables with more rows than this are printed plainly.
MANY_ROWS = 500
# A pipe has no width; lines are not broken for it.
UNBROKEN = 10_000


class PipedConsole(Console):
    """Standard output that is no terminal: no line ends in the blanks that fill a last column."""

    def print(self, *objects: Any, **options: Any) -> None:
        with self.capture() as printed:
            super().print(*objects, **options)
        self.file.write(re.sub(r" +$", "", printed.get(), flags=re.MULTILINE))
        # as Console does: whoever reads the pipe of `glassq tail` wants each line at once
        self.file.flush()


def console() -> Console:
    """Standard output for people."""
    at_terminal = sys.stdout is not None and sys.stdout.isatty()
    kind, wide = (Console, None) if at_terminal else (PipedConsole, UNBROKEN)
    return kind(width=wide, markup=False, emoji=False, highlight=False)


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]], *, wraps: str = "") -> Table:
    """A table; only the column named `wraps` is broken into lines where the terminal is narrow."""
    made = Table(title=title or None, title_justify="left", title_style="bold", box=None, padding=(0, 2, 0, 0))
    for name in columns:
        least = MIN_WORDS if name == wraps else None
        made.add_column(name, no_wrap=name != wraps, overflow="fold", header_style="dim", min_width=least)
    for row in rows:
        made.add_row(*(line(str(cell)) for cell in row))
    for column in made.columns:
        if column.no_wrap:
            # Rich measures the longest word only, and would cut off the others
            column.min_width = max(cell_len(str(text)) for text in (column.header, *column.cells))
    return made


def print_table(out: Console, made: Table) -> None:
    """Prints a table whole: on a terminal too narrow for it the lines wrap, as half an id is another id."""
    if made.row_count > MANY_ROWS:
        _print_plain(out, made)
        return
    least = Measurement.get(out, out.options.update(max_width=UNBROKEN), made).minimum
    if least > out.width:
        out = type(out)(width=least, file=out.file, markup=False, emoji=False, highlight=False)
    out.print(made)


def _print_plain(out: Console, made: Table) -> None:
    """The same columns, as wide as they need to be, on one line a row."""
    columns = [[str(column.header), *map(str, column.cells)] for column in made.columns]
    widths = [max(map(cell_len, cells)) for cells in columns]
    if made.title:
        out.file.write(f"{made.title}\n")
    for row in zip(*columns, strict=True):
        padded = (cell + " " * (width - cell_len(cell)) for cell, width in zip(row, widths, strict=True))
        out.file.write("  ".join(padded).rstrip() + "\n")


def facts(rows: Iterable[tuple[str, object]]) -> Table:
    """Names and values, one pair a line."""
    made = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    made.add_column(no_wrap=True, style="dim")
    made.add_column(overflow="fold")
    for name, value in rows:
        made.add_row(name, line(str(value)))
    return made


def print_hints(out: Console, hints: Iterable[str]) -> None:
    """What an operator should know or do, a line each."""
    for hint in hints:
        out.print(f"! {line(hint)}", style="yellow")


def print_json(document: object) -> None:
    """The one JSON document of a command. Times become RFC 3339."""
    click.echo(to_json(document))


def print_json_line(document: object) -> None:
    """One of many documents, each a line of its own, that is out at once."""
    click.echo(to_json_line(document))


def line(text: str) -> str:
    """The text on one line, harmless to a terminal."""
    return escape(text.replace("\n", "\\n").replace("\t", " "))


def confirm(question: str, *, needed: bool) -> None:
    """Goes on only if the operator says yes. Raises InvalidRequest where there is nobody to ask."""
    if not needed:
        return
    if not sys.stdin.isatty():
        raise InvalidRequest(
            f"{question} There is no terminal to ask at: pass --yes, or --dry-run to see what would be done"
        )
    if not click.confirm(question, err=True):
        raise click.ClickException("nothing was done")
