"""What `glassq ping` signs is what senders sign: the vectors say so, and so do the sources themselves."""

from __future__ import annotations

import base64
import re
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from glassq.errors import OperationError
from glassq.settings import parse
from glassq.sources import samples
from glassq.sources.draft import Draft
from glassq.sources.generic import GENERIC
from glassq.sources.opening import open_source, preset_of
from glassq.sources.presets import PRESETS
from glassq.sources.schemes.base import SchemeConfig
from glassq.sources.schemes.combined import TokenOrStandard
from glassq.sources.schemes.hmac import Hmac
from glassq.sources.schemes.public_key import PublicKey
from glassq.sources.schemes.standard import Standard
from glassq.sources.schemes.token import ShownToken
from glassq.sources.schemes.twilio import Twilio
from glassq.sources.signer import Signer, open_signer
from glassq.sources.signing import sign
from tests.sources.conftest import VECTORS, request_of

if TYPE_CHECKING:
    from pathlib import Path

    from glassq.settings import Settings

# The others write their proofs into the body, or compute nothing.
IN_HEADERS = (Hmac, Standard, Twilio, TokenOrStandard)
# Names of headers with a proof or a signed time.
PROOF = re.compile("sign|hmac|token|auth|timestamp|time|hub|stripe|paddle|cloudflare|webhook$")
# Kinds whose sender's certificate or token nobody else can have, or whose private key the settings do not have.
NOT_OURS = {name for name, row in PRESETS.items() if row.requires_network or isinstance(row.scheme, PublicKey)}
# With a port that the URL lacks, by another hash, with the same time in another form.
WRITTEN_OTHERWISE = {"twilio-sdk-signed-with-port-443", "jira-sha512", "twitch-rule", "box-rule"}
BASE64 = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYX"


def settings_of(directory: Path, kind: str, **keys: str) -> Settings:
    """Settings with a source "it" of this kind, with all that it needs."""
    needs = {"secrets_file": f"{directory}/secrets", "verify_tokens_file": f"{directory}/secrets"}
    needs |= {"url": "https://hooks.example.com"}
    section = {key: needs[key] for key in PRESETS[kind].scheme.needs if key in needs} if kind in PRESETS else {}
    lines = "".join(f'{key} = "{value}"\n' for key, value in {"kind": kind, **section, **keys}.items())
    (directory / "secrets").write_text(f"{secret_of(kind)}\n")
    return parse(f"[sources.it]\n{lines}", "glassq.toml")


def secret_of(kind: str) -> str:
    scheme = PRESETS[kind].scheme if kind in PRESETS else None
    if isinstance(scheme, Standard):
        return f"whsec_{BASE64}"
    if isinstance(scheme, ShownToken) and "basic" in scheme.place:
        return "ada:pass:word"
    hexadecimal = kind == "adyen" or (isinstance(scheme, Hmac) and scheme.key == "hex")
    return "00112233445566778899aabbccddeeff" if hexadecimal else BASE64


def signed(signer: Signer, event: str = "", now: float | None = None) -> tuple[Draft, float]:
    now = time.time() if now is None else now
    return signer.sign(signer.sample(event, now), now), now


SIGNED_HERE = [
    vector
    for vector in VECTORS
    if vector["valid"]
    and vector["method"] == "POST"
    and "answer" not in vector
    and isinstance(getattr(PRESETS.get(vector["kind"]), "scheme", None), IN_HEADERS)
    # one whose proof is an ed25519 signature
    and not any(secret.startswith("whpk_") for secret in vector["secrets"])
    and vector["name"] not in WRITTEN_OTHERWISE
]


@pytest.mark.parametrize("vector", SIGNED_HERE, ids=lambda vector: vector["name"])
def test_a_vector_is_signed_as_its_sender_signed_it(vector: dict[str, Any]) -> None:
    request, scheme = request_of(vector), PRESETS[vector["kind"]].scheme
    parts = urlsplit(vector.get("url", ""))
    section = parse(f"[sources.it]\n{lines(vector.get('settings', {}))}", "glassq.toml").sources["it"]
    given = SchemeConfig(tuple(vector["secrets"]), f"{parts.scheme}://{parts.netloc}", None, section)
    proof = scheme.prepare(given)(request)
    # whoever signed it had that secret, and that time
    secret = given.secrets[proof.secret]
    alone = SchemeConfig((secret,), given.url, None, section)
    blank = {name: "" if PROOF.search(name) else value for name, value in request.headers.items()}
    made = sign(scheme, alone, Draft(request.target, blank, bytes(request.body)), request.now + (proof.skew or 0.0))
    new = {name: value for name, value in made.headers.items() if value != blank.get(name)}
    assert new
    # some send a signature under two names, or under an old and a new one
    theirs = set().union(*map(words, request.headers.values()))
    for name, value in new.items():
        assert words(value) <= theirs, name


def lines(settings: dict[str, str]) -> str:
    return "".join(f'{key} = "{value}"\n' for key, value in settings.items())


def words(value: str) -> set[str]:
    """The signatures and times in a header that lists them."""
    return set(re.split(r"[ ,;]+", value))


