"""`glassq sources` and `glassq ping`, beside a real intake."""

from __future__ import annotations

import json
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from glassq.cli.commands.sources import _cells
from glassq.delivery import Delivery, decode
from glassq.intake.report import SourceReport
from glassq.operations import kinds
from glassq.operations.sources import SourceRow
from glassq.settings import load, parse
from glassq.sources.presets import PRESETS
from glassq.sources.signer import open_signer
from tests.cli.conftest import Cli
from tests.conftest import Beanstalkd, free_port
from tests.intake.conftest import Web, empty
from tests.intake.wire import TOKEN, body, request

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from glassq.settings import Settings

SECRET = "whsec_of-all-the-others"
WORD = "a-word-of-the-path"
SOURCES = """
[sources.github]
secrets_file = "{0}/secret"
[sources.stripe]
secrets_file = "{0}/secret"
[sources.square]
secrets_file = "{0}/secret"
url = "https://hooks.example.com"
[sources.inside]
kind = "none"
path_token_file = "{0}/word"
"""


@dataclass
class Installation:
    """An intake with its settings, and a queue that nobody works."""

    web: Web
    queue: Beanstalkd

    @property
    def cli(self) -> Cli:
        return Cli(self.web.dir, self.queue.url)

    def deliveries(self) -> list[Delivery]:
        return [decode(job) for job in empty(self.queue)]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    directory = tmp_path_factory.mktemp("sources") / "web"
    server = Beanstalkd(tmp_path_factory.mktemp("beanstalkd"))
    runtime = directory / "run" / "glassq-web"
    runtime.mkdir(parents=True)
    (directory / "secret").write_text(f"{SECRET}\n")
    (directory / "word").write_text(f"{WORD}\n")
    under = ("env", f"RUNTIME_DIRECTORY={runtime}")
    # GitHub's bodies may be large, and go into a store then
    more = f'{SOURCES.format(directory)}[bodies]\nurl = "file://{directory}/bodies"\n'
    web = Web(directory, server.url, tokens=f"another\n{TOKEN}", under=under, queue=more)
    web.wait_ready()
    yield Installation(web, server)
    web.stop()
    server.stop()


def cells(out: str, name: str) -> list[str]:
    """The cells of the row of a source."""
    (row,) = [line for line in out.splitlines() if line.startswith(f"{name} ")]
    return [cell.strip() for cell in row.split("  ") if cell.strip()]


def saved(running: Installation, name: str, *, age: float = 0.0, line_end: str = "\r\n") -> bytes:
    """A right request of this source, as it was saved so many seconds ago."""
    signer, then = open_signer(load(str(running.web.file), {}), name), time.time() - age
    ping = signer.sign(signer.sample("", time.time()), then)
    head = [f"POST {ping.target} HTTP/1.1", *(f"{header}: {value}" for header, value in ping.headers.items()), "", ""]
    return line_end.join(head).encode() + ping.body


# -- the list ----------------------------------------------------------------------------------------------------------


def test_it_says_what_came_what_was_refused_and_which_secret_is_in_use(running: Installation) -> None:
    cli, web = running.cli, running.web
    before = cells(cli("sources").out, "mirror")
    assert before == ["mirror", "mirror", "/hooks/mirror", "0", "never", "-", "-", "1: never, 2: never"]
    assert web.ask(request(body())).status == 200
    assert web.ask(request(body(verifyToken="wrong"))).status == 403
    assert web.ask(request(body(verifyToken="wrong"))).status == 403
    assert web.ask(request(b"{")).status == 400
    said = cli("sources")
    assert (said.code, said.err) == (0, "")
    _, _, _, pings, last, refused, _, secrets = cells(said.out, "mirror")
    assert (pings, refused) == ("1", "2 wrong token, 1 malformed")
    assert last.endswith(" ago")
    assert secrets.startswith("1: never, 2: ")
    assert secrets.endswith(" ago")
    assert "since glassq-web was started" in said.out
    document = cli("sources", "--json").json
    (source,) = [each for each in document["sources"] if each["name"] == "mirror"]
    assert source["counted"]["refused"] == {"wrong token": 2, "malformed": 1}
    assert document["counting"] > 0
    assert TOKEN not in said.out + str(document)


