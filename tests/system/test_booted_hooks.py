"""Sources on the booted machine: a new one takes effect, its secrets come from systemd, large bodies, SNS, counters."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding

from tests.conftest import wait_for
from tests.sources.certificates import Authority, pem_of
from tests.system.machine import SETTINGS, Machine
from tests.system.programs import run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SECRETS = {"github": b"of the organisation", "more/github": b"of another one"}
AWS = "sns.eu-west-1.amazonaws.com"
TOPIC = "arn:aws:sns:eu-west-1:123456789012:orders"
SOURCES = """
[[routes]]
source = "aws"
match = { event = "SubscriptionConfirmation" }
handler = "glassq.handlers.sns:confirm"
[[routes]]
source = "github"
match = { event = "push" }
handler = "hooks:take"
[[routes]]
source = "fork"
handler = "hooks:take"
[[routes]]
source = "aws"
handler = "hooks:take"
[sources.github]
secrets_file = "/etc/glassq/secrets/github"
[sources.fork]
kind = "github"
secrets_file = "/etc/glassq/secrets/more/github"
[sources.aws]
kind = "sns"
account = "123456789012"
"""
HANDLER = """import hashlib, json

def take(delivery):
    with delivery.open() as body:
        digest = hashlib.sha256(body.read()).hexdigest()
    with open("/var/lib/glassq/taken", "a") as notes:
        print(json.dumps([delivery.source, delivery.labels["event"], digest]), file=notes)
"""
# Sends a file to a path of the intake, with these headers; prints status and Retry-After.
SEND = """import sys, urllib.error, urllib.request
path, file, *headers = sys.argv[1:]
body, named = open(file, "rb").read(), dict(header.split(": ", 1) for header in headers)
try:
    answer = urllib.request.urlopen(urllib.request.Request("http://127.0.0.1:8080" + path, body, named), timeout=60)
except urllib.error.HTTPError as error:
    answer = error
print(answer.status, answer.headers.get("Retry-After", ""))
"""


def send(machine: Machine, path: str, body: bytes, *headers: str) -> list[str]:
    (machine.root / "root/body").write_bytes(body)
    return run(*machine.command("python3", "/root/send.py", path, "/root/body", *headers)).split()


def push(machine: Machine, source: str, body: bytes, secret: bytes) -> list[str]:
    """A push of GitHub's."""
    signature = hmac.new(secret, body, "sha256").hexdigest()
    return send(
        machine, f"/hooks/{source}", body, "Content-Type: application/json", "X-GitHub-Event: push",
        f"X-GitHub-Delivery: {signature[:32]}", f"X-Hub-Signature-256: sha256={signature}",
    )  # fmt: skip


def note(source: str, event: str, body: bytes) -> list[str]:
    """What the handler notes of such a ping."""
    return [source, event, hashlib.sha256(body).hexdigest()]


def taken(machine: Machine) -> list[list[str]]:
    """What the handler has noted."""
    file = machine.root / "var/lib/glassq/taken"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def wait_taken(machine: Machine, *notes: list[str]) -> None:
    try:
        wait_for(lambda: all(note in taken(machine) for note in notes), "the handler to take it")
    except pytest.fail.Exception:
        looks = machine.tells("glassq status; glassq buried; journalctl --no-pager -o cat -u glassq-worker -n 30")
        pytest.fail(f"not taken: {notes}\n{looks}")


@pytest.fixture(scope="module")
def hooks(glassq: Machine) -> Iterator[Machine]:
    """The machine with three more sources in its settings, which are not in effect yet; afterwards as it was."""
    before = (glassq.root / SETTINGS).read_text()
    glassq.write("root/send.py", SEND)
    glassq.write("etc/glassq/hooks.py", HANDLER)
    for name, secret in SECRETS.items():
        glassq.write(f"etc/glassq/secrets/{name}", secret.decode() + "\n")
        # root alone can read it
        (glassq.root / "etc/glassq/secrets" / name).chmod(0o600)
    glassq.write(SETTINGS, before + SOURCES)
    glassq.run("useradd ops && usermod -aG glassq ops")
    yield glassq
    glassq.run("userdel ops")
    glassq.write(SETTINGS, before)
    glassq.run("systemctl daemon-reload && systemctl restart glassq-web && systemctl reload glassq-worker")


def test_a_source_whose_secret_systemd_has_not_passed_on_fails_the_reload_which_says_what_to_type(
    hooks: Machine,
) -> None:
    assert "exit 1" in hooks.shows("systemctl reload glassq-web 2>&1; echo exit $?")
    said = hooks.log("glassq-web")
    assert '[sources.github] secrets_file = "/etc/glassq/secrets/github"' in said
    assert "systemctl daemon-reload && systemctl restart glassq-web" in said
    # meanwhile the others are served
    assert hooks.ping("while-a-source-waits") == ["200"]


def test_a_push_of_github_is_verified_by_its_own_secret_and_worked(hooks: Machine) -> None:
    # the pool first: a child with the old routes would drop what the new source sends
    hooks.run("systemctl daemon-reload && systemctl restart glassq-worker glassq-web && systemctl reload glassq-web")
    bodies = {"github": b'{"ref": "refs/heads/main"}', "fork": b'{"ref": "refs/heads/fork"}'}
    for (source, body), secret in zip(bodies.items(), SECRETS.values(), strict=True):
        assert push(hooks, source, body, secret) == ["200"]
        assert push(hooks, source, body, b"a guess") == ["401"]
    # two files of one name in different directories
    assert push(hooks, "fork", b"{}", SECRETS["github"]) == ["401"]
    wanted = [note(source, "push", body) for source, body in bodies.items()]
    wait_taken(hooks, *wanted)
    assert sum(entry in wanted for entry in taken(hooks)) == 2
    hooks.shows("systemctl cat glassq-web | grep LoadCredential")


