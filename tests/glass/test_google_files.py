"""What Google's own tools write is read, and what is missing in it is said."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from google.oauth2.credentials import Credentials

from glassq.errors import CredentialsError, SettingsError
from glassq.glass.google_files import client_secret, read_authorized_user
from glassq.settings import parse

if TYPE_CHECKING:
    from pathlib import Path

TIMELINE = "https://www.googleapis.com/auth/glass.timeline"

CONSENT = {"type": "authorized_user", "client_id": "c", "client_secret": "hush", "refresh_token": "r"}


def test_an_authorized_user_is_read_from_a_file_or_from_text(tmp_path: Path) -> None:
    text = json.dumps({**CONSENT, "scopes": ["s"], "universe_domain": "googleapis.com"})
    (tmp_path / "ada.json").write_text(text)
    for source in (tmp_path / "ada.json", str(tmp_path / "ada.json"), "\n" + text):
        user = read_authorized_user(source)
        assert (user.client_id, user.client_secret, user.refresh_token, user.scopes) == ("c", "hush", "r", ("s",))
        assert "hush" not in repr(user)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"type": "service_account"}, 'key "type": expected "authorized_user"'),
        ({"type": None}, 'key "type"'),
        ({"client_id": ""}, 'key "client_id": expected a text'),
        ({"client_secret": 7}, 'key "client_secret": expected a text'),
        ({"refresh_token": None}, 'key "refresh_token": expected a text'),
        ({"scopes": "one"}, 'key "scopes": expected a list'),
    ],
)
def test_a_wrong_authorized_user_is_refused_with_file_and_key(
    tmp_path: Path, change: dict[str, object], expected: str
) -> None:
    (tmp_path / "ada.json").write_text(json.dumps({**CONSENT, **change}))
    with pytest.raises(CredentialsError, match=expected) as caught:
        read_authorized_user(tmp_path / "ada.json")
    assert "ada.json" in str(caught.value)
    assert "hush" not in str(caught.value)


def token_json() -> str:
    """token.json, by the library that writes it."""
    credentials: Any = Credentials(  # type: ignore[no-untyped-call]
        "hush-access",
        refresh_token="hush-refresh",
        token_uri="https://oauth2.googleapis.com/token",
        client_id="c",
        client_secret="hush",
        scopes=[TIMELINE],
        expiry=datetime(2026, 1, 31, 12, tzinfo=UTC).replace(tzinfo=None),
    )
    return str(credentials.to_json())


# application_default_credentials.json, and the file of an oauth2client Storage.
GCLOUD = {**CONSENT, "account": "", "quota_project_id": "p", "universe_domain": "googleapis.com"}
OAUTH2CLIENT = {
    "access_token": "hush-access",
    "client_id": "c",
    "client_secret": "hush",
    "refresh_token": "hush-refresh",
    "token_expiry": "2026-01-31T12:00:00Z",
    "token_uri": "https://oauth2.googleapis.com/token",
    "user_agent": None,
    "revoke_uri": "https://oauth2.googleapis.com/revoke",
    "id_token": None,
    "token_response": {"access_token": "hush-access", "expires_in": 3600, "token_type": "Bearer"},
    "scopes": [TIMELINE],
    "token_info_uri": "https://oauth2.googleapis.com/tokeninfo",
    "invalid": False,
    "_class": "OAuth2Credentials",
    "_module": "oauth2client.client",
}


@pytest.mark.parametrize(
    "text",
    [token_json(), json.dumps(GCLOUD), json.dumps(OAUTH2CLIENT)],
    ids=["google-auth", "gcloud", "oauth2client"],
)
def test_a_consent_is_read_as_each_of_googles_tools_writes_it(tmp_path: Path, text: str) -> None:
    for data in (text.encode(), text.encode("utf-8-sig"), json.dumps(json.loads(text), indent=2).encode()):
        (tmp_path / "token.json").write_bytes(data.replace(b"\n", b"\r\n"))
        user = read_authorized_user(tmp_path / "token.json")
        assert (user.client_id, user.client_secret) == ("c", "hush")
        assert user.refresh_token in ("hush-refresh", "r")
        assert not user.lacks_glass


def test_spaces_around_a_value_that_was_pasted_do_not_belong_to_it() -> None:
    user = read_authorized_user(json.dumps({**CONSENT, "refresh_token": " hush\u00a0\n"}))
    assert user.refresh_token == "hush"


@pytest.mark.parametrize(
    ("scopes", "lacks"),
    [
        ([], False),
        ([TIMELINE, "openid"], False),
        (["https://www.googleapis.com/auth/glass.location"], False),
        (["openid", "https://www.googleapis.com/auth/drive"], True),
    ],
)
def test_a_consent_to_nothing_of_glass_is_known(scopes: list[str], lacks: bool) -> None:
    assert read_authorized_user(json.dumps({**CONSENT, "scopes": scopes})).lacks_glass is lacks
    assert read_authorized_user(json.dumps({**CONSENT, "scope": " ".join(scopes)})).lacks_glass is lacks


OFFLINE = "it needs offline access: ask the user again, with access_type=offline and prompt=consent"
CLIENT = {"client_id": "c", "client_secret": "hush", "auth_uri": "https://a", "redirect_uris": ["http://localhost"]}
SERVICE = {"type": "service_account", "private_key": "hush", "client_email": "e", "client_id": "1"}


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({**json.loads(token_json()), "refresh_token": None}, OFFLINE),
        (
            {name: value for name, value in OAUTH2CLIENT.items() if name != "refresh_token"},
            f'key "refresh_token": expected a text that is not empty, and there is no such key; {OFFLINE}',
        ),
        ({**OAUTH2CLIENT, "invalid": True}, "the user has revoked this consent"),
        ({"installed": CLIENT}, "is the OAuth client's own file (client_secrets.json): expected a user's consent"),
        ({"web": CLIENT}, "is the OAuth client's own file (client_secrets.json): expected a user's consent"),
        (SERVICE, "this is a service account's key"),
        ({"type": "external_account"}, "this is a file of another kind"),
        ({"access_token": "hush", "refresh_token": "hush"}, 'key "client_id": expected a text that is not empty, and'),
        ({**CONSENT, "refresh_token": "hu\u200bsh"}, 'key "refresh_token": holds an invisible character'),
        ({}, 'key "client_id"'),
    ],
)
def test_a_file_that_is_no_whole_consent_says_what_it_is_or_what_is_missing(
    tmp_path: Path, fields: dict[str, object], says: str
) -> None:
    (tmp_path / "ada.json").write_text(json.dumps(fields))
    with pytest.raises(CredentialsError) as caught:
        read_authorized_user(tmp_path / "ada.json")
    assert str(caught.value).startswith(f"{tmp_path}/ada.json: ")
    assert says in str(caught.value)
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            '{\n  "client_id": "c",\n  "refresh_token": "hush\n}',
            'line 3, column 25: is not JSON: invalid control character: "',
        ),
        ('{"client_id": "c" "refresh_token": "hush"}', '"client_id": ***, "refresh_token": ***'),
        ("hush\n", "line 1, column 1: is not JSON: expecting value: ***"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_what_is_not_json_is_shown_with_its_line_and_without_its_values(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "ada.json").write_text(text)
    with pytest.raises(CredentialsError) as caught:
        read_authorized_user(tmp_path / "ada.json")
    assert says in str(caught.value)
    assert "hush" not in str(caught.value)
    assert "\n" not in str(caught.value)


def secret_in(tmp_path: Path, content: str, client: str = "c") -> str:
    (tmp_path / "secret").write_text(content)
    return client_secret(parse(f'[glass]\nclient_id = "{client}"\nclient_secret_file = "{tmp_path}/secret"', "g.toml"))


@pytest.mark.parametrize(
    "content",
    [
        "hush\n",
        "# from the console\nhush\nolder\n",
        json.dumps({"installed": CLIENT}),
        "\ufeff" + json.dumps({"web": CLIENT}, indent=2) + "\n",
        json.dumps(CLIENT),
    ],
)
def test_the_clients_secret_is_a_line_or_the_file_that_the_console_gives(tmp_path: Path, content: str) -> None:
    assert secret_in(tmp_path, content) == "hush"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (
            json.dumps({"installed": {**CLIENT, "client_id": "d"}}),
            "is that of the client 'd', but [glass] client_id is 'c'",
        ),
        (json.dumps({"web": {"client_id": "c"}}), 'key "client_secret": expected a text that is not empty'),
        (json.dumps(CONSENT), "is a user's consent: expected the OAuth client's secret"),
        (token_json(), "is a user's consent: expected the OAuth client's secret"),
        (json.dumps(SERVICE), "is a service account's key: expected the OAuth client's secret"),
        (
            '{\n"installed": {"client_secret": hush}}',
            'line 2, column 32: is not JSON: expecting value: "installed": ***',
        ),
        ("", "is empty"),
    ],
)
def test_another_file_in_place_of_the_clients_secret_is_refused(tmp_path: Path, content: str, says: str) -> None:
    with pytest.raises(SettingsError) as caught:
        secret_in(tmp_path, content)
    assert str(caught.value).startswith(f'g.toml: [glass] client_secret_file = "{tmp_path}/secret": the file ')
    assert says in str(caught.value)
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff\xfe"])
def test_a_file_that_is_no_json_object_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "ada.json").write_bytes(content)
    with pytest.raises(CredentialsError, match=r"ada\.json"):
        read_authorized_user(tmp_path / "ada.json")
    with pytest.raises(CredentialsError, match=r"none\.json: cannot be read"):
        read_authorized_user(tmp_path / "none.json")
