"""What `glassq dev` says: where it listens, and command lines that can be pasted into a shell."""

from __future__ import annotations

import os
import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from glassq.cli.app import App
from glassq.cli.output import line
from glassq.errors import GlassqError, SettingsError
from glassq.operations.words import span
from glassq.sources.signer import open_signer

if TYPE_CHECKING:
    from collections.abc import Iterable

    from glassq.dev.door import Door
    from glassq.dev.stack import Stack
    from glassq.settings import Settings

# By these, curl would ask a proxy for this machine. It reads HTTP_PROXY in small letters only.
PROXIES = ("http_proxy", "all_proxy", "ALL_PROXY")

# How long the link of the console works: whoever has just started this may be slow to look.
LINK_LIFE = 600.0
# The first ping of a new user, and where its token stands: in the header Authorization.
BEARER = "bearer"
OWN_BODY = '{"event": "hello", "from": "me"}'


def say_ready(stack: Stack, settings: Settings, why_no_tasks: str) -> None:
    where = f"{stack.door.url}/hooks/NAME{stack.door.by_socket}"
    click.echo(f"ready: POST {where}   settings: {shlex.quote(str(stack.config))}   (Ctrl-C stops)")
    say_tasks(stack, why_no_tasks)
    say_sources(stack, settings, settings.sources)
    click.echo(f"       {glassq_for(stack.config)} status")


def say_console(stack: Stack, why_not: str) -> None:
    """Where the console is, with a link that signs in."""
    if why_not:
        click.echo(f"console: glassq-console does not run: {line(why_not)}")
    elif link := stack.console_link(LINK_LIFE):
        port = stack.console_door.url.rpartition(":")[2] if stack.console_door else ""
        again = f"{glassq_for(stack.config)} console --link {port}"
        click.echo(f"console: {link}\n       (once, within {span(LINK_LIFE)}; another: {again})")


def say_tasks(stack: Stack, why_not: str) -> None:
    """Where tasks can be added, or why not; nothing where the settings want none."""
    if why_not:
        click.echo(f"tasks: glassq-tasks does not run: {line(why_not)}")
    elif stack.tasks_door is not None:
        click.echo(f"tasks: POST {stack.tasks_door.url}/tasks/QUEUE{stack.tasks_door.by_socket}")


def say_sources(stack: Stack, settings: Settings, names: Iterable[str]) -> None:
    """Command lines that send a ping of each of these sources, where we can sign one; to be pasted into a shell."""
    tries = []
    for name in names:
        section = settings.sources[name]
        if section.token == BEARER and section.secrets_file and not section.path_token_file:
            tries.append(_curl(stack.door, f"{stack.door.url}/hooks/{name}", section.secrets_file))
        elif _can_sign(settings, name):
            tries.append(f"{glassq_for(stack.config)} ping {name}")
    for number, command in enumerate(tries):
        click.echo(f"{'       ' if number else 'try:   '}{command}")


def _can_sign(settings: Settings, name: str) -> bool:
    """Whether `glassq ping` can send a ping of this source: for some kinds only the sender has the key."""
    try:
        signer, now = open_signer(settings, name), time.time()
        signer.sign(signer.sample("", now), now)
    except GlassqError:
        return False
    return True


def _curl(door: Door, url: str, secrets_file: str) -> str:
    """A command line that sends a ping with a token: anybody's own webhook."""
    straight = ["--noproxy", "*"] if any(os.environ.get(name) for name in PROXIES) else []
    words = ["curl", "-i", *straight, *door.curl, url, "-H", "Content-Type: application/json", "-d", OWN_BODY, "-H"]
    return f'{shlex.join(words)} "Authorization: Bearer $(head -n 1 {shlex.quote(secrets_file)})"'


def glassq_called() -> str:
    """How this program was called, short enough to type."""
    path = Path(sys.argv[0]).absolute()
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def glassq_for(config: Path) -> str:
    """`glassq` as it was called, for these settings, to be pasted into a shell."""
    try:
        found = App(None, os.environ).file
    except SettingsError:
        found = None
    words = [] if found == str(config) else ["--config", str(config)]
    return shlex.join([glassq_called(), *words])
