"""Amazon SNS and PayPal: whose certificate counts, what is signed, and what no change gets past."""

from __future__ import annotations

import base64
import json
import zlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from hypothesis import given as each
from hypothesis import strategies as st

from glassq.errors import PingRefused, SourceUnready
from glassq.settings import SourceSettings, parse
from glassq.sources import open_sources
from glassq.sources.base import HookRequest, Proof
from glassq.sources.fetched_keys import FetchedKeys
from glassq.sources.schemes.base import SchemeConfig, UnusableKey
from glassq.sources.schemes.x509 import PayPal, Sns, paypal_signed
from tests.push.targets import Target
from tests.sources.certificates import Authority, pem_of
from tests.sources.conftest import VECTORS, request_of
from tests.sources.published import Published

if TYPE_CHECKING:
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

NOW = datetime.now(UTC).timestamp()
TIME = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
SNS_CERTIFICATE = "https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-0123456789abcdef.pem"
ACCOUNT = "123456789012"
TOPIC = f"arn:aws:sns:eu-west-1:{ACCOUNT}:orders"
SNS = SourceSettings(account=ACCOUNT)


@pytest.fixture(scope="module")
def root() -> Authority:
    return Authority()


@pytest.fixture(scope="module")
def between(root: Authority) -> Authority:
    return Authority("Test Intermediate", root)


@pytest.fixture(scope="module")
def signer(between: Authority) -> tuple[bytes, RSAPrivateKey]:
    """The certificate of one who signs, and the key."""
    certificate, key = between.certify("sns.amazonaws.com")
    return pem_of(certificate), key


def signature(key: RSAPrivateKey, text: bytes, algorithm: hashes.HashAlgorithm) -> str:
    return base64.b64encode(key.sign(text, padding.PKCS1v15(), algorithm)).decode()


def message(key: RSAPrivateKey, version: str = "2", **changed: Any) -> dict[str, Any]:
    """A message of SNS that is signed as its page says, independently of the code that verifies it."""
    fields = {
        "Type": "Notification",
        "MessageId": "22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324",
        "TopicArn": TOPIC,
        "Subject": "My First Message",
        "Message": "Grüße\nvon SNS",
        "Timestamp": TIME,
        "SignatureVersion": version,
        "SigningCertURL": SNS_CERTIFICATE,
    } | changed
    names = ["Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"]
    if fields["Type"] != "Notification":
        names = ["Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"]
    text = "".join(f"{name}\n{fields[name]}\n" for name in names if fields.get(name) is not None)
    fields["Signature"] = signature(key, text.encode(), hashes.SHA1() if version == "1" else hashes.SHA256())
    return fields


def ping(fields: dict[str, Any] | bytes, **headers: str) -> HookRequest:
    body = fields if isinstance(fields, bytes) else json.dumps(fields).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return HookRequest("POST", "/hooks/x", named, body, "192.0.2.1", NOW)


def sns(asked: HookRequest, pem: bytes, section: SourceSettings = SNS, tolerance: float | None = 3600.0) -> Proof:
    documents = Published({SNS_CERTIFICATE: pem})
    return Sns().prepare(SchemeConfig(tolerance=tolerance, section=section, documents=documents))(asked)


def refused(error: pytest.ExceptionInfo[PingRefused]) -> tuple[int, str]:
    return error.value.status, error.value.reason


CONFIRMATION = {
    "Type": "SubscriptionConfirmation",
    "Token": "2336412f37",
    "Subject": None,
    "SubscribeURL": "https://sns.eu-west-1.amazonaws.com/?Action=ConfirmSubscription&TopicArn=x&Token=2336412f37",
}


