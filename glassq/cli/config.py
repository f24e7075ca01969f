"""`glassq config check`: the effective settings, and what is wrong with them."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import click
import msgspec

from glassq.cli.app import App, as_json, pass_app
from glassq.cli.output import line, print_json
from glassq.errors import SettingsError
from glassq.mask import without_password
from glassq.settings import Glass, as_toml

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from glassq.settings import Settings


@click.group()
def config() -> None:
    """The settings: are they right?"""


@config.command()
@as_json
@pass_app
def check(app: App, as_json: bool) -> int:
    """Print the effective settings.

    What is wrong with them is said on standard error, and the exit code is 78.
    """
    settings: Settings | None = None
    try:
        settings = app.settings
        problems = [problem for each in _checks(settings) if (problem := _problem(each))]
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


def _checks(settings: Settings) -> Iterator[Callable[[], object]]:
    """What is tried, each by itself, so that one mistake does not hide the next."""
    for key in secrets_in_use(settings):
        yield partial(check_secret, settings, key)
    yield partial(load_routes, settings)
    yield partial(load_push, settings)
    yield partial(_ledger, settings)


def secrets_in_use(settings: Settings) -> list[str]:
    """The keys of the secret files that are in use: a default counts once something needs it."""
    keys = ["sources.mirror.verify_tokens_file"] if settings.sources.mirror else []
    needed = bool(settings.glass.client_id) or any(
        route.handler.startswith("glassq.glass.") for route in settings.routes
    )
    names = ("client_secret_file", "credentials_key_file")
    changed = [name for name in names if getattr(settings.glass, name) != getattr(Glass(), name)]
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


def load_routes(settings: Settings) -> None:
    from glassq import routes
    from glassq.push import queue_yaml
    from glassq.push.endpoints import endpoints

    push = settings.push
    queues = queue_yaml.load(push.queue_yaml, push.targets) if push is not None else {}
    routes.load(settings, endpoints(settings, queues))


def load_push(settings: Settings) -> None:
    from glassq.push import queue_yaml

    if settings.push is not None:
        queue_yaml.load(settings.push.queue_yaml, targets=settings.push.targets)


def _ledger(settings: Settings) -> None:
    from glassq.ledger.schema import parse_url

    parse_url(settings.ledger.url)


def _problem(check: Callable[[], object]) -> str:
    try:
        check()
    except SettingsError as error:
        return str(error)
    return ""


def _document(settings: Settings) -> Any:
    """The settings as plain values: durations in seconds, sizes in bytes, secrets as the paths of their files."""
    document = msgspec.to_builtins(settings, enc_hook=_plain)
    document["ledger"]["url"] = without_password(settings.ledger.url)
    return document


def _plain(value: Any) -> Any:
    for kind in (str, int, float):
        if isinstance(value, kind):
            return kind(value)
    raise TypeError(f"cannot be JSON: {type(value).__name__}")
