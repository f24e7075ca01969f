"""Signatures by ed25519 and ECDSA, made by OpenSSL's command line."""

from __future__ import annotations

import base64
import mmap
import subprocess
import sys
from typing import TYPE_CHECKING, NamedTuple

import pytest
from hypothesis import given as each
from hypothesis import strategies as st

from glassq.errors import PingRefused
from glassq.sources.base import Body, HookRequest, Proof
from glassq.sources.schemes.base import SchemeConfig, UnusableKey
from glassq.sources.schemes.public_key import PublicKey
from tests.conftest import ROOT

if TYPE_CHECKING:
    from pathlib import Path

SCHEMES = {
    "ed25519": PublicKey(signature="header:X-Sig", algorithm="ed25519", timestamp="header:X-Time"),
    "ecdsa": PublicKey(signature="header:X-Sig", algorithm="ecdsa", timestamp="header:X-Time", encoding="base64"),
}
STAMP = "1700000000"
BODY = b'[{"event":"dropped"}]\r\n'


class Signed(NamedTuple):
    """A scheme, the public key as its sender shows it, and the signature of STAMP + BODY as it is sent."""

    scheme: PublicKey
    key: str
    signature: str


def openssl(*arguments: str) -> bytes:
    return subprocess.run(["openssl", *arguments], capture_output=True, check=True).stdout


def make(algorithm: str, directory: Path) -> Signed:
    private, message = directory / f"{algorithm}.pem", directory / "message"
    message.write_bytes(STAMP.encode() + BODY)
    kind = ["ed25519"] if algorithm == "ed25519" else ["EC", "-pkeyopt", "ec_paramgen_curve:P-256"]
    openssl("genpkey", "-algorithm", *kind, "-out", str(private))
    der = openssl("pkey", "-in", str(private), "-pubout", "-outform", "DER")
    if algorithm == "ed25519":
        signature = openssl("pkeyutl", "-sign", "-rawin", "-inkey", str(private), "-in", str(message)).hex()
        # the last 32 bytes of its DER are the key itself (RFC 8410)
        return Signed(SCHEMES[algorithm], der[-32:].hex(), signature)
    signature = base64.b64encode(openssl("dgst", "-sha256", "-sign", str(private), str(message))).decode()
    return Signed(SCHEMES[algorithm], base64.b64encode(der).decode(), signature)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Signed]:
    directory = tmp_path_factory.mktemp("keys")
    return {algorithm: make(algorithm, directory) for algorithm in SCHEMES}


@pytest.fixture(params=SCHEMES)
def signed(request: pytest.FixtureRequest, made: dict[str, Signed]) -> Signed:
    return made[request.param]


def ping(signature: str, body: Body = BODY, stamp: str | None = STAMP, now: float = 1_700_000_010.0) -> HookRequest:
    headers = {"x-sig": signature} | ({} if stamp is None else {"x-time": stamp})
    return HookRequest("POST", "/hooks/x", headers, body, "192.0.2.1", now)


def verify(
    signed: Signed, asked: HookRequest, *, before: tuple[str, ...] = (), tolerance: float | None = 60.0
) -> Proof:
    return signed.scheme.prepare(SchemeConfig(secrets=(*before, signed.key), tolerance=tolerance))(asked)


def reason(signed: Signed, asked: HookRequest) -> str:
    with pytest.raises(PingRefused) as error:
        verify(signed, asked)
    assert error.value.status == 401
    return error.value.reason


def test_a_signature_of_openssl_is_proven(signed: Signed) -> None:
    assert verify(signed, ping(signed.signature)) == Proof(0, -10.0)


def test_the_line_of_the_secrets_file_that_matches_is_told(signed: Signed, tmp_path: Path) -> None:
    other = make(signed.scheme.algorithm, tmp_path)
    assert verify(signed, ping(signed.signature), before=(other.key,)) == Proof(1, -10.0)
    assert reason(other, ping(signed.signature)) == "wrong signature"


def test_a_body_on_disk_is_verified_as_it_is(signed: Signed, tmp_path: Path) -> None:
    (tmp_path / "body").write_bytes(BODY)
    with (tmp_path / "body").open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as body:
        assert verify(signed, ping(signed.signature, body)) == Proof(0, -10.0)


def test_what_was_not_signed_is_refused(signed: Signed) -> None:
    assert reason(signed, ping(signed.signature, BODY + b" ")) == "wrong signature"
    assert reason(signed, ping(signed.signature, stamp="1700000001")) == "wrong signature"
    assert reason(signed, ping(signed.signature, stamp=None)) == "no signature"
    assert reason(signed, ping("")) == "no signature"
    assert reason(signed, ping("'#';[][];['345")) == "wrong signature"
    assert reason(signed, ping("é")) == "wrong signature"
    assert reason(signed, ping(signed.signature, now=1_700_000_100.0)) == "too old"
    assert reason(signed, ping(signed.signature, now=1_699_999_900.0)) == "too new"


def test_a_signed_time_may_be_of_any_age_where_the_sender_says_none(signed: Signed) -> None:
    assert verify(signed, ping(signed.signature, now=0.0), tolerance=None).skew == 1_700_000_000.0


@each(data=st.data())
@pytest.mark.parametrize("algorithm", SCHEMES)
def test_no_changed_signature_is_accepted(made: dict[str, Signed], algorithm: str, data: st.DataObject) -> None:
    signed = made[algorithm]
    changed = data.draw(
        st.one_of(
            st.text(max_size=200),
            st.binary(max_size=80).map(bytes.hex),
            st.binary(max_size=80).map(lambda octets: base64.b64encode(octets).decode()),
            st.integers(0, len(signed.signature) - 1).map(lambda end: signed.signature[:end]),
        )
    )
    if changed.lower().replace(" ", "") != signed.signature:
        assert reason(signed, ping(changed)) in ("wrong signature", "no signature")


@pytest.mark.parametrize(
    ("algorithm", "key"),
    [
        ("ed25519", ""),
        ("ed25519", "00" * 31),
        ("ed25519", "not hex"),
        ("ecdsa", ""),
        ("ecdsa", "AAAA"),
        ("ecdsa", "not base64!"),
        # of ed25519, in DER
        ("ecdsa", "MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE="),
    ],
)
def test_a_key_that_cannot_be_used_is_said_at_the_start(algorithm: str, key: str) -> None:
    with pytest.raises(UnusableKey, match=r"secrets_file: has no .* in secret 1"):
        SCHEMES[algorithm].prepare(SchemeConfig(secrets=(key,)))


def test_no_other_kind_pays_for_the_library() -> None:
    """It takes 13 MB of each web process, and the client that fetches keys 5 MB."""
    program = (
        "import sys; from glassq.settings import parse; from glassq.sources import open_sources;"
        "open_sources(parse('[sources.own]\\nkind = \"none\"\\nallow = [\"192.0.2.1\"]', 'glassq.toml'));"
        "print({'cryptography', 'urllib3'} & set(sys.modules))"
    )
    made = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert made.stdout.strip() == "set()"