@pytest.mark.parametrize("version", ["1", "2"])
@pytest.mark.parametrize(
    "changed",
    [{}, {"Subject": None}, {"Subject": ""}, CONFIRMATION, CONFIRMATION | {"Type": "UnsubscribeConfirmation"}],
)
def test_a_message_of_sns_is_proven(signer: tuple[bytes, RSAPrivateKey], version: str, changed: dict[str, Any]) -> None:
    pem, key = signer
    proof = sns(ping(message(key, version, **changed)), pem)
    assert proof.skew is not None
    assert abs(proof.skew) < 60


# Published: aws/aws-sdk-ruby, gems/aws-sdk-sns/spec/message_verifier_spec.rb
RUBY = {vector["name"]: vector for vector in VECTORS if vector["kind"] == "sns"}


def ruby(name: str, now: float | None = None) -> Proof:
    """A captured message, through a section of glassq.toml."""
    vector = RUBY[name]
    documents = Published({RUBY["sns-version-1"]["certificate_url"]: vector["secrets"][0].encode()})
    settings = parse('[sources.topics]\nkind = "sns"\naccount = "295079676684"\n', "glassq.toml")
    (source,) = open_sources(settings, documents)
    asked = request_of(vector | ({} if now is None else {"now": now}))
    labels = source.describe(asked).labels
    assert (labels["event"], labels["event_id"]) == ("Notification", "792cda85-518f-5dd3-9163-81d851212f3a")
    return source.verify(asked)


def test_a_captured_message_of_sns_is_proven_while_its_certificate_is_valid() -> None:
    assert ruby("sns-version-1").skew == pytest.approx(-1.683)
    with pytest.raises(PingRefused, match="not valid at this time") as error:
        ruby("sns-version-1", 1759043440.0)
    assert refused(error) == (401, "wrong signature")


@pytest.mark.parametrize("name", [name for name, vector in RUBY.items() if not vector["valid"]])
def test_published_forgeries_of_sns_are_refused(name: str) -> None:
    with pytest.raises(PingRefused) as error:
        ruby(name)
    assert refused(error) == (401, "wrong signature")


@pytest.mark.parametrize(
    "url",
    [
        "http://sns.us-east-1.amazonaws.com/x.pem",
        "https://sns.us-east-1.amazonaws.com.evil.example/x.pem",
        "https://sns.us-east-1.amazonaws.com:8443/x.pem",
        "https://a@sns.us-east-1.amazonaws.com/x.pem",
        "https://sns.us-east-1.amazonaws.com@evil.example/x.pem",
        "https://evil.example/sns.us-east-1.amazonaws.com/x.pem",
        "https://evil.example#sns.us-east-1.amazonaws.com/x.pem",
        "https://sns.us.east.amazonaws.com/x.pem",
        "https://s3.us-east-1.amazonaws.com/x.pem",
        "https://sns.us-east-1.amazonaws.com/bucket/x.pem",
        "https://sns.us-east-1.amazonaws.com/x.pem?y",
        "https://sns.us-east-1.amazonaws.com/?x.pem",
        "https://sns.us-east-1.amazonaws.com/../x.pem",
        "https://sns.us-east-1.amazonaws.com/x.pem\n",
        "https://sns.us-east-1.amazonaws.com/.pem",
        "https://sns.us-east-1.amazonaws.comm/x.pem",
        "https://SNS.us-east-1.amazonaws.com/x.pem",
        "",
    ],
)
def test_no_certificate_of_another_host_is_even_asked_for(signer: tuple[bytes, RSAPrivateKey], url: str) -> None:
    documents = Published()
    verify = Sns().prepare(SchemeConfig(section=SNS, documents=documents))
    with pytest.raises(PingRefused) as error:
        verify(ping(message(signer[1], SigningCertURL=url)))
    assert refused(error) == (401, "wrong signature")
    assert not documents.asked