def test_a_clock_that_is_off_and_a_wrong_signature_are_told_with_what_to_do(running: Installation) -> None:
    old, new = saved(running, "stripe", age=4000), saved(running, "stripe").replace(b'"eur"', b'"usd"')
    for each in (old, new):
        length = len(each.partition(b"\r\n\r\n")[2])
        more = f"\r\nHost: localhost\r\nContent-Length: {length}\r\n".encode()
        assert running.web.ask(each.replace(b"\r\n", more, 1)).status == 401
    said = running.cli("sources")
    assert cells(said.out, "stripe")[5] == "1 wrong signature, 1 too old"
    assert "stripe: the sender's time is 1h 6m behind ours" in said.out
    assert "`glassq --config" in said.out
    assert "sources test stripe FILE`" in said.out


def test_without_an_intake_it_says_what_the_settings_know_and_why_that_is_all(offline: Cli) -> None:
    tokens = offline.directory / "tokens"
    offline.configure(f'[sources.glass]\nkind = "mirror"\nverify_tokens_file = "{tokens}"\n')
    said = offline("sources")
    assert (said.code, said.err) == (0, "")
    assert "nothing is counted: no glassq-web runs with these settings" in said.out
    # a secret that is missing is told with the source that needs it
    assert cells(said.out, "glass")[:3] == ["glass", "mirror", "/hooks/glass"]
    assert f'! glass takes no pings: {offline.file}: [sources.glass] verify_tokens_file = "{tokens}"' in said.out
    tokens.write_text("s3cret\n")
    document = offline("sources", "--json").json
    assert document["sources"][0]["problem"] == ""
    assert document["counting"] is None
    assert "s3cret" not in str(document)


def test_settings_without_a_source_say_so(offline: Cli) -> None:
    assert offline("sources").out.startswith("the settings name no source: `glassq")


def test_a_use_of_a_secret_before_the_last_reload_is_not_told_as_never() -> None:
    seen = SourceReport(kind="stripe", pings=3, skew=-0.2, max_skew=-0.4, secrets=(None,))
    cells = _cells(SourceRow("stripe", "stripe", "/hooks/stripe", "glassq", 1, counted=seen), "not for 5s")
    assert cells[-2:] == ("+0s", "not for 5s")


# -- the kinds ---------------------------------------------------------------------------------------------------------


def test_every_kind_is_listed_with_what_it_needs(offline: Cli) -> None:
    said = offline("sources", "kinds")
    assert said.code == 0
    *rows, paste, unverified, other = said.out.splitlines()[1:]
    assert {line.split(" ")[0] for line in rows} == set(PRESETS)
    assert "sources kinds KIND`" in paste
    assert unverified.startswith("unverified: ")
    assert '"hmac"' in other
    assert cells(said.out, "square") == ["square", "Square", "secrets_file, url"]
    assert cells(said.out, "docusign")[-1] == "unverified"
    assert {each["kind"] for each in offline("sources", "kinds", "--json").json["kinds"]} == set(PRESETS)


def test_the_section_of_each_kind_can_be_pasted(offline: Cli) -> None:
    sections = [each["section"] for each in offline("sources", "kinds", "--json").json["kinds"]]
    offline.file.write_text("\n".join(sections))
    settings = load(str(offline.file), {})
    assert {name: source.kind_of(name) for name, source in settings.sources.items()} == {name: name for name in PRESETS}
    assert {route.source for route in settings.routes} == set(settings.sources)


def test_one_kind_is_told_in_full_and_a_mistyped_one_meets_a_near_one(offline: Cli) -> None:
    said = offline("sources", "kinds", "github")
    for part in ("GitHub\n", "Payload URL", "the Secret that you enter", "25600 KiB", "[sources.github]\n"):
        assert part in said.out
    wrong = offline("sources", "kinds", "githup")
    assert (wrong.code, wrong.out) == (2, "")
    assert "there is no kind githup; did you mean github?" in wrong.err
    assert 'kind = "token" describes one of your own' in offline("sources", "kinds", "token").err
    # an installation's secrets are the senders' own
    assert "/etc/glassq/secrets/github" in said.out
    assert "openssl" not in said.out


