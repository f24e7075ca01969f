"""`glassq config check`."""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING

import pytest

from tests.cli.conftest import Cli

if TYPE_CHECKING:
    from pathlib import Path

ROUTES = '[[routes]]\nsource = "mirror"\nhandler = "mine:handle"\n'


def spool(cli: Cli) -> str:
    """Where whoever runs the tests may have one."""
    return f'[intake]\njournal = "{cli.directory}/spool"\n'


def make_right(cli: Cli) -> None:
    """Settings that a pool and an intake would start with."""
    (cli.directory / "mine.py").write_text("def handle(delivery): ...\n")
    (cli.directory / "tokens").write_text("s3cret-token\n")
    cli.configure(f'[sources.mirror]\nverify_tokens_file = "{cli.directory}/tokens"\n{spool(cli)}{ROUTES}')


@pytest.fixture
def right(offline: Cli) -> Cli:
    make_right(offline)
    return offline


def test_right_settings_are_printed_whole_and_without_secrets(right: Cli) -> None:
    said = right("config", "check")
    assert (said.code, said.err) == (0, "")
    effective = tomllib.loads(said.out)
    assert effective["sources"]["mirror"]["verify_tokens_file"] == f"{right.directory}/tokens"
    assert effective["worker"]["max_attempts"] == 8
    assert "s3cret" not in said.out


def test_keys_of_the_last_release_are_said_with_their_new_names(right: Cli) -> None:
    right.file.write_text(right.file.read_text().replace("journal = ", "spool = "))
    said = right("config", "check")
    assert said.code == 0
    assert "[intake] spool is called journal now; the old name is taken until the next release" in said.err
    assert tomllib.loads(said.out)["intake"]["journal"] == f"{right.directory}/spool"
    (remark,) = right("config", "check", "--json").json["outdated"]
    assert remark in said.err


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("s3cret".encode("utf-16"), "the file is not UTF-8 text but UTF-16: save it as UTF-8"),
        (
            "s3\u200bcret".encode(),
            "an invisible character (U+200B ZERO WIDTH SPACE) inside a secret, in line 1, column 3",
        ),
        (b"# nothing yet\n", "the file is empty"),
    ],
)
def test_a_secret_file_that_would_have_every_ping_refused_is_told_by_config_check_and_doctor(
    right: Cli, content: bytes, says: str
) -> None:
    (right.directory / "tokens").write_bytes(content)
    for command in (["config", "check"], ["doctor"]):
        said = right(*command)
        assert said.code == 78 if command[0] == "config" else said.code != 0
        assert says in said.out + said.err
        assert "cret\n" not in said.out + said.err


def test_a_key_of_another_form_and_a_file_in_place_of_the_clients_secret_are_told(offline: Cli) -> None:
    directory = offline.directory
    (directory / "key").write_text("not-a-key\n")
    (directory / "client-secret").write_text('{"type": "authorized_user", "client_secret": "s3cret"}')
    offline.configure(
        f'[glass]\nclient_id = "ours"\nclient_secret_file = "{directory}/client-secret"\n'
        f'credentials_key_file = "{directory}/key"\n'
    )
    said = offline("config", "check")
    assert said.code == 78
    assert 'credentials_key_file = "' in said.err
    assert "a key is not 32 bytes in URL-safe base64" in said.err
    assert "client-secret" in said.err
    assert "expected the OAuth client's secret on a line of its own" in said.err
    assert "s3cret" not in said.out + said.err


def test_a_database_that_each_program_would_find_elsewhere_is_said(offline: Cli) -> None:
    offline.configure('[push]\nnames = "sqlite:///var/lib/names.db"\n')
    (remark,) = offline("config", "check", "--json").json["remarks"]
    assert remark.startswith(f'{offline.file}: [push] names = "sqlite:///var/lib/names.db": this path begins where')


def test_json_has_seconds_and_bytes(right: Cli) -> None:
    found = right("config", "check", "--json").json
    assert (found["ok"], found["problems"]) == (True, [])
    assert found["settings"]["queue"]["ttr"] == 120
    assert found["settings"]["intake"]["max_body"] == 16_384