@pytest.mark.parametrize("url", [SNS_CERTIFICATE, "https://sns.cn-north-1.amazonaws.com.cn/a.pem"])
def test_a_message_is_not_refused_while_its_certificate_is_not_here(
    signer: tuple[bytes, RSAPrivateKey], url: str
) -> None:
    documents = Published()
    with pytest.raises(SourceUnready):
        Sns().prepare(SchemeConfig(section=SNS, documents=documents))(ping(message(signer[1], SigningCertURL=url)))
    assert documents.asked == [url]


@pytest.mark.parametrize(
    ("account", "accepted"),
    [
        (ACCOUNT, True),
        (TOPIC, True),
        (f"999999999999 {ACCOUNT}", True),
        ("999999999999", False),
        (f"{TOPIC}2", False),
        (f"arn:aws:sns:us-east-1:{ACCOUNT}:orders", False),
    ],
)
def test_a_topic_of_somebody_else_is_refused(signer: tuple[bytes, RSAPrivateKey], account: str, accepted: bool) -> None:
    asked = ping(message(signer[1]))
    if accepted:
        assert sns(asked, signer[0], SourceSettings(account=account))
        return
    with pytest.raises(PingRefused) as error:
        sns(asked, signer[0], SourceSettings(account=account))
    assert refused(error) == (401, "account")


@pytest.mark.parametrize("account", [None, "", " ", "me", "12345678901", "arn:aws:s3:::bucket"])
def test_sns_needs_an_account(account: str | None) -> None:
    with pytest.raises(UnusableKey, match="account"):
        Sns().prepare(SchemeConfig(section=SourceSettings(account=account), documents=Published()))


@pytest.mark.parametrize(
    ("time", "reason"),
    [("2022-07-28T21:23:58.317Z", "too old"), ("2999-01-01T00:00:00Z", "too new"), ("yesterday", "malformed")],
)
def test_a_message_of_sns_from_another_time_is_refused(
    signer: tuple[bytes, RSAPrivateKey], time: str, reason: str
) -> None:
    asked = ping(message(signer[1], Timestamp=time))
    with pytest.raises(PingRefused) as error:
        sns(asked, signer[0])
    assert refused(error) == (401, reason)


def test_a_message_of_sns_with_a_field_twice_is_refused(signer: tuple[bytes, RSAPrivateKey]) -> None:
    body = json.dumps(message(signer[1])).encode()
    assert sns(ping(body), signer[0])
    for twice in (b'{"Message": "another", ' + body[1:], body[:-1] + b', "Type": "Notification"}'):
        with pytest.raises(PingRefused):
            sns(ping(twice), signer[0])


@pytest.mark.parametrize(
    "body", [b"", b"hello", b"[]", b"{}", b'{"Signature":1}', b"\xff", b"{" * 100_000, b'{"x":' + b"[" * 100_000]
)
def test_what_is_no_message_of_sns_has_no_signature(body: bytes) -> None:
    with pytest.raises(PingRefused) as error:
        sns(ping(body), b"")
    assert refused(error) == (401, "no signature")


@each(data=st.data())
def test_no_change_of_a_message_of_sns_is_accepted(signer: tuple[bytes, RSAPrivateKey], data: st.DataObject) -> None:
    fields = message(signer[1])
    name = data.draw(st.sampled_from(sorted(set(fields) - {"SigningCertURL"})))
    value = data.draw(st.one_of(st.text(), st.none(), st.integers(), st.just(str(fields[name]) + "\n")))
    if value == fields[name]:
        return
    with pytest.raises(PingRefused):
        sns(ping(fields | {name: value}), signer[0])


@each(data=st.data())
def test_no_changed_bytes_of_a_message_of_sns_are_another_one(
    signer: tuple[bytes, RSAPrivateKey], data: st.DataObject
) -> None:
    fields = message(signer[1])
    body = bytearray(json.dumps(fields).encode())
    body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    try:
        sns(ping(bytes(body)), signer[0])
    except (PingRefused, SourceUnready):
        return
    unsigned = {"Signature", "SigningCertURL", "SignatureVersion"}
    read = json.loads(bytes(body), strict=False)
    assert {name: read.get(name) for name in fields if name not in unsigned} == {
        name: value for name, value in fields.items() if name not in unsigned
    }


