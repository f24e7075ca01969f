"""Tokens of Google and of other issuers: which prove a ping, and which do not."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given as each
from hypothesis import strategies as st

from glassq.errors import PingRefused, SourceUnready
from glassq.settings import SourceSettings, parse
from glassq.sources import open_sources
from glassq.sources.base import HookRequest, Proof
from glassq.sources.fetched_keys import FetchedKeys
from glassq.sources.schemes import jwk_set
from glassq.sources.schemes.base import SchemeConfig, UnusableKey
from glassq.sources.schemes.jwt import GOOGLE_KEYS, LEEWAY, MAX_TOKEN, GoogleToken, Oidc
from tests.push.targets import Target
from tests.sources.certificates import Authority
from tests.sources.published import Published
from tests.sources.tokens import ACCOUNT, AUDIENCE, NOW, OTHER_RSA, P256, RSA, SET, jwk, key_set, signed, text_of

if TYPE_CHECKING:
    from pathlib import Path

    from glassq.sources.schemes.base import Verify

SECTION = SourceSettings(audience=AUDIENCE, account=ACCOUNT)


def ping(token: str | None, scheme: str = "Bearer") -> HookRequest:
    headers = {} if token is None else {"authorization": f"{scheme} {token}"}
    return HookRequest("POST", "/hooks/x", headers, b"{}", "192.0.2.1", NOW)


def google(section: SourceSettings = SECTION, keys: bytes = SET) -> Verify:
    return GoogleToken().prepare(SchemeConfig(section=section, documents=Published({GOOGLE_KEYS: keys})))


def reason(verify: Verify, asked: HookRequest) -> str:
    with pytest.raises(PingRefused) as error:
        verify(asked)
    assert error.value.status == 401
    return error.value.reason


@pytest.mark.parametrize(("key", "kid"), [(RSA, "one"), (P256, "two"), (OTHER_RSA, "three")])
def test_a_token_of_google_is_proven(key: Any, kid: str) -> None:
    assert google()(ping(signed(key, kid))) == Proof()
    assert google()(ping(signed(key, kid), "bearer")) == Proof()


def test_a_source_of_pubsub_is_three_lines_of_settings() -> None:
    lines = f'[sources.pubsub]\naudience = "{AUDIENCE}"\naccount = "{ACCOUNT}"\n'
    (source,) = open_sources(parse(lines, "glassq.toml"), Published({GOOGLE_KEYS: SET}))
    body = b'{"message":{"attributes":{"eventType":"OBJECT_FINALIZE"},"data":"","messageId":"7"},"subscription":"s"}'
    asked = msgspec.structs.replace(ping(signed()), body=body)
    assert source.verify(asked) == Proof()
    labels = {"event": "OBJECT_FINALIZE", "event_id": "7", "subscription": "s"}
    assert source.describe(asked).labels == labels
    assert "authorization" not in source.describe(asked).headers


@pytest.mark.parametrize(
    ("claims", "why"),
    [
        ({"aud": "https://example.com/hooks/other"}, "wrong token"),
        ({"aud": []}, "wrong token"),
        ({"aud": None}, "wrong token"),
        ({"iss": "https://accounts.evil.example"}, "wrong token"),
        ({"iss": None}, "wrong token"),
        ({"email": "other@project.iam.gserviceaccount.com"}, "account"),
        ({"email_verified": False}, "account"),
        ({"email_verified": None}, "account"),
        ({"email": None}, "account"),
        ({"exp": NOW - LEEWAY - 1}, "too old"),
        ({"exp": None}, "wrong token"),
        ({"exp": "tomorrow"}, "wrong token"),
        ({"nbf": NOW + LEEWAY + 1}, "too new"),
        ({"iat": NOW + LEEWAY + 1}, "too new"),
    ],
)
def test_a_token_with_another_claim_is_refused(claims: dict[str, Any], why: str) -> None:
    assert reason(google(), ping(signed(**claims))) == why


@pytest.mark.parametrize(
    "claims", [{"aud": ["a", AUDIENCE]}, {"exp": NOW - LEEWAY + 1}, {"iss": "accounts.google.com"}, {"nbf": NOW}]
)
def test_a_token_may_be_written_in_several_ways(claims: dict[str, Any]) -> None:
    assert google()(ping(signed(**claims))) == Proof()


@pytest.mark.parametrize(
    ("token", "why"),
    [
        (None, "no token"),
        ("", "no token"),
        ("a", "wrong token"),
        ("a.b", "wrong token"),
        ("a.b.c.d", "wrong token"),
        ("é.é.é", "wrong token"),
        ("." * MAX_TOKEN * 2, "wrong token"),
    ],
)
def test_what_is_no_token_is_refused(token: str | None, why: str) -> None:
    assert reason(google(), ping(token)) == why


@pytest.mark.parametrize(
    ("key", "kid"),
    [(OTHER_RSA, "one"), (RSA, "three"), (RSA, "two"), (P256, "one"), (RSA, "unknown"), (RSA, None)],
    ids=["another", "of another", "of P-256", "of RSA", "unknown", "unnamed"],
)
def test_what_no_key_of_google_has_signed_is_refused(key: Any, kid: str | None) -> None:
    assert reason(google(), ping(signed(key, kid))) == "wrong signature"


def test_a_token_is_written_in_one_way_only() -> None:
    assert reason(google(), ping(signed() + "=")) == "wrong token"
    head, claims, signature = signed().split(".")
    assert reason(google(), ping(f"{head}=.{claims}.{signature}")) == "wrong token"


def test_a_basic_authorization_is_no_token() -> None:
    assert reason(google(), ping(signed(), "Basic")) == "no token"


@pytest.mark.parametrize("algorithm", ["none", "None", "HS256", "RS512", "ES256", ""])
def test_the_key_and_not_the_token_decides_the_algorithm(algorithm: str) -> None:
    _, claims, signature = signed().split(".")
    head = text_of(json.dumps({"alg": algorithm, "kid": "one", "typ": "JWT"}).encode())
    for end in (signature, ""):
        assert reason(google(), ping(f"{head}.{claims}.{end}")) == "wrong signature"


@each(data=st.data())
def test_no_changed_token_is_accepted(data: st.DataObject) -> None:
    token = data.draw(st.sampled_from([GOOD_RSA, GOOD_P256]))
    place = data.draw(st.integers(0, len(token) - 1))
    changed = token[:place] + data.draw(st.characters(codec="latin-1")) + token[place + 1 :]
    if changed == token:
        return
    with pytest.raises(PingRefused):
        google()(ping(changed))


GOOD_RSA, GOOD_P256 = signed(), signed(P256, "two")


@pytest.mark.parametrize("missing", ["audience", "account"])
def test_neither_audience_nor_account_can_be_left_out(missing: str) -> None:
    section = msgspec.structs.replace(SECTION, **{missing: ""})
    with pytest.raises(UnusableKey, match=missing):
        google(section)


def test_a_ping_is_not_refused_while_googles_keys_are_not_here() -> None:
    documents = Published()
    verify = GoogleToken().prepare(SchemeConfig(section=SECTION, documents=documents))
    with pytest.raises(SourceUnready):
        verify(ping(signed()))
    assert documents.asked == [GOOGLE_KEYS]


# -- other issuers -----------------------------------------------------------------------------------------------------

ISSUER = "https://login.example.com/tenant"
DISCOVERY = f"{ISSUER}/.well-known/openid-configuration"
KEYS = "https://keys.example.com/set"
OWN = SourceSettings(issuer=ISSUER, audience=AUDIENCE, account="4962773b-9cdb")


def oidc(section: SourceSettings = OWN, **discovery: Any) -> Verify:
    found = json.dumps({"issuer": ISSUER, "jwks_uri": KEYS, "x": 1} | discovery).encode()
    return Oidc().prepare(SchemeConfig(section=section, documents=Published({DISCOVERY: found, KEYS: SET})))


@pytest.mark.parametrize("claims", [{"sub": "4962773b-9cdb"}, {"azp": "4962773b-9cdb"}, {"appid": "4962773b-9cdb"}])
def test_a_token_of_another_issuer_is_proven(claims: dict[str, str]) -> None:
    assert oidc()(ping(signed(iss=ISSUER, **claims))) == Proof()


def test_a_token_of_another_account_or_issuer_is_refused() -> None:
    assert reason(oidc(), ping(signed(iss=ISSUER))) == "account"
    assert reason(oidc(), ping(signed(sub="4962773b-9cdb"))) == "wrong token"
    assert reason(oidc(), ping(signed(OTHER_RSA, "one", iss=ISSUER, sub="4962773b-9cdb"))) == "wrong signature"


@pytest.mark.parametrize(
    "discovery", [{"issuer": "https://other.example"}, {"jwks_uri": "http://keys.example.com"}, {"jwks_uri": 1}]
)
def test_a_configuration_of_another_issuer_is_not_used(discovery: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="OpenID configuration"):
        oidc(OWN, **discovery)(ping(signed(iss=ISSUER)))


@pytest.mark.parametrize(
    "issuer", ["", "http://login.example.com", "login.example.com", "https://", "https://a/?b", "https://a b"]
)
def test_an_issuer_is_an_https_url(issuer: str) -> None:
    with pytest.raises(UnusableKey, match="issuer"):
        oidc(SourceSettings(issuer=issuer, audience=AUDIENCE, account="x"))


# -- key sets ----------------------------------------------------------------------------------------------------------


def test_a_key_that_cannot_be_used_does_not_hinder_the_others() -> None:
    weak = rsa.generate_private_key(65537, 1024)
    strange = [
        jwk(weak, "weak"),
        jwk(RSA, "encrypts", use="enc"),
        jwk(P256, "curve", crv="P-521"),
        jwk(P256, "point", x="AQ"),
        jwk(RSA, "number", n="*"),
        {"kty": "oct", "k": "AAAA", "kid": "oct"},
        {"kty": 1},
        None,
    ]
    assert set(jwk_set.read(key_set(*strange, jwk(RSA, "one")))) == {("RS256", "one")}
    with pytest.raises(ValueError, match="without a key that can be used"):
        jwk_set.read(key_set(*strange))


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b"\xff", b'{"keys":1}', b'{"keys":' + b"[" * 100_000])
def test_what_is_no_key_set_is_said(body: bytes) -> None:
    with pytest.raises(ValueError, match="no set of keys"):
        jwk_set.read(body)


def test_a_new_key_is_fetched_when_a_token_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = Authority()
    with Target(root.server(tmp_path)) as server:
        monkeypatch.setattr("glassq.sources.fetched_keys.RENEW", 0.0)
        documents = FetchedKeys(None, root.client(), pace=0.0)
        url = f"{server.url}/certs?body=" + "".join(f"%{octet:02x}" for octet in SET)
        verify = GoogleToken(keys_url=url).prepare(SchemeConfig(section=SECTION, documents=documents))
        with pytest.raises(SourceUnready):
            verify(ping(signed()))
        documents.settle(60.0)
        assert verify(ping(signed())) == Proof()
        with pytest.raises(SourceUnready):
            verify(ping(signed(RSA, "four")))
        documents.settle(60.0)
        assert len(server.asked) == 2
        assert verify(ping(signed())) == Proof()
        documents.close()
