"""`glassq doctor`: what is wrong with this installation, and what to do about it."""

from __future__ import annotations

import sys
import threading
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING

import click

from glassq.cli.app import App, as_json, pass_app
from glassq.cli.checks import Check
from glassq.cli.checks_here import HERE, clock, in_effect
from glassq.cli.checks_lost import LOST
from glassq.cli.checks_queue import QUEUE, trouble
from glassq.cli.checks_system import SYSTEM
from glassq.cli.output import PATIENCE, console, line, print_json
from glassq.errors import QueueError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from rich.console import Console

_MARKS = {True: ("ok", ""), False: ("WRONG", "bold red"), None: ("note", "yellow")}
# As wide as the longest name of a check.
_NAME = 12


@click.command()
@as_json
@pass_app
def doctor(app: App, as_json: bool) -> int:
    """Look for what is wrong with this installation, and say what to do about it.

    Nothing is changed, but for one empty job that is put and taken out again. Ask as the user that the services run as.

    Exit 0: nothing is wrong; 1: something is; 69: the queue cannot be reached; 78: the settings cannot be used.
    """
    checks = []
    out = console()
    for check in _examine(app):
        checks.append(check)
        if not as_json:
            _print(out, check)
    wrong = [check for check in checks if check.ok is False]
    if as_json:
        told = [{name: value for name, value in asdict(check).items() if name != "code"} for check in checks]
        print_json({"ok": not wrong, "checks": told})
    else:
        out.print({0: "nothing is wrong", 1: "one thing is wrong"}.get(len(wrong), f"{len(wrong)} things are wrong"))
    return max((check.code for check in wrong), default=0)


def _examine(app: App) -> Iterator[Check]:
    try:
        _ = app.settings
    except SettingsError as error:
        yield Check("settings", False, str(error), "mend it first: without settings nothing else can be looked at", 78)
        yield from in_effect(app)
        yield from clock(app)
        return
    for look in (*HERE, *SYSTEM):
        yield from _patiently(look.__name__, partial(look, app))
    with app.queue() as queue:
        try:
            server = queue.stats()
            for ask in (*QUEUE, *LOST):
                yield from _patiently(ask.__name__, partial(ask, app, queue, server))
        except QueueError as error:
            yield trouble(app, error)


def _patiently(name: str, look: Callable[[], Iterable[Check]]) -> list[Check]:
    name = name.replace("_", " ")
    with _progress(name):
        try:
            return list(look())
        except OSError as error:
            return [Check(name, False, f"cannot be looked at: {error}", "ask as the user that the services run as")]


@contextmanager
def _progress(name: str) -> Iterator[None]:
    """On a terminal, standard error says what is looked at once that takes a while."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    status = Console(stderr=True).status(f"looking at: {name}")
    timer = threading.Timer(PATIENCE, status.start)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        status.stop()


def _print(out: Console, check: Check) -> None:
    mark, style = _MARKS[check.ok]
    said = f"{check.said}: {check.todo}" if check.todo else check.said
    out.print(f"{mark:<5}  {check.name:<{_NAME}}  {line(said)}", style=style or None)
