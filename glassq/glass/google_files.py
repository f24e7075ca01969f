"""Reads the JSON files that Google's tools write: a user's consent, and an OAuth client's id and secret.

Consents are written by google-auth (`Credentials.to_json()`, a quickstart's token.json), by gcloud
(application_default_credentials.json) and by oauth2client's Storage: one JSON object with the same key names; only
gcloud's has a type. Clients are downloaded from the Google API console (client_secrets.json).
No message contains a secret: for a file that is not JSON, it shows only the names of known keys.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import msgspec

from glassq.edited import read_text, trimmed
from glassq.errors import CredentialsError, UnreadableText
from glassq.mask import MASK

if TYPE_CHECKING:
    from pathlib import Path

    from glassq.settings import Settings

# Scopes of which a consent must include one: timeline methods accept either (the API's discovery document).
GLASS_SCOPES = (
    "https://www.googleapis.com/auth/glass.timeline",
    "https://www.googleapis.com/auth/glass.location",
)
CLIENT_SECRET_KEY = "glass.client_secret_file"  # noqa: S105 - a key of the settings

_OFFLINE = "; it needs offline access: ask the user again, with access_type=offline and prompt=consent"
_KEYS = re.compile(r'"(type|client_id|client_secret|refresh_token|access_token|token|token_uri|scopes?|installed|web)"')


class AuthorizedUser(msgspec.Struct, frozen=True, kw_only=True):
    """A user's consent, as one of Google's tools wrote it."""

    client_id: str
    client_secret: str
    refresh_token: str
    scopes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"AuthorizedUser(client_id={self.client_id!r})"

    @property
    def lacks_glass(self) -> bool:
        """Whether the file lists scopes, and none of them is for Glass."""
        return bool(self.scopes) and not set(self.scopes) & set(GLASS_SCOPES)


def read_authorized_user(source: str | Path) -> AuthorizedUser:
    """The user's consent in `source`: a file's path, or the JSON itself (it starts with "{").

    Raises CredentialsError, which names the file, the key and what is expected, but never a value.
    """
    if isinstance(source, str) and source.lstrip().startswith("{"):
        name, text = "authorized_user JSON", source
    else:
        name = str(source)
        try:
            text = read_text(source)
        except UnreadableText as error:
            raise CredentialsError(f"{name}: {error}") from error
    try:
        fields = _json_object(text)
        _check_consent(fields)
        return _authorized_user(fields)
    except ValueError as error:
        raise CredentialsError(f"{name}: {error}") from None


def client_secret(settings: Settings) -> str:
    """The OAuth client's secret: the first line of its file, or the secret in it, if the file is a client_secrets.json.

    Raises SettingsError, also if the client_secrets.json is that of another client.
    """
    text = settings.secret_text(CLIENT_SECRET_KEY)
    if not text.lstrip().startswith("{"):
        return settings.secret(CLIENT_SECRET_KEY)[0]
    try:
        return _secret_of(_json_object(text), settings.glass.client_id)
    except ValueError as error:
        raise settings.refused(CLIENT_SECRET_KEY, str(error)) from None


def _secret_of(fields: dict[str, Any], ours: str) -> str:
    """The secret in client_secrets.json. Raises ValueError for another kind of file, or another client than ours."""
    if "type" in fields or "refresh_token" in fields:
        expected = "expected the OAuth client's secret on a line of its own, or its client_secrets.json"
        raise ValueError(f"is {_kind(fields)}: {expected}")
    client = _wrapped(fields) or fields
    theirs = client.get("client_id")
    if ours and isinstance(theirs, str) and theirs != ours:
        raise ValueError(f"is that of the client {theirs[:100]!r}, but [glass] client_id is {ours!r}")
    return _text(client, "client_secret")


def _check_consent(fields: dict[str, Any]) -> None:
    """Raises ValueError if the file is not a usable consent."""
    if _wrapped(fields):
        raise ValueError(f"is {_kind(fields)}: expected a user's consent, with a refresh_token in it")
    if fields.get("type", "authorized_user") != "authorized_user":
        expected = "expected \"authorized_user\" (a user's consent, not a client's)"
        raise ValueError(f'key "type": {expected}; this is {_kind(fields)}')
    # oauth2client marks a consent that Google refused
    if fields.get("invalid") is True:
        raise ValueError('key "invalid" is true: the user has revoked this consent: ask for a new one')


def _authorized_user(fields: dict[str, Any]) -> AuthorizedUser:
    scopes = fields.get("scopes") or []
    if not scopes and isinstance(fields.get("scope"), str):
        scopes = fields["scope"].split()
    texts = {key: _text(fields, key) for key in ("client_id", "client_secret", "refresh_token")}
    try:
        return msgspec.convert({**texts, "scopes": scopes}, AuthorizedUser)
    except msgspec.ValidationError:
        raise ValueError('key "scopes": expected a list of texts') from None


def _text(fields: dict[str, Any], key: str) -> str:
    """A text without the spaces around it. Raises ValueError if it is missing, empty, or not printable."""
    value = fields.get(key)
    if not isinstance(value, str) or not trimmed(value):
        missing = "" if key in fields else ", and there is no such key"
        hint = _OFFLINE if key == "refresh_token" else ""
        raise ValueError(f'key "{key}": expected a text that is not empty{missing}{hint}')
    if not trimmed(value).isprintable():
        raise ValueError(f'key "{key}": holds an invisible character')
    return trimmed(value)


def _kind(fields: dict[str, Any]) -> str:
    """What kind of file it is, in words."""
    if _wrapped(fields):
        return "the OAuth client's own file (client_secrets.json)"
    if fields.get("type") == "service_account":
        return "a service account's key"
    return "a user's consent" if "refresh_token" in fields else "a file of another kind"


def _wrapped(fields: dict[str, Any]) -> dict[str, Any] | None:
    """The object under "installed" or "web" in client_secrets.json."""
    return next((found for kind in ("installed", "web") if isinstance(found := fields.get(kind), dict)), None)


def _json_object(text: str) -> dict[str, Any]:
    """Raises ValueError with the place of the mistake."""
    try:
        fields = json.loads(text)
    except json.JSONDecodeError as error:
        line = text.split("\n")[error.lineno - 1]
        shown = ", ".join(f'"{key}": ***' for key in _KEYS.findall(line)) or MASK
        # json's message ends with the position, which our message has at its start
        why = (error.msg[:1].lower() + error.msg[1:]).removesuffix(" at")
        raise ValueError(f"line {error.lineno}, column {error.colno}: is not JSON: {why}: {shown}") from None
    except RecursionError:
        raise ValueError("expected a JSON object, and this one is nested too deeply") from None
    if not isinstance(fields, dict):
        raise ValueError("expected a JSON object")
    return fields
