"""`glassq users` and `glassq subscribe`: users who have given consent, and asking Google to send pings for them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from glassq.cli.app import App, as_json, pass_app
from glassq.cli.group import CommandGroup
from glassq.cli.output import console, line, print_json, print_table, table
from glassq.errors import CredentialsError, SettingsError
from glassq.operations.words import moment
from glassq.sources.mirror import MAX_TEXT

if TYPE_CHECKING:
    from glassq.glass.credentials import CredentialStore


@click.group(cls=CommandGroup)
def users() -> None:
    """List, add and remove users who have given consent."""


@users.command()
@click.argument("user")
@click.option(
    "--from",
    "file",
    metavar="FILE",
    required=True,
    type=click.Path(path_type=Path),
    help="What google-auth, gcloud or oauth2client wrote (token.json), with a refresh_token.",
)
@as_json
@pass_app
def add(app: App, user: str, file: Path, as_json: bool) -> None:
    """Store USER's consent, in place of an older one."""
    from glassq.glass.google_files import GLASS_SCOPES, read_authorized_user

    if not user.strip() or not user.isprintable() or len(user) > MAX_TEXT:
        expected = f"expected the user's id, as pings name it in userToken: up to {MAX_TEXT} printable characters"
        raise click.BadParameter(expected, param_hint="USER")
    try:
        consent = read_authorized_user(file)
    except CredentialsError as error:
        raise click.ClickException(line(str(error))) from None
    ours = app.settings.glass.client_id
    if ours and consent.client_id != ours:
        raise click.ClickException(
            f"{file}: was given to the client {line(consent.client_id)}, but [glass] client_id is {ours}: "
            "the refresh token of one client does not work for another. Ask the user's consent for yours."
        )
    if consent.lacks_glass:
        raise click.ClickException(
            f"{file}: is a consent to {line(' '.join(consent.scopes))}, which has nothing of Glass: ask the user's "
            f"consent again, with the scope {GLASS_SCOPES[0]}"
        )
    _store(app).add(user, consent.refresh_token, consent.scopes)
    app.has_done("users add", filter_=f"user={user}")
    if as_json:
        print_json({"user": user, "stored": True})
    else:
        click.echo(f"stored the consent of {line(user)}")


@users.command("list")
@as_json
@pass_app
def list_(app: App, as_json: bool) -> int:
    """Every user whose consent is stored, revoked ones too."""
    known, damaged = _store(app).list()
    for error in damaged:
        click.echo(f"glassq: {line(str(error))}", err=True)
    if as_json:
        fields = ("user", "state", "scopes", "updated")
        rows = [{name: getattr(each, name) for name in fields} for each in known]
        print_json({"users": rows, "damaged": [str(error) for error in damaged]})
    elif known:
        cells = [(each.user, each.state, moment(each.updated), " ".join(each.scopes)) for each in known]
        print_table(console(), table("", ("user", "state", "updated", "scopes"), cells, wraps="scopes"))
    elif not damaged:
        console().print(f"no users: add one with {app.command('users add USER --from FILE')}")
    return int(bool(damaged))


@users.command()
@click.argument("user")
@as_json
@pass_app
def remove(app: App, user: str, as_json: bool) -> int:
    """Forget USER's consent."""
    removed = _store(app).remove(user)
    app.has_done("users remove", done=int(removed), filter_=f"user={user}")
    if as_json:
        print_json({"user": user, "removed": removed})
    else:
        what = "removed the consent of" if removed else "there is no consent of"
        click.echo(f"{what} {line(user)}", err=not removed)
    return int(not removed)


@users.command("new-key")
@as_json
@pass_app
def new_key(app: App, as_json: bool) -> None:
    """Write a new key for stored consents.

    It goes to the file that [glass] credentials_key_file names; never over an old one.
    """
    from glassq.glass.credentials import new_key

    path = Path(app.settings.glass.credentials_key_file)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except FileExistsError:
        raise click.ClickException(
            f"{path}: is there already, and is not overwritten: without it no stored consent can be read. To rotate "
            "keys, put a new one on the first line and keep the old one below it."
        ) from None
    except OSError as error:
        raise SettingsError(
            f'{app.settings.file}: [glass] credentials_key_file = "{path}": cannot be written: {error.strerror}'
        ) from None
    with os.fdopen(descriptor, "w") as file:
        file.write(new_key() + "\n")
        file.flush()
        os.fsync(descriptor)
    # it stands at the beginning of an installation: there may be no ledger yet
    app.has_done("users new-key", filter_=str(path), warn=False)
    if as_json:
        print_json({"file": str(path)})
    else:
        click.echo(f"wrote a new key to {path}: keep a copy where the stored consents are not")


@click.command()
@click.argument("user")
@click.option("--collection", metavar="NAME", required=True, help="What about: timeline, locations or settings.")
@click.option("--callback", required=True, metavar="URL", help="Where the pings go: https://HOST/hooks/mirror.")
@click.option(
    "--operation",
    "operations",
    metavar="NAME",
    multiple=True,
    help="INSERT, UPDATE, DELETE or MENU_ACTION; several times; else all.",
)
@as_json
@pass_app
def subscribe(app: App, user: str, collection: str, callback: str, operations: tuple[str, ...], as_json: bool) -> None:
    """Ask Google to send pings about USER."""
    settings = app.settings
    if "mirror" not in settings.sources:
        raise SettingsError(f"{settings.file}: no [sources.mirror]: expected it, with verify_tokens_file")
    token = settings.secret("sources.mirror.verify_tokens_file")[0]
    from glassq.glass import subscriptions

    try:
        made = subscriptions.subscribe(settings, user, collection, callback, token, operations)
    except ValueError as error:
        raise click.UsageError(line(str(error))) from None
    app.has_done("subscribe", filter_=f"user={user} collection={collection}")
    if as_json:
        print_json(made)
    else:
        click.echo(f"subscribed {line(user)}: {line(str(made.get('id', 'the API said no id')))}")


def _store(app: App) -> CredentialStore:
    from glassq.glass.credentials import CredentialStore

    return CredentialStore.open(app.settings)