def test_a_push_of_25_megabytes_is_kept_byte_for_byte(hooks: Machine) -> None:
    body = json.dumps({"ref": "refs/heads/large", "pad": base64.b64encode(os.urandom(18 << 20)).decode()}).encode()
    assert 24 << 20 < len(body) <= 25 << 20
    assert push(hooks, "github", body, SECRETS["github"]) == ["200"]
    wait_taken(hooks, note("github", "push", body))
    assert hooks.run("systemctl show -P NRestarts glassq-web") == "0"
    hooks.transcript.say(f"a push of {len(body):,} bytes was kept, and worked")


def test_an_operator_reads_the_counters_and_a_stranger_does_not(hooks: Machine) -> None:
    listed = json.loads(hooks.run("runuser -u ops -- glassq sources --json"))
    counted = {source["name"]: source["counted"] for source in listed["sources"]}
    assert counted["github"]["pings"] == 2
    assert counted["github"]["refused"] == {"wrong signature": 1}
    assert "github" in hooks.shows("runuser -u ops -- glassq sources")
    socket = "/run/glassq-web/intake.sock"
    ask = f"import socket; socket.socket(socket.AF_UNIX).connect('{socket}')"
    assert hooks.tells(f'runuser -u ops -- python3 -c "{ask}"') == ""
    assert "PermissionError" in hooks.tells(f'runuser -u app -- python3 -c "{ask}"')


class Amazon:
    """Amazon SNS: its host in the machine's network, and an authority that the machine trusts."""

    def __init__(self, machine: Machine, directory: Path) -> None:
        authority = Authority()
        authority.server(directory, AWS)
        next(directory.glob(f"{AWS}.*")).rename(directory / "server.pem")
        certificate, self._key = authority.certify("sns.amazonaws.com")
        (directory / "signer.pem").write_bytes(pem_of(certificate))
        machine.write("root/authority.pem", pem_of(authority.certificate).decode())
        # where OpenSSL looks for authorities on Debian
        machine.run(
            "mkdir -p /usr/lib/ssl && rm -f /usr/lib/ssl/cert.pem && cp /root/authority.pem /usr/lib/ssl/cert.pem"
        )
        self._machine, self._directory = machine, directory

    def open(self) -> None:
        self._process = self._machine.beside("tests.system.amazon", str(self._directory))

    def visited(self) -> str:
        """The targets of all requests that are not for a certificate, a line each."""
        file = self._directory / "visited"
        return file.read_text() if file.exists() else ""

    def message(self, kind: str, **more: str) -> bytes:
        """As SNS sends it: signed as its manual says."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        fields = {
            "Message": "hello",
            "MessageId": os.urandom(8).hex(),
            "Timestamp": now,
            "TopicArn": TOPIC,
            "Type": kind,
        }
        text = "".join(f"{name}\n{value}\n" for name, value in sorted((fields | more).items()))
        signed = base64.b64encode(self._key.sign(text.encode(), padding.PKCS1v15(), hashes.SHA256())).decode()
        sent: dict[str, Any] = {**fields, **more, "SignatureVersion": "2", "Signature": signed}
        return json.dumps(sent | {"SigningCertURL": f"https://{AWS}/SimpleNotificationService-1.pem"}).encode()

    def end(self) -> None:
        self._process.communicate()


@pytest.fixture
def amazon(hooks: Machine, tmp_path: Path) -> Iterator[Amazon]:
    hosts = hooks.root / "etc/hosts"
    before = hosts.read_text()
    hosts.write_text(f"{before}\n127.0.0.1 {AWS}\n")
    amazon = Amazon(hooks, tmp_path)
    yield amazon
    amazon.end()
    hosts.write_text(before)
    hooks.run("rm /usr/lib/ssl/cert.pem && rmdir --ignore-fail-on-non-empty /usr/lib/ssl")


def test_a_message_of_sns_waits_for_its_certificate_and_a_subscription_is_confirmed(
    hooks: Machine, amazon: Amazon
) -> None:
    visit = f"/?Action=ConfirmSubscription&TopicArn={TOPIC}&Token=t0ken"
    confirmation = amazon.message("SubscriptionConfirmation", Token="t0ken", SubscribeURL=f"https://{AWS}{visit}")
    kind = "Content-Type: text/plain; charset=UTF-8"
    # the certificate cannot be fetched: ours to mend, so SNS shall send it again
    status, retry_after = send(hooks, "/hooks/aws", confirmation, kind)
    assert status == "503"
    assert int(retry_after) > 0
    amazon.open()
    try:
        wait_for(lambda: send(hooks, "/hooks/aws", confirmation, kind) == ["200"], "the certificate to be fetched")
    except pytest.fail.Exception:
        pytest.fail(f"the certificate was not fetched\n{hooks.log('glassq-web')[-5000:]}")
    try:
        wait_for(lambda: amazon.visited() == f"{visit}\n", "the subscription")
    except pytest.fail.Exception:
        pytest.fail(f"visited {amazon.visited()!r}\n{hooks.log('glassq-worker')[-3000:]}")
    notification = amazon.message("Notification")
    assert send(hooks, "/hooks/aws", notification, kind) == ["200"]
    assert send(hooks, "/hooks/aws", notification.replace(b"hello", b"other"), kind) == ["401"]
    wait_taken(hooks, note("aws", "Notification", notification))