def test_beside_other_secrets_the_next_one_is_named_and_made_as_its_sender_would_have_it(
    offline: Cli, tmp_path: Path
) -> None:
    offline.configure(f'[sources.own]\nkind = "token"\ntoken = "bearer"\nsecrets_file = "{tmp_path}/own-token"\n')
    said = offline("sources", "kinds", "stripe").out
    assert f'secrets_file = "{tmp_path}/stripe-secret"\n' in said
    assert f"    (umask 077; openssl rand -hex 32 > {tmp_path}/stripe-secret)\n" in said
    found = [kinds.kind(name, tmp_path) for name in PRESETS]
    script = "\n".join(each.trial for each in found)
    subprocess.run(["sh", "-ec", script], check=True, timeout=60)
    settings = parse("\n".join(each.section for each in found), "glassq.toml")
    signed = [each.preset.name for each in found if each.trial and _signs(settings, each.preset.name)]
    assert len(signed) > 60
    assert set(PRESETS) - set(signed) == {*("discord", "discord-events", "sendgrid", "oidc", "paypal", "pubsub", "sns")}


def _signs(settings: Settings, name: str) -> bool:
    signer = open_signer(settings, name)
    return bool(signer.sign(signer.sample("", 0.0), 0.0).headers)


# -- a saved request ---------------------------------------------------------------------------------------------------


def would_be(running: Installation, name: str, data: bytes, *options: str) -> tuple[int, str]:
    file = running.web.dir / "request.http"
    file.write_bytes(data)
    said = running.cli("sources", "test", name, str(file), *options)
    assert said.err == ""
    assert SECRET not in said.out
    return said.code, said.out


@pytest.mark.parametrize("line_end", ["\r\n", "\n"])
@pytest.mark.parametrize("name", ["github", "stripe", "square", "mirror"])
def test_a_right_request_is_genuine_with_its_secret_and_its_labels(
    running: Installation, name: str, line_end: str
) -> None:
    code, out = would_be(running, name, saved(running, name, line_end=line_end))
    assert code == 0
    assert out.startswith("genuine: it would be taken\n")
    assert f"secret        1 of {2 if name == 'mirror' else 1}" in out
    assert "event=" in out or "collection=timeline" in out


def test_it_comes_from_standard_input_as_well(running: Installation) -> None:
    said = running.cli("sources", "test", "github", "-", "--json", answer=saved(running, "github").decode())
    assert said.code == 0
    assert said.json["taken"] is True
    assert said.json["facts"]["headers kept"] == "x-github-event, x-github-delivery"


def spaced(data: bytes) -> bytes:
    head, end, content = data.partition(b"\r\n\r\n")
    return head + end + json.dumps(json.loads(content)).encode()


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("github", lambda data: data + b"\r\n", "the line end after the body is gone: save the body as it came"),
        ("github", spaced, "the signature fits the same JSON written without spaces"),
        ("github", lambda data: data.replace(b"main", b"evil"), "is the sender's, or the body was changed on its way"),
        ("github", lambda data: data.replace(b"x-hub-signature-256", b"x-hub-signature"), "kind = "),
        ("github", lambda data: data.replace(b"x-hub-signature-256: ", b"x-old: "), "that may hold a proof: none"),
        ("stripe", lambda data: data.replace(b"stripe-", b"paddle-"), "paddle-signature (as paddle has it)"),
    ],
    ids=["line end", "spaces", "changed", "other header", "no header", "other sender"],
)
def test_a_wrong_one_is_refused_with_what_to_do(running: Installation, name: str, change: object, says: str) -> None:
    assert callable(change)
    code, out = would_be(running, name, change(saved(running, name)))
    assert code == 1
    assert out.startswith("refused with 401: ")
    assert says in out, out


def test_the_ping_of_another_kind_is_known_by_its_signature(running: Installation) -> None:
    # both have the same secret here
    code, out = would_be(running, "stripe", saved(running, "github"))
    assert code == 1
    assert "it is a right ping of " in out
    assert '[sources.stripe] kind = "' in out


def test_an_old_one_is_told_with_the_time_to_try_it_by(running: Installation) -> None:
    data = saved(running, "stripe", age=90_000)
    code, out = would_be(running, "stripe", data)
    assert code == 1
    assert "the signature is right, and made 1d 1h before this time" in out
    when = out.partition("--now ")[2].split()[0]
    assert would_be(running, "stripe", data, "--now", when)[0] == 0
    code, out = would_be(running, "stripe", data.replace(b'"eur"', b'"usd"'))
    assert "the body was changed on its way" in out


def test_a_time_in_another_unit_is_told_however_far_away_it_seems(running: Installation) -> None:
    data = saved(running, "stripe", age=-1000 * time.time())
    code, out = would_be(running, "stripe", data)
    assert code == 1
    assert "after this time; try an old request with --now 1" in out