@pytest.mark.parametrize("kind", sorted(set(PRESETS) - NOT_OURS))
def test_a_sample_of_every_kind_and_event_is_genuine_and_labelled(tmp_path: Path, kind: str) -> None:
    settings = settings_of(tmp_path, kind)
    source, signer = open_source(settings, "it"), open_signer(settings, "it")
    for event in (*samples.events(kind), "an.event") if PRESETS[kind].event else ("",):
        ping, now = signed(signer, event)
        request = ping.request(now)
        source.admit(request)
        assert source.challenge(request) is None
        assert source.verify(request).secret == 0
        labels = source.describe(request)
        if event:
            assert labels.labels["event"] == event
        assert ("event_id" in labels.labels) is (PRESETS[kind].dedupe != "")
        assert labels.unread == ()
        if PRESETS[kind].dedupe == "event_id":
            # another one, so that it is worked as well
            again = source.describe(signed(signer, event)[0].request(now)).labels
            assert again["event_id"] != labels.labels["event_id"]


@pytest.mark.parametrize(
    "keys",
    [
        {"kind": "hmac", "header": "X-Sig"},
        {"kind": "hmac", "header": "X-Sig", "hash": "sha512", "encoding": "base64", "prefix": "v1=", "key": "base64"},
        {"kind": "hmac", "header": "X-Sig", "signed": "{id}:{timestamp}:{method}:{url}:{body}", "event_id": "json:id"}
        | {"timestamp": "header:X-Time", "unit": "ms", "url": "https://hooks.example.com"},
        {"kind": "hmac", "header": "X-Sig", "signed": "{timestamp}.{body}", "timestamp": "header:Date", "unit": "http"},
        {"kind": "token", "token": "bearer"},
        {"kind": "token", "token": "basic", "username": "ada"},
        {"kind": "token", "token": "json:auth.token"},
        {"kind": "token", "token": "query:token"},
        {"kind": "token", "header": "X-Token"},
    ],
    ids=str,
)
def test_general_kinds_are_signed_as_their_section_says(tmp_path: Path, keys: dict[str, str]) -> None:
    keys = {**keys, "secrets_file": f"{tmp_path}/secrets"}
    settings = settings_of(tmp_path, keys.pop("kind"), **keys)
    assert settings.sources["it"].kind in GENERIC
    ping, now = signed(open_signer(settings, "it"))
    assert open_source(settings, "it").verify(ping.request(now)).secret == 0


def test_a_path_token_is_in_the_target(tmp_path: Path) -> None:
    (tmp_path / "path").write_text("a-word-of-the-path\n")
    settings = settings_of(tmp_path, "none", path_token_file=f"{tmp_path}/path")
    ping, now = signed(open_signer(settings, "it"))
    assert ping.target == "/hooks/it/a-word-of-the-path"
    open_source(settings, "it").admit(ping.request(now))


def test_a_body_of_ones_own_stays_as_it_is(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, "github")
    signer, body = open_signer(settings, "it"), b'{ "zen" :  1 }\n'
    ping = signer.sign(signer.of_body("release", body, {"x-github-delivery": "mine"}), 0.0)
    source = open_source(settings, "it")
    source.verify(ping.request(0.0))
    assert ping.body == body
    assert source.describe(ping.request(0.0)).labels == {"event": "release", "event_id": "mine"}


def pair(algorithm: str) -> tuple[bytes, str, str]:
    """A private key in PEM, and its public key in hex and in base64 (of an ECDSA key, of its DER)."""
    private = Ed25519PrivateKey.generate() if algorithm == "ed25519" else ec.generate_private_key(ec.SECP256R1())
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    form, kind = (
        (Encoding.Raw, PublicFormat.Raw)
        if algorithm == "ed25519"
        else (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    )
    public = private.public_key().public_bytes(form, kind)
    return pem, public.hex(), base64.b64encode(public).decode()


@pytest.mark.parametrize(
    ("kind", "algorithm", "form"),
    [
        ("discord", "ed25519", "{hex}"),
        ("discord-events", "ed25519", "{hex}"),
        ("sendgrid", "ecdsa", "{base64}"),
        ("standard", "ed25519", "whpk_{base64}"),
    ],
)
def test_senders_with_a_private_key_are_signed_for_with_one(
    tmp_path: Path, kind: str, algorithm: str, form: str
) -> None:
    pem, hexadecimal, in_base64 = pair(algorithm)
    settings = settings_of(tmp_path, kind)
    (tmp_path / "secrets").write_text(form.format(hex=hexadecimal, base64=in_base64))
    ping, now = signed(open_signer(settings, "it", pem))
    assert open_source(settings, "it").verify(ping.request(now)).secret == 0
    for key, says in [
        (None, "so only the sender can sign. For a trial make a pair of your own .openssl genpkey"),
        (b"no key", "--key-file: expected a private key in PEM"),
        (pair("ecdsa" if algorithm == "ed25519" else "ed25519")[0], f"expected a key of the algorithm {algorithm}"),
    ]:
        with pytest.raises(OperationError, match=says):
            signed(open_signer(settings, "it", key))


def test_what_only_the_sender_can_prove_is_told(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, "sns", account="123456789012")
    with pytest.raises(OperationError, match=r"only the sender itself can prove its pings.*--no-check"):
        signed(open_signer(settings, "it"))


@pytest.mark.parametrize(("kind", "body"), [("mailgun", b"[]"), ("adyen", b"{}"), ("graph", b"no json")])
def test_a_body_without_room_for_its_proof_is_told(tmp_path: Path, kind: str, body: bytes) -> None:
    signer = open_signer(settings_of(tmp_path, kind), "it")
    with pytest.raises(OperationError, match="no room for the proof"):
        signer.sign(signer.of_body("", body, {}), 0.0)


def test_preset_of_knows_what_a_section_is(tmp_path: Path) -> None:
    assert preset_of(settings_of(tmp_path, "github"), "it") is PRESETS["github"]
