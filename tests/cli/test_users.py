"""`glassq users` and `glassq subscribe`, the latter against the simulated Glass."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from glassq.dev.simulator.glass import SimulatedGlass
from tests.cli.conftest import a_delivery

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Cli

CONSENT = {
    "type": "authorized_user",
    "client_id": "ours.apps.googleusercontent.com",
    "client_secret": "s3cret-client",
    "refresh_token": "s3cret-refresh",
}


@pytest.fixture
def glass(offline: Cli) -> Cli:
    directory = offline.directory
    (directory / "tokens").write_text("# newest first\ns3cret-verify\nolder\n")
    (directory / "client-secret").write_text("s3cret-client\n")
    offline.configure(
        f'[sources.mirror]\nverify_tokens_file = "{directory}/tokens"\n'
        f'[glass]\nclient_id = "{CONSENT["client_id"]}"\ncredentials = "{directory}/credentials"\n'
        f'credentials_key_file = "{directory}/key"\nclient_secret_file = "{directory}/client-secret"\n'
    )
    assert offline("users", "new-key").code == 0
    return offline


def consent(cli: Cli, **changes: str) -> str:
    file: Path = cli.directory / "consent.json"
    file.write_text(json.dumps({**CONSENT, **changes}))
    return str(file)


def test_a_new_key_is_for_its_owner_alone_and_never_replaces_one(glass: Cli) -> None:
    key = glass.directory / "key"
    before = key.read_text()
    assert key.stat().st_mode & 0o777 == 0o600
    said = glass("users", "new-key")
    assert said.code == 1
    assert "not overwritten" in said.err
    assert key.read_text() == before
    assert before.strip() not in said.out + said.err


def test_a_key_that_cannot_be_written_is_a_matter_of_configuration(glass: Cli) -> None:
    text = glass.file.read_text().replace(f"{glass.directory}/key", f"{glass.directory}/nowhere/key")
    glass.file.write_text(text)
    said = glass("users", "new-key")
    assert said.code == 78
    assert "credentials_key_file" in said.err


def test_users_are_added_listed_and_removed(glass: Cli) -> None:
    assert glass("users", "list").out.startswith("no users")
    assert glass("users", "add", "ada", "--from", consent(glass)).code == 0
    listed = glass("users", "list", "--json")
    assert [(user["user"], user["state"]) for user in listed.json["users"]] == [("ada", "active")]
    assert "s3cret" not in listed.out + glass("users", "list").out
    assert glass("users", "remove", "ada", "--json").json == {"user": "ada", "removed": True}
    assert glass("users", "remove", "ada").code == 1
    assert glass("users", "list", "--json").json == {"users": [], "damaged": []}


def test_who_added_and_removed_whom_stands_in_the_activity(glass: Cli) -> None:
    glass.record(a_delivery(), "done")
    with SimulatedGlass() as simulated:
        command = subscribed(glass, simulated, "--callback", "https://glass.example/hooks/mirror")
        assert glass(*command).code == 0
    assert glass("users", "remove", "ada").code == 0
    assert glass("users", "remove", "ada").code == 1
    (glass.directory / "key").unlink()
    assert glass("users", "new-key").code == 0
    told = glass("activity", "--json")
    assert [(each["did"], each["filter"], each["state"]) for each in told.json["activities"]] == [
        ("users new-key", f"{glass.directory}/key", "done"),
        ("users remove", "user=ada", "done"),
        ("subscribe", "user=ada collection=timeline", "done"),
        ("users add", "user=ada", "done"),
    ]
    assert "s3cret" not in told.out


def test_the_consent_for_another_client_is_refused(glass: Cli) -> None:
    said = glass("users", "add", "ada", "--from", consent(glass, client_id="theirs"))
    assert said.code == 1
    assert "was given to the client theirs" in said.err
    assert glass("users", "list", "--json").json["users"] == []


@pytest.mark.parametrize("name", ["ж" * 60, "👓", "..", "u" * 512])
def test_any_printable_id_that_a_ping_can_have_is_a_users(glass: Cli, name: str) -> None:
    assert glass("users", "add", name, "--from", consent(glass)).code == 0
    assert [user["user"] for user in glass("users", "list", "--json").json["users"]] == [name]


@pytest.mark.parametrize("name", ["", " ", "a\u200bb", "u" * 513])
def test_an_id_that_no_ping_can_have_is_a_mistake_of_the_command_line(glass: Cli, name: str) -> None:
    said = glass("users", "add", name, "--from", consent(glass))
    assert said.code == 2
    assert "up to 512 printable characters" in said.err


def test_a_token_json_without_a_type_is_taken(glass: Cli) -> None:
    file = glass.directory / "token.json"
    fields = {**{name: CONSENT[name] for name in CONSENT if name != "type"}, "token": "s3cret-access", "expiry": "x"}
    file.write_bytes(json.dumps(fields, indent=2).encode("utf-8-sig"))
    assert glass("users", "add", "ada", "--from", str(file)).code == 0


def test_a_consent_to_nothing_of_glass_is_refused_with_the_scope_to_ask_for(glass: Cli) -> None:
    file = glass.directory / "token.json"
    file.write_text(json.dumps({**CONSENT, "scopes": ["openid"]}))
    said = glass("users", "add", "ada", "--from", str(file))
    assert said.code == 1
    assert "is a consent to openid, which has nothing of Glass" in said.err
    assert "https://www.googleapis.com/auth/glass.timeline" in said.err
    assert glass("users", "list", "--json").json["users"] == []


@pytest.mark.parametrize("changes", [{"type": "service_account"}, {"refresh_token": ""}])
def test_a_file_that_is_no_consent_is_refused_without_its_content(glass: Cli, changes: dict[str, str]) -> None:
    said = glass("users", "add", "ada", "--from", consent(glass, **changes))
    assert said.code == 1
    assert "consent.json" in said.err
    assert "s3cret" not in said.err


def test_a_damaged_file_is_told_and_does_not_hide_the_others(glass: Cli) -> None:
    for user in ("ada", "bob"):
        glass("users", "add", user, "--from", consent(glass))
    next(path for path in (glass.directory / "credentials").iterdir() if len(path.name) == 64).write_text("spoilt")
    said = glass("users", "list", "--json")
    assert said.code == 1
    assert len(said.json["users"]) == len(said.json["damaged"]) == 1


def test_a_key_file_that_is_missing_is_exit_78(glass: Cli) -> None:
    (glass.directory / "key").unlink()
    assert glass("users", "list").code == 78


def subscribed(glass: Cli, simulated: SimulatedGlass, *arguments: str) -> list[str]:
    account = glass.directory / "account.json"
    account.write_text(json.dumps(simulated.add_user("ada")))
    (glass.directory / "client-secret").write_text(simulated.client_secret + "\n")
    text = glass.file.read_text().replace(CONSENT["client_id"], simulated.client_id)
    glass.file.write_text(
        text.replace("[glass]\n", f'[glass]\napi_url = "{simulated.api_url}"\ntoken_url = "{simulated.token_url}"\n')
    )
    assert glass("users", "add", "ada", "--from", str(account)).code == 0
    return ["subscribe", "ada", "--collection", "timeline", *arguments]


def test_subscribing_prints_the_subscription_and_never_a_token(glass: Cli) -> None:
    with SimulatedGlass() as simulated:
        command = subscribed(glass, simulated, "--callback", "https://glass.example/hooks/mirror")
        said = glass(*command, "--operation", "INSERT", "--json")
        assert said.code == 0, said.err
        assert said.json["id"]
        assert (said.json["collection"], said.json["operation"]) == ("timeline", ["INSERT"])
        assert "s3cret" not in said.out + said.err
        assert "subscribed ada" in glass(*command).out


def test_a_callback_without_tls_is_a_mistake_of_the_command_line(glass: Cli) -> None:
    with SimulatedGlass() as simulated:
        said = glass(*subscribed(glass, simulated, "--callback", "http://glass.example/hooks/mirror"))
    assert said.code == 2
    assert "https" in said.err


def test_an_api_that_fails_for_now_is_exit_75(glass: Cli) -> None:
    with SimulatedGlass() as simulated:
        command = subscribed(glass, simulated, "--callback", "https://glass.example/hooks/mirror")
        simulated.fail_next("subscriptions.insert", 503)
        assert glass(*command).code == 75


def test_subscribing_a_user_we_do_not_know_fails_in_words(glass: Cli) -> None:
    said = glass("subscribe", "eve", "--collection", "timeline", "--callback", "https://glass.example/h")
    assert said.code == 1
    assert "eve" in said.err
    assert "Traceback" not in said.err
