"""`glassq doctor`: what is wrong with this installation, and what to do about it."""

from __future__ import annotations

import sys
import threading
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from glassq.cli.app import App, as_json, pass_app
from glassq.cli.output import console, line, print_json
from glassq.cli.progress import BAR_AFTER
from glassq.errors import SettingsError
from glassq.operations.checks.examine import examine, without_settings
from glassq.operations.progress import Silent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console
    from rich.status import Status

    from glassq.operations.checks.base import Check

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
    out, shown = console(), _Spinner()
    try:
        for check in _checks(app, shown):
            shown.stop()
            checks.append(check)
            if not as_json:
                _print(app, out, check)
    finally:
        shown.stop()
    wrong = [check for check in checks if check.ok is False]
    if as_json:
        print_json({"ok": not wrong, "checks": [_document(app, check) for check in checks]})
    else:
        out.print({0: "nothing is wrong", 1: "one thing is wrong"}.get(len(wrong), f"{len(wrong)} things are wrong"))
    return max((check.code for check in wrong), default=0)


def _checks(app: App, shown: _Spinner) -> Iterator[Check]:
    try:
        operations = app.operations
    except SettingsError as error:
        return without_settings(app.settings_file, error)
    return examine(operations, shown)


class _Spinner(Silent):
    """On a terminal, standard error says what is looked at once that takes a while."""

    def __init__(self) -> None:
        self._words = ""
        self._timer: threading.Timer | None = None
        self._status: Status | None = None

    def advance(self, done: int, total: int, words: str) -> None:
        """Something else is looked at, where the words are others."""
        if words == self._words or not sys.stderr.isatty():
            return
        from rich.console import Console

        self.stop()
        self._words = words
        self._status = Console(stderr=True).status(words)
        self._timer = threading.Timer(BAR_AFTER, self._status.start)
        self._timer.start()

    def stop(self) -> None:
        """Nothing is said any more until something else is looked at."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer.join()
            self._timer = None
        if self._status is not None:
            self._status.stop()
            self._status = None


def _print(app: App, out: Console, check: Check) -> None:
    mark, style = _MARKS[check.ok]
    out.print(f"{mark:<5}  {check.name:<{_NAME}}  {line(app.adapt(str(check)))}", style=style or None)


def _document(app: App, check: Check) -> dict[str, object]:
    fields = {name: value for name, value in asdict(check).items() if name != "code"}
    return {**fields, "said": app.adapt(check.said), "todo": app.adapt(check.todo)}
