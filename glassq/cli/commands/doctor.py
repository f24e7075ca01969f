"""`glassq doctor`: what is wrong with this installation, and what to do about it."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from glassq.cli.app import App, as_json, pass_app
from glassq.cli.output import console, line, print_json
from glassq.cli.progress import Spinner
from glassq.errors import SettingsError
from glassq.operations.checks.examine import examine, without_settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

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
    out, shown = console(), Spinner()
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


def _checks(app: App, shown: Spinner) -> Iterator[Check]:
    try:
        operations = app.operations
    except SettingsError as error:
        return without_settings(app.settings_file, error)
    return examine(operations, shown)


def _print(app: App, out: Console, check: Check) -> None:
    mark, style = _MARKS[check.ok]
    out.print(f"{mark:<5}  {check.name:<{_NAME}}  {line(app.adapt(str(check)))}", style=style or None)


def _document(app: App, check: Check) -> dict[str, object]:
    fields = {name: value for name, value in asdict(check).items() if name != "code"}
    return {**fields, "said": app.adapt(check.said), "todo": app.adapt(check.todo)}
