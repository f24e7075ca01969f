"""Pings that are signed with the key of a certificate, which the sender's own host publishes: Amazon SNS, PayPal.

The ping says where its certificate is. That URL is checked before anything is fetched: only the sender's own host may
say which certificate is right.
"""

from __future__ import annotations

import json
import re
import zlib
from functools import partial
from typing import TYPE_CHECKING, ClassVar

import msgspec

from glassq.sources.base import HookRequest, Proof
from glassq.sources.schemes.base import UnusableKey, check_time, unproven
from glassq.sources.schemes.encodings import from_base64
from glassq.sources.times import unix_time

if TYPE_CHECKING:
    from glassq.sources.schemes.asymmetric import Certificate
    from glassq.sources.schemes.base import SchemeConfig, Verify

# Where certificates may lie: no port, no user, no query, nothing that leads elsewhere.
SNS_URL = r"https://sns\.[a-z0-9-]{1,40}\.amazonaws\.com(\.cn)?/[A-Za-z0-9_-][A-Za-z0-9._-]{0,200}\.pem"
PAYPAL_URL = r"https://([a-z0-9-]{1,60}\.){1,4}paypal\.com/[A-Za-z0-9_-][A-Za-z0-9/_-]{0,200}"
_ACCOUNT = re.compile(r"[0-9]{12}|arn:aws[a-z-]*:sns:[a-z0-9-]+:[0-9]{12}:[A-Za-z0-9_-]{1,256}(\.fifo)?")


class SnsMessage(msgspec.Struct):
    """The fields of a message of SNS that are signed, or say how.

    https://docs.aws.amazon.com/sns/latest/dg/sns-message-and-json-formats.html
    """

    type: str = msgspec.field(name="Type", default="")
    message_id: str = msgspec.field(name="MessageId", default="")
    topic: str = msgspec.field(name="TopicArn", default="")
    subject: str | None = msgspec.field(name="Subject", default=None)
    message: str = msgspec.field(name="Message", default="")
    timestamp: str = msgspec.field(name="Timestamp", default="")
    token: str | None = msgspec.field(name="Token", default=None)
    subscribe_url: str | None = msgspec.field(name="SubscribeURL", default=None)
    signature_version: str = msgspec.field(name="SignatureVersion", default="")
    signature: str = msgspec.field(name="Signature", default="")
    certificate_url: str = msgspec.field(name="SigningCertURL", default="")

    def signed(self) -> bytes:
        """What its sender has signed: names and values, a line each, in the order of the names."""
        note = self.type == "Notification"
        pairs = [
            ("Message", self.message),
            ("MessageId", self.message_id),
            ("Subject", self.subject if note else None),
            ("SubscribeURL", None if note else self.subscribe_url),
            ("Timestamp", self.timestamp),
            ("Token", None if note else self.token),
            ("TopicArn", self.topic),
            ("Type", self.type),
        ]
        # no JSON holds what UTF-8 cannot encode but by escapes, and SNS sends none of these
        return "".join(f"{name}\n{value}\n" for name, value in pairs if value is not None).encode(errors="replace")


_MESSAGE = msgspec.json.Decoder(SnsMessage)


class Sns(msgspec.Struct, frozen=True):
    """Amazon SNS, signature versions 1 and 2. `certificate_url` is a pattern for the whole URL.

    A signature proves that SNS sent the message, for whatever topic: anybody may subscribe our URL to their own.
    So the account that owns the topic is checked, too. A certificate's chain is not: its file has none, and the host,
    asked over TLS, is AWS's own.
    https://docs.aws.amazon.com/sns/latest/dg/sns-verify-signature-of-message.html
    """

    needs: ClassVar[tuple[str, ...]] = ("account",)
    may: ClassVar[tuple[str, ...]] = ()
    signs_time: ClassVar[bool] = True
    certificate_url: str = SNS_URL

    def prepare(self, given: SchemeConfig) -> Verify:
        """Raises UnusableKey if an account is neither an account's id nor a topic's ARN."""
        from glassq.sources.schemes import asymmetric

        accounts = set((given.section.account or "").split())
        if not accounts or not all(map(_ACCOUNT.fullmatch, accounts)):
            raise UnusableKey("account", "expected AWS account ids of 12 digits, or ARNs of topics")
        allowed = re.compile(self.certificate_url)

        def verify(request: HookRequest) -> Proof:
            message = _sns_message(request)
            algorithm = {"1": "sha1", "2": "sha256"}.get(message.signature_version)
            if algorithm is None or not allowed.fullmatch(message.certificate_url):
                raise unproven("wrong signature", "SignatureVersion or SigningCertURL is not one of Amazon SNS.")
            signature = decoded(message.signature)
            certificate = given.documents.get(message.certificate_url, asymmetric.read_certificate)
            _check_dates(certificate, request.now)
            if not asymmetric.rsa_matches(certificate.key, signature, (message.signed(),), algorithm):
                raise unproven("wrong signature", "The signature is not that of this message.")
            # arn:aws:sns:REGION:ACCOUNT:NAME
            if accounts.isdisjoint({message.topic, *message.topic.split(":")[4:5]}):
                raise unproven("account", "The topic belongs to another account.")
            skew = _skew(message.timestamp, request.now)
            check_time(skew, given.tolerance)
            return Proof(skew=skew)

        return verify


