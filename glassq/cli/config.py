"""`glassq config check`: the effective settings, and what is wrong with them."""

from __future__ import annotations

import errno
from functools import partial
from typing import TYPE_CHECKING, Any

import click
import msgspec

from glassq.cli.app import App, as_json, pass_app
from glassq.cli.output import line, print_json, without_password
from glassq.cli.programs import ask_web, ask_worker, problems_of
from glassq.cli.systemd import leaves_out_intake, listens_for_intake
from glassq.errors import SettingsError
from glassq.push.request import SOURCE
from glassq.settings import GlassSettings, as_toml
from glassq.startcheck import Finding, found

if TYPE_CHECKING:
    from glassq.settings import Settings


@click.group()
def config() -> None:
    """The settings: are they right?"""


@config.command()
@click.option(
    "--program",
    type=click.Choice(["web", "worker"]),
    help="Only check that glassq-web or glassq-worker can start with them, and print nothing.",
)
@as_json
@pass_app
def check(app: App, program: str | None, as_json: bool) -> int:
    """Print the effective settings.

    What is wrong with them is said on standard error, and the exit code is 78: all that glassq-worker or glassq-web
    would refuse at its start. Handlers are imported for that, in a process of their own.
    """
    settings: Settings | None = None
    if program:
        return _check_program(app, program, as_json=as_json)
    try:
        settings = app.settings
        problems = _problems(app)
    except SettingsError as error:
        problems = [str(error)]
    for problem in problems:
        click.echo(f"glassq: {line(problem)}", err=True)
    if as_json:
        document = _document(settings) if settings else None
        print_json({"ok": not problems, "problems": problems, "settings": document})
    elif settings:
        click.echo(without_password(as_toml(settings)), nl=False)
    return 78 if problems else 0


@config.command(hidden=True)
@click.argument("program", type=click.Choice(["web", "worker"]))
@click.argument("pid", type=int)
@pass_app
def reload(app: App, program: str, pid: int) -> int:
    """ExecReload= of the units: fails, with the reason, where a reload does not come into effect."""
    from glassq.cli.reload import reload as reload_program

    try:
        if not reload_program(program, pid, app.config, app.environ):
            click.echo("glassq: only checked, not reloaded: an upgrade is under way", err=True)
    except SettingsError as error:
        for problem in str(error).splitlines():
            click.echo(f"glassq: {line(problem)}", err=True)
        click.echo(f"glassq: not reloaded: glassq-{program} goes on with what it read before", err=True)
        return 78
    return 0


def _check_program(app: App, program: str, *, as_json: bool) -> int:
    problems = [each for problem in problems_of(program, app.file) for each in problem.splitlines()]
    for problem in problems:
        click.echo(f"glassq: {line(problem)}", err=True)
    if as_json:
        print_json({"ok": not problems, "problems": problems})
    return 78 if problems else 0


def _problems(app: App) -> list[str]:
    """All that is wrong, each once: one mistake does not hide the next."""
    settings = app.settings
    findings = [found("secret", partial(check_secret, settings, key)) for key in secrets_in_use(settings)]
    findings += ask_worker(app)
    if takes_pings(settings) and not leaves_out_intake():
        findings += [*ask_web(app), *(Finding("address", problem=problem) for problem in _refused(settings))]
    return list(dict.fromkeys(finding.problem for finding in findings if finding.problem))


def takes_pings(settings: Settings) -> bool:
    """Whether glassq-web has something to do with these settings."""
    named = any(getattr(settings.sources, name) is not None for name in settings.sources.__struct_fields__)
    return named or any(route.source != SOURCE for route in settings.routes)


def _refused(settings: Settings) -> list[str]:
    """Where glassq-web cannot listen. One that somebody listens on is most often its own."""
    # gunicorn takes a while to load
    from glassq.intake.listen import refusal, unusable

    if listens_for_intake():
        return []
    return [refusal(settings, bind, error) for bind, error in unusable(settings) if error.errno != errno.EADDRINUSE]


def secrets_in_use(settings: Settings) -> list[str]:
    """The keys of the secret files that are in use: a default counts once something needs it."""
    keys = ["sources.mirror.verify_tokens_file"] if settings.sources.mirror else []
    needed = bool(settings.glass.client_id) or any(
        route.handler.startswith("glassq.glass.") for route in settings.routes
    )
    names = ("client_secret_file", "credentials_key_file")
    changed = [name for name in names if getattr(settings.glass, name) != getattr(GlassSettings(), name)]
    return keys + [f"glass.{name}" for name in names if needed or name in changed]


def check_secret(settings: Settings, key: str) -> None:
    """Reads a secret file as the program that needs it does. Raises SettingsError."""
    if key == "glass.client_secret_file":
        from glassq.glass.google_files import client_secret

        client_secret(settings)
    elif key == "glass.credentials_key_file":
        from glassq.glass.credentials import CredentialStore

        CredentialStore.open(settings)
    else:
        settings.secret(key)


def load_push(settings: Settings) -> None:
    from glassq.push import queue_yaml

    if settings.push is not None:
        queue_yaml.load(settings.push.queue_yaml, targets=settings.push.targets)


def _document(settings: Settings) -> Any:
    """The settings as plain values: durations in seconds, sizes in bytes, secrets as the paths of their files."""
    document = msgspec.to_builtins(settings, enc_hook=_plain)
    del document["ignored"]
    document["ledger"]["url"] = without_password(settings.ledger.url)
    return document


def _plain(value: Any) -> Any:
    for kind in (str, int, float):
        if isinstance(value, kind):
            return kind(value)
    raise TypeError(f"cannot be JSON: {type(value).__name__}")