def test_the_password_of_a_database_is_masked(right: Cli) -> None:
    text = right.file.read_text().replace(right.ledger.url, "postgresql+nosuch://ada:hunter2@db/glassq")
    right.file.write_text(text)
    for said in (right("config", "check"), right("config", "check", "--json")):
        assert said.code == 78
        assert "hunter2" not in said.out + said.err
        assert "ada:***@db" in said.out


def test_every_problem_is_told_at_once(offline: Cli) -> None:
    offline.configure(f'[sources.mirror]\nverify_tokens_file = "{offline.directory}/none"\n{spool(offline)}{ROUTES}')
    said = offline("config", "check", "--json")
    assert said.code == 78
    assert said.json["ok"] is False
    assert len(said.json["problems"]) == 2
    assert "verify_tokens_file" in said.err
    assert 'handler = "mine:handle": cannot be imported' in said.err
    assert "Traceback" not in said.err


def test_the_secrets_of_glass_are_needed_once_a_route_leads_there(offline: Cli) -> None:
    missing = f'client_secret_file = "{offline.directory}/client-secret"'
    offline.configure(f"[glass]\n{missing}\n[[routes]]\nsource = 'mirror'\nhandler = 'glassq.glass.photos:store'\n")
    said = offline("config", "check")
    assert said.code == 78
    assert f"[glass] {missing}: the file cannot be read" in said.err
    assert "credentials_key_file" in said.err


@pytest.mark.parametrize("text", ["[queue\n", "[queue]\nttr = 5\n", "[quee]\n"], ids=["no TOML", "no unit", "unknown"])
def test_a_file_that_cannot_be_loaded_is_exit_78_in_words_and_in_json(offline: Cli, text: str) -> None:
    offline.file.write_text(text)
    said = offline("config", "check", "--json")
    assert said.code == 78
    assert said.json["settings"] is None
    assert said.json["problems"][0] in said.err


def test_what_would_refuse_every_ping_of_a_source_is_told_by_config_check_and_doctor_one_hiding_no_other(
    right: Cli,
) -> None:
    (right.directory / "text").write_text("this is no base64!\n")
    text = f'secrets_file = "{right.directory}/text"\n'
    wrong = {
        "standard": (text, "has no key in secret 1: expected whsec_ and base64"),
        "twilio": (text, "missing key [sources.twilio] url: kind twilio needs it"),
        "acme": (f'kind = "hmac"\n{text}', "header: expected the header with the signature"),
        "githup": (text, 'kind = "githup": expected a known kind, or one of'),
    }
    sections = "".join(f"[sources.{name}]\n{section}" for name, (section, _) in wrong.items())
    right.file.write_text(right.file.read_text() + sections)
    said = right("config", "check")
    assert said.code == 78
    checks = {check["said"] for check in right("doctor", "--json").json["checks"] if check["ok"] is False}
    for name, (_, why) in wrong.items():
        (told,) = [line for line in said.err.splitlines() if f"[sources.{name}]" in line]
        assert why in told
        assert any(why in each for each in checks), name
    assert "base64!" not in said.err + str(checks)


def test_options_of_a_database_that_libpq_refuses_or_ignores_are_told(tmp_path: Path) -> None:
    cli = Cli(tmp_path, "postgres://glassq@127.0.0.1:9/d?sslmode=verfy-full", {"HOME": str(tmp_path), "PGPASSFILE": ""})
    make_right(cli)
    said = cli("config", "check", "--json")
    assert said.code == 78
    # the store of bodies and the ledger are files here: one database, one line
    assert said.json["problems"] == [f'{cli.file}: [queue] url: invalid sslmode value: "verfy-full"']
    loose = tmp_path / ".pgpass"
    loose.write_text("*:*:*:*:secret\n")
    loose.chmod(0o644)
    cli.url = "postgres://glassq@127.0.0.1:9/d"
    make_right(cli)
    said = cli("config", "check")
    assert f"{loose}: others may use it (mode 0644), so libpq ignores it: chmod 600 {loose}" in said.err
    assert (said.code, "secret" in said.err) == (0, False)
    # named in the URL, it is meant
    cli.url = f"postgres://glassq@127.0.0.1:9/d?passfile={loose}"
    make_right(cli)
    assert cli("config", "check").code == 78