def test_a_url_that_is_signed_is_found_by_the_requests_own_host(running: Installation) -> None:
    data = saved(running, "square")
    cli = Cli(running.web.dir, "")
    file = running.web.file
    before = file.read_text()
    try:
        file.write_text(before.replace("https://hooks.example.com", "https://old.example.com"))
        data = data.replace(b"\r\n", b"\r\nHost: hooks.example.com\r\n", 1)
        said = cli("sources", "test", "square", "-", answer=data.decode())
    finally:
        file.write_text(before)
    assert said.code == 1
    assert '[sources.square] url = "https://hooks.example.com"' in said.out


def test_what_cannot_be_a_request_or_a_source_is_told(running: Installation) -> None:
    wrong = running.cli("sources", "test", "github", "-", answer='{"a": 1}')
    assert wrong.code == 2
    assert "this is a body without its head" in wrong.err
    assert "has no [sources.gitlab]; it has: github, stripe" in running.cli("sources", "test", "gitlab", "-").err
    for when in ("yesterday", "nan"):
        said = running.cli("sources", "test", "github", "-", "--now", when)
        assert f"--now {when}: expected a time" in said.err


# -- pings -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "event"),
    [("github", "issues"), ("stripe", "invoice.paid"), ("square", "an.event"), ("inside", ""), ("mirror", "")],
)
def test_a_signed_ping_is_taken_and_kept(running: Installation, name: str, event: str) -> None:
    empty(running.queue)
    said = running.cli("ping", name, *(("--event", event) if event else ()))
    assert (said.code, said.err) == (0, "")
    assert said.out.startswith("200 in ")
    assert f"tail --source {name}`" in said.out
    (delivery,) = running.deliveries()
    assert delivery.source == name
    if event:
        assert delivery.labels["event"] == event
    assert SECRET not in said.out
    assert not [header for header in delivery.headers if "signature" in header]


def test_many_are_many_events(running: Installation) -> None:
    empty(running.queue)
    said = running.cli("ping", "github", "--repeat", "3", "--json")
    assert [ping["status"] for ping in said.json["pings"]] == [200] * 3
    assert len({delivery.labels["event_id"] for delivery in running.deliveries()}) == 3


def test_a_body_or_a_saved_request_is_signed_anew(running: Installation) -> None:
    empty(running.queue)
    file = running.web.dir / "own"
    file.write_bytes(b'{ "own": 1 }\n')
    assert running.cli("ping", "github", str(file), "--event", "release", "--header", "X-Own: 1").code == 0
    data = saved(running, "stripe", age=90_000)
    file.write_bytes(data)
    assert running.cli("ping", "stripe", str(file)).code == 0
    own, old = running.deliveries()
    assert (own.body, own.labels["event"]) == (b'{ "own": 1 }\n', "release")
    assert old.body == data.partition(b"\r\n\r\n")[2]


def test_what_is_refused_or_unknown_is_told_with_what_to_look_at(running: Installation) -> None:
    other = Cli(running.web.dir / "other", running.queue.url)
    other.directory.mkdir()
    (other.directory / "secret").write_text("another secret\n")
    bind = f'[intake]\nbind = "127.0.0.1:{running.web.address[1]}"\n'
    sources = f'[sources.github]\nsecrets_file = "{other.directory}/secret"\n'
    other.configure(f'{bind}{sources}[sources.sentry]\nsecrets_file = "{other.directory}/secret"\n')
    said = other("ping", "github")
    assert (said.code, said.out[:4]) == (1, "401 ")
    assert "sources`" in said.out
    said = other("ping", "sentry")
    assert (said.code, said.out[:4]) == (1, "404 ")
    assert "has no /hooks/sentry" in said.out
    gone = other("ping", "github", "--url", f"http://127.0.0.1:{free_port()}")
    assert (gone.code, gone.out) == (1, "")
    assert "Connection refused; does glassq-web run?" in gone.err
    assert "it has: github, sentry" in other("ping", "gitlab").err
    assert "--url nowhere: expected" in other("ping", "github", "--url", "nowhere").err
    assert "/nowhere cannot be read" in other("ping", "github", "--key-file", "/nowhere").err
    assert "--header x: expected NAME:VALUE" in other("ping", "github", "--header", "x").err