# -- PayPal ------------------------------------------------------------------------------------------------------------

WEBHOOK = "4JH86294D6297924G"
PAYPAL_CERTIFICATE = "https://api.paypal.com/v1/notifications/certs/CERT-360caa42-fca2a594-a5cafa77"
BODY = b'{"id":"WH-1","event_type":"PAYMENT.SALE.COMPLETED","summary":"\xe2\x82\xac 20"}'


def paypal_ping(key: RSAPrivateKey, body: bytes = BODY, **changed: str) -> HookRequest:
    signed = f"dfb3be50|{TIME}|{WEBHOOK}|{zlib.crc32(body)}".encode()
    headers = {
        "paypal_transmission_id": "dfb3be50",
        "paypal_transmission_time": TIME,
        "paypal_auth_algo": "SHA256withRSA",
        "paypal_cert_url": PAYPAL_CERTIFICATE,
        "paypal_transmission_sig": signature(key, signed, hashes.SHA256()),
    } | changed
    return ping(body, **headers)


def paypal(asked: HookRequest, root: Authority, chain: bytes, webhook: str | None = WEBHOOK) -> Proof:
    given = SchemeConfig(section=SourceSettings(webhook_id=webhook), documents=Published({PAYPAL_CERTIFICATE: chain}))
    return PayPal(roots=pem_of(root.certificate)).prepare(given)(asked)


@pytest.fixture(scope="module")
def paypal_signer(between: Authority) -> tuple[bytes, RSAPrivateKey]:
    """The chain of one who signs for PayPal, and the key."""
    certificate, key = between.certify("messageverificationcerts.paypal.com")
    return pem_of(certificate) + pem_of(between.certificate), key


def test_a_ping_of_paypal_is_proven(root: Authority, paypal_signer: tuple[bytes, RSAPrivateKey]) -> None:
    chain, key = paypal_signer
    assert abs(paypal(paypal_ping(key), root, chain).skew or 99) < 60


def test_what_paypal_signs_is_as_its_sdk_has_it() -> None:
    # published: paypal/PayPal-Python-SDK, test/unit_tests/notifications_test.py
    (vector,) = [vector for vector in VECTORS if vector["kind"] == "paypal"]
    assert paypal_signed(request_of(vector), WEBHOOK) == vector["signed_text"].encode()


@pytest.mark.parametrize(
    "changed",
    [
        {"paypal_transmission_id": "other"},
        {"paypal_transmission_time": "2015-05-18T15:45:13Z"},
        {"paypal_auth_algo": "SHA1withRSA"},
        {"paypal_cert_url": PAYPAL_CERTIFICATE.replace("paypal.com", "paypal.com.evil.example")},
        {"paypal_cert_url": PAYPAL_CERTIFICATE.replace("api.paypal.com", "evilpaypal.com")},
        {"paypal_cert_url": PAYPAL_CERTIFICATE.replace("https", "http")},
        {"paypal_cert_url": PAYPAL_CERTIFICATE.replace(".com/", ".com:8443/")},
        {"paypal_cert_url": "https://evil.example/.paypal.com/x"},
        {"paypal_cert_url": "https://evil.example@api.paypal.com/x"},
        {"paypal_cert_url": ""},
        {"paypal_transmission_sig": "AAAA"},
        {"paypal_transmission_sig": "not base64"},
        {"paypal_transmission_sig": "é"},
    ],
)
def test_a_changed_ping_of_paypal_is_refused(
    root: Authority, paypal_signer: tuple[bytes, RSAPrivateKey], changed: dict[str, str]
) -> None:
    chain, key = paypal_signer
    with pytest.raises(PingRefused) as error:
        paypal(paypal_ping(key, BODY, **changed), root, chain)
    assert refused(error) == (401, "wrong signature")


