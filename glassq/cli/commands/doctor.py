"""`glassq doctor`: what is wrong with this installation, and what to do about it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from glassq.cli.app import App, as_json, pass_app
from glassq.cli.checks import tell
from glassq.cli.progress import Spinner
from glassq.errors import SettingsError
from glassq.operations.checks.examine import examine, without_settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from glassq.operations.checks.base import Check


@click.command()
@as_json
@pass_app
def doctor(app: App, as_json: bool) -> int:
    """Look for what is wrong with this installation, and say what to do about it.

    Nothing is changed, but for one empty job that is put and taken out again. Ask as the user that the services run as.

    Exit 0: nothing is wrong; 1: something is; 69: the queue cannot be reached; 78: the settings cannot be used.
    """
    shown = Spinner()
    return tell(app, _checks(app, shown), shown, as_json)


def _checks(app: App, shown: Spinner) -> Iterator[Check]:
    try:
        operations = app.operations
    except SettingsError as error:
        return without_settings(app.settings_file, error)
    return examine(operations, shown)
