"""`glassq console`: the web console in the foreground, for whoever has no service of it."""

from __future__ import annotations

import os
import socket
from typing import NoReturn

import click

from glassq import daemons
from glassq.cli.app import App, examples, pass_app

PORT = click.IntRange(1, 65_535)


@click.command(
    epilog=examples(
        ("on this machine, until Ctrl-C", "glassq console"),
        ("another link for the console that runs on that port", "glassq console --link 8099"),
        ("the service's console on another machine", "ssh -L 8099:/run/glassq-console.sock HOST"),
    )
)
@click.option("--port", metavar="N", type=PORT, help="The port of 127.0.0.1 that it listens on; else a free one.")
@click.option("--link", metavar="N", type=PORT, help="Only print a new link for the console on this port.")
@pass_app
def console(app: App, port: int | None, link: int | None) -> NoReturn:
    """Run the web console in the foreground: what is wrong, why, and one button that mends it.

    It listens on this machine alone, and prints a link that signs you in as an operator, once, within a minute. On a
    machine with the unit glassq-console.service nothing has to be started: docs/console.md.
    """
    if link is not None:
        _become(app, "--link", str(link))
    _become(app, "--foreground", str(port or _free_port()))


def _become(app: App, *options: str) -> NoReturn:
    words = [*daemons.command("console", app.file), *options]
    # Ctrl-C and the terminal are the console's from here on
    os.execv(words[0], words)  # noqa: S606


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])