def test_a_changed_body_another_webhook_and_no_signature_are_refused(
    root: Authority, paypal_signer: tuple[bytes, RSAPrivateKey]
) -> None:
    chain, key = paypal_signer
    asked = paypal_ping(key)
    with pytest.raises(PingRefused):
        paypal(HookRequest("POST", "/", asked.headers, BODY + b" ", "", NOW), root, chain)
    with pytest.raises(PingRefused):
        paypal(asked, root, chain, webhook="another")
    with pytest.raises(PingRefused) as error:
        paypal(ping(BODY), root, chain)
    assert refused(error) == (401, "no signature")
    with pytest.raises(UnusableKey, match="webhook_id"):
        paypal(asked, root, chain, webhook=None)


def test_only_a_chain_of_trust_to_paypal_is_one(root: Authority, between: Authority) -> None:
    """What PayPal's host sends is used only if an authority vouches for it; else the ping waits, and a person looks."""
    whole = pem_of(between.certificate)
    other = Authority("Another Root")
    expired, key = between.certify("messageverificationcerts.paypal.com", days=-0.5)
    stranger, _ = between.certify("paypal.com.evil.example")
    forged, _ = other.certify("messageverificationcerts.paypal.com")
    alone, _ = between.certify("messageverificationcerts.paypal.com")
    for chain, why in [
        (pem_of(expired) + whole, "not trusted"),
        (pem_of(stranger) + whole, "not for paypal.com"),
        (pem_of(forged) + pem_of(other.certificate), "not trusted"),
        (pem_of(alone), "not trusted"),
        (b"no PEM", "no certificate"),
        (b"", "no certificate"),
    ]:
        with pytest.raises(ValueError, match=why):
            paypal(paypal_ping(key), root, chain)


def test_a_certificate_of_an_unknown_version_is_said(signer: tuple[bytes, RSAPrivateKey]) -> None:
    der = base64.b64decode(b"".join(signer[0].split(b"\n")[1:-2]))
    assert der.count(b"\xa0\x03\x02\x01\x02") == 1, "version 3"
    strange = base64.encodebytes(der.replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x07"))
    with pytest.raises(ValueError, match="certificate"):
        sns(ping(message(signer[1])), b"-----BEGIN CERTIFICATE-----\n" + strange + b"-----END CERTIFICATE-----\n")


def test_the_systems_authorities_are_trusted_if_no_others_are_named(paypal_signer: tuple[bytes, RSAPrivateKey]) -> None:
    chain, key = paypal_signer
    given = SchemeConfig(section=SourceSettings(webhook_id=WEBHOOK), documents=Published({PAYPAL_CERTIFICATE: chain}))
    with pytest.raises(ValueError, match="not trusted"):
        PayPal().prepare(given)(paypal_ping(key))


# -- a real server -----------------------------------------------------------------------------------------------------


def test_a_certificate_is_fetched_from_its_host_and_then_proves_the_ping(
    root: Authority, signer: tuple[bytes, RSAPrivateKey], tmp_path: Path
) -> None:
    pem, key = signer
    with Target(root.server(tmp_path)) as server:
        url = f"{server.url}/a.pem?body=" + "".join(f"%{octet:02x}" for octet in pem)
        keys = FetchedKeys(None, root.client(), pace=0.0)
        verify = Sns(certificate_url=r"https://127\.0\.0\.1:[0-9]+/a\.pem.*").prepare(
            SchemeConfig(section=SNS, documents=keys)
        )
        asked = ping(message(key, SigningCertURL=url))
        with pytest.raises(SourceUnready):
            verify(asked)
        keys.settle(60.0)
        assert verify(asked).skew is not None
        assert len(server.asked) == 1
        with pytest.raises(PingRefused):
            verify(ping(message(key, SigningCertURL=url) | {"Message": "another"}))
        keys.close()
