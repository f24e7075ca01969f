"""How commands speak: one JSON document, or tables and lines for people.

Strings out of a delivery were written by a stranger. Everything printed here is plain text, never markup, with control
characters written out, so that none can move a cursor, change a title or hide a line.
"""

from __future__ import annotations

import re
import sys
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import click
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from glassq.errors import InvalidRequest
from glassq.log import escape
from glassq.operations.document import to_json, to_json_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

# Narrower than this, words are no longer read as sentences.
MIN_WORDS = 30
# Between two columns; and before what is folded below a row.
GAP = 2
INDENT = "  "
# A command in a sentence is to be copied: the terminal may break it, we do not. wrap() leaves this blank alone.
_COMMAND = re.compile(r"`[^`]+`")
_UNBROKEN_BLANK = "\xa0"
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
    made = Table(title=title or None, title_justify="left", title_style="bold", box=None, padding=(0, GAP, 0, 0))
    for name in columns:
        made.add_column(name, no_wrap=name != wraps, overflow="fold", header_style="dim")
    for row in rows:
        made.add_row(*(line(str(cell)) for cell in row))
    for column in made.columns:
        # Rich measures the longest word only, and would cut off the others
        widest = max(cell_len(str(text)) for text in (column.header, *column.cells))
        column.min_width = widest if column.no_wrap else min(widest, MIN_WORDS)
    return made


def print_table(out: Console, made: Table) -> None:
    """Prints a table whole, as half an id is another id.

    On a terminal too narrow for it, the words of the column that wraps stand on lines of their own below each row; if
    that is still too wide, each row is a paragraph of names and values.
    """
    columns = [[str(column.header), *map(str, column.cells)] for column in made.columns]
    least = [(column.min_width or 0) + GAP for column in made.columns]
    words = [place for place, column in enumerate(made.columns) if not column.no_wrap]
    if sum(least) <= out.width:
        if made.row_count > MANY_ROWS:
            _print_plain(out, columns, str(made.title or ""))
        else:
            out.print(made)
    elif words and sum(least) - least[words[0]] - GAP <= out.width:
        _print_below(out, columns, words[0])
    else:
        _print_paragraphs(out, columns)


def _print_below(out: Console, columns: list[list[str]], words: int) -> None:
    """Each row on a line, and below it, indented, the cell of the column `words`."""
    others = [cells for place, cells in enumerate(columns) if place != words]
    widths = [max(map(cell_len, cells)) for cells in others]
    for number, (text, *row) in enumerate(zip(columns[words], *others, strict=True)):
        style = "" if number else "dim"
        out.print(Text(_padded(row, widths), style), soft_wrap=True)
        _print_indented(out, Text(text, style))


def _print_paragraphs(out: Console, columns: list[list[str]]) -> None:
    """Each row as its names and values, as many on a line as fit; those without a value are left out."""
    names, *rows = zip(*columns, strict=True)
    for first, *cells in rows:
        out.print(Text.assemble((f"{names[0]} ", "dim"), (first, "bold")), soft_wrap=True)
        packed = Text()
        for name, cell in zip(names[1:], cells, strict=True):
            pair = Text.assemble((f"{name} ", "dim"), cell)
            if cell in ("", "-"):
                continue
            if packed and len(INDENT) + packed.cell_len + GAP + pair.cell_len > out.width:
                _print_indented(out, packed)
                packed = Text()
            packed = Text.assemble(packed, " " * GAP if packed else "", pair)
        _print_indented(out, packed)


def _print_indented(out: Console, text: Text) -> None:
    """The text, folded; nothing of an empty one, nor of a dash, which says that there is nothing."""
    if text.plain in ("", "-"):
        return
    if len(INDENT) + text.cell_len <= out.width:
        out.print(Text.assemble(INDENT, text), soft_wrap=True)
    else:
        print_folded(out, INDENT + text.plain, len(INDENT), str(text.style))


def print_folded(out: Console, text: str, indent: int, style: str = "", *, dim: int = 0) -> None:
    """Prints a text in lines that are broken between words alone, as half a path is another one; not within `commands`.

    All lines but the first begin with `indent` blanks; the first so many characters are `dim`.
    """
    lines = [text]
    if cell_len(text) > out.width:
        room = max(out.width, indent + MIN_WORDS)
        whole = _COMMAND.sub(lambda found: found[0].replace(" ", _UNBROKEN_BLANK), text)
        lines = wrap(whole, room, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False)
    for number, each in enumerate(lines):
        shown = Text(each.replace(_UNBROKEN_BLANK, " "), style)
        if number == 0:
            shown.stylize("dim", 0, dim)
        out.print(shown, soft_wrap=True)


def _padded(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = (cell + " " * (width - cell_len(cell)) for cell, width in zip(row, widths, strict=True))
    return (" " * GAP).join(cells).rstrip()


def _print_plain(out: Console, columns: list[list[str]], title: str) -> None:
    """The same columns, as wide as they need to be, on one line a row."""
    widths = [max(map(cell_len, cells)) for cells in columns]
    if title:
        out.file.write(f"{title}\n")
    for row in zip(*columns, strict=True):
        out.file.write(f"{_padded(row, widths)}\n")


def facts(rows: Iterable[tuple[str, object]]) -> Table:
    """Names and values, one pair a line, for a picture that is as wide as the terminal."""
    made = Table(box=None, show_header=False, padding=(0, GAP, 0, 0))
    made.add_column(no_wrap=True, style="dim")
    made.add_column(overflow="fold")
    for name, value in rows:
        made.add_row(name, line(str(value)))
    return made


def print_facts(out: Console, rows: Iterable[tuple[str, object]]) -> None:
    """Prints names and values, one pair a line; what is too long is folded."""
    pairs = [(name, line(str(value))) for name, value in rows]
    wide = max((cell_len(name) for name, _ in pairs), default=0) + GAP
    for name, value in pairs:
        print_folded(out, (name + " " * (wide - cell_len(name)) + value).rstrip(), wide, dim=len(name))


def print_hints(out: Console, hints: Iterable[str]) -> None:
    """What an operator should know or do, a line each."""
    for hint in hints:
        print_folded(out, f"! {line(hint)}", len(INDENT), "yellow")


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
