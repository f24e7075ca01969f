"""`glassq config check`: the effective settings, and what is wrong with them."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import click

from glassq.cli.app import App, as_json, pass_app
from glassq.cli.group import CommandGroup
from glassq.cli.output import line, print_json
from glassq.daemons import problems_of
from glassq.errors import SettingsError
from glassq.operations.checks import configuration
from glassq.settings import as_toml, remarks_on_shared
from glassq.values import without_password

if TYPE_CHECKING:
    from collections.abc import Iterable

    from glassq.settings import Settings

PROGRAMS = click.Choice(["web", "worker", "tasks", "console"])


@click.group(cls=CommandGroup)
def config() -> None:
    """The settings: are they right?"""


@config.command()
@click.option(
    "--program",
    type=PROGRAMS,
    help="Only check that glassq-PROGRAM can start with them, and print nothing.",
)
@as_json
@pass_app
def check(app: App, program: str | None, as_json: bool) -> int:
    """Print the effective settings.

    What is wrong with them is said on standard error, and the exit code is 78: all that glassq-worker or glassq-web
    would refuse at its start. Handlers are imported for that, in a process of their own. Keys by the names of an older
    version are said there, too, with their new names, and what is on this host alone while the queue is for many.
    """
    settings: Settings | None = None
    if program:
        problems = [words for problem in problems_of(program, app.file) for words in problem.splitlines()]
    else:
        try:
            settings = app.settings
            problems = configuration.problems(settings)
        except SettingsError as error:
            problems = [str(error)]
    outdated = settings.outdated if settings else ()
    remarks: tuple[str, ...] = ()
    if settings and not program:
        said = (remarks_on_shared, *configuration.REMARKS)
        remarks = tuple(words for remarks_on in said for words in remarks_on(settings))
    _say([*problems, *outdated, *remarks])
    if as_json:
        document = configuration.document(settings) if settings else None
        more = {} if program else {"outdated": outdated, "remarks": remarks, "settings": document}
        print_json({"ok": not problems, "problems": problems, **more})
    elif settings:
        click.echo(without_password(as_toml(settings)), nl=False)
    return 78 if problems else 0


@config.command(hidden=True)
@click.argument("program", type=PROGRAMS)
@click.argument("pid", type=int)
@pass_app
def reload(app: App, program: str, pid: int) -> int:
    """ExecReload= of the units: fails, with the reason, where a reload does not come into effect."""
    from glassq.operations.reload import reload as reload_program

    try:
        if reload_program(program, pid, app.config, app.environ.get("RUNTIME_DIRECTORY", "")):
            _record(app, program)
        else:
            click.echo("glassq: only checked, not reloaded: an upgrade is under way", err=True)
    except SettingsError as error:
        _say([*str(error).splitlines(), f"not reloaded: glassq-{program} goes on with what it read before"])
        _record(app, program, failed=str(error))
        return 78
    return 0


def _record(app: App, program: str, failed: str = "") -> None:
    """Nothing depends on it: the unit may not reach the ledger, and settings that are refused may not name it."""
    with suppress(SettingsError):
        app.has_done("reload", filter_=f"glassq-{program}", failed=failed, warn=False)


def _say(problems: Iterable[str]) -> None:
    for problem in problems:
        click.echo(f"glassq: {line(problem)}", err=True)
