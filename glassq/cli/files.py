"""Files that an operator names on the command line."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from glassq.cli.output import line

# The largest body of a ping, and the head of a saved request; in bytes.
MAX_SAVED = (25 << 20) + (64 << 10)


def read_input(file: str, most: int, what: str = "body") -> bytes:
    """The file, or with "-" standard input, as far as `most` bytes. Raises click.ClickException."""
    try:
        if file != "-":
            with Path(file).open("rb") as opened:
                return opened.read(most)
        if sys.stdin is None:
            raise click.ClickException("standard input is closed: name a file")
        if sys.stdin.isatty():
            click.echo(f"glassq: type the {what}, then press Ctrl-D", err=True)
        return sys.stdin.buffer.read(most)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise click.ClickException(f"{line(file)} cannot be read: {why}") from None