class PayPal(msgspec.Struct, frozen=True):
    """PayPal. `certificate_url` is a pattern for the whole URL, `domain` whose certificates are right.

    `roots` are the trusted authorities in PEM; empty: those that the system trusts.
    https://developer.paypal.com/api/rest/webhooks/rest/
    """

    needs: ClassVar[tuple[str, ...]] = ("webhook_id",)
    may: ClassVar[tuple[str, ...]] = ()
    signs_time: ClassVar[bool] = True
    certificate_url: str = PAYPAL_URL
    domain: str = "paypal.com"
    roots: bytes = b""

    def prepare(self, given: SchemeConfig) -> Verify:
        """Raises UnusableKey without the webhook's id."""
        from glassq.sources.schemes import asymmetric

        webhook = given.section.webhook_id
        if not webhook:
            raise UnusableKey("webhook_id", "expected the id that PayPal shows beside the webhook")
        allowed = re.compile(self.certificate_url)
        read = partial(asymmetric.read_trusted_chain, domain=self.domain, roots=asymmetric.trusted_roots(self.roots))

        def verify(request: HookRequest) -> Proof:
            headers = request.headers
            if "paypal-transmission-sig" not in headers:
                raise unproven("no signature", "PAYPAL-TRANSMISSION-SIG is missing.")
            url = headers.get("paypal-cert-url", "")
            if headers.get("paypal-auth-algo") != "SHA256withRSA" or not allowed.fullmatch(url):
                raise unproven("wrong signature", "PAYPAL-AUTH-ALGO or PAYPAL-CERT-URL is not one of PayPal.")
            signature = decoded(headers["paypal-transmission-sig"])
            certificate = given.documents.get(url, read)
            _check_dates(certificate, request.now)
            if not asymmetric.rsa_matches(certificate.key, signature, (paypal_signed(request, webhook),)):
                raise unproven("wrong signature", "The signature is not that of this body and webhook.")
            skew = _skew(headers.get("paypal-transmission-time", ""), request.now)
            check_time(skew, given.tolerance)
            return Proof(skew=skew)

        return verify


def paypal_signed(request: HookRequest, webhook: str) -> bytes:
    """What PayPal signs: id, time, the webhook's id, and the body's CRC-32 in decimal."""
    names = ("paypal-transmission-id", "paypal-transmission-time")
    parts = [*(request.headers.get(name, "") for name in names), webhook, str(zlib.crc32(request.body))]
    return "|".join(parts).encode(errors="replace")


def decoded(signature: str) -> bytes:
    """A signature in base64. Raises PingRefused."""
    try:
        return from_base64(signature)
    except ValueError:
        raise unproven("wrong signature", "The signature is not base64.") from None


def _sns_message(request: HookRequest) -> SnsMessage:
    try:
        message = _MESSAGE.decode(request.body)
        # values are signed, not bytes: which of two fields of one name counts, a handler's reader would decide
        json.loads(bytes(request.body), object_pairs_hook=_once)
    except (msgspec.DecodeError, ValueError, RecursionError):
        raise unproven("no signature", "The body is no message of Amazon SNS. Is raw delivery on?") from None
    if not message.signature:
        raise unproven("no signature", "The message has no Signature. Is raw delivery on?")
    return message


def _once(pairs: list[tuple[str, object]]) -> None:
    if len(dict(pairs)) != len(pairs):
        raise ValueError("a field twice")


def _check_dates(certificate: Certificate, now: float) -> None:
    if not certificate.valid_at(now):
        raise unproven("wrong signature", "The certificate is not valid at this time.")


def _skew(time: str, now: float) -> float:
    """A signed time minus ours, in seconds. Raises PingRefused if it is none."""
    sent = unix_time(time, "rfc3339")
    if sent is None:
        raise unproven("malformed", "The signed time cannot be read.")
    return sent - now
