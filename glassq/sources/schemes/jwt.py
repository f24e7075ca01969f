"""Pings that bring a signed token (JWT) in Authorization: Google Pub/Sub, and any issuer of OpenID Connect.

A token proves who sends, and for whom; the body is not signed. Sources of the rules: RFC 7519 and 8725, and
https://cloud.google.com/pubsub/docs/authenticate-push-subscriptions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar
from urllib.parse import urlsplit

import msgspec

from glassq.sources.base import Proof
from glassq.sources.schemes.base import UnusableKey, unproven
from glassq.sources.schemes.encodings import from_base64url

if TYPE_CHECKING:
    from collections.abc import Callable

    from glassq.sources.base import HookRequest
    from glassq.sources.schemes.base import SchemeConfig, Verify

GOOGLE_ISSUERS = ("https://accounts.google.com", "accounts.google.com")
GOOGLE_KEYS = "https://www.googleapis.com/oauth2/v3/certs"
# How far the issuer's clock may be off, in seconds.
LEEWAY = 60.0
MAX_TOKEN = 8 << 10


class _Head(msgspec.Struct):
    alg: str
    kid: str = ""


class Claims(msgspec.Struct):
    """The claims that are checked."""

    iss: str
    aud: str | list[str]
    exp: float
    nbf: float = 0.0
    iat: float = 0.0
    sub: str = ""
    email: str = ""
    email_verified: bool | str = False
    azp: str = ""
    appid: str = ""

    def accounts(self) -> set[str]:
        """All names of the sender that the issuer vouches for."""
        named = {self.sub, self.azp, self.appid} - {""}
        return named | ({self.email} if self.email and self.email_verified in (True, "true") else set())


class Token(msgspec.Struct, frozen=True):
    """A token, taken apart. Nothing is proven yet."""

    algorithm: str
    key: str
    claims: Claims
    signed: bytes
    signature: bytes


class _Discovery(msgspec.Struct):
    issuer: str
    jwks_uri: str


_HEAD = msgspec.json.Decoder(_Head)
_CLAIMS = msgspec.json.Decoder(Claims)
_DISCOVERY = msgspec.json.Decoder(_Discovery)
_NOT_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class GoogleToken(msgspec.Struct, frozen=True):
    """Google's tokens, such as Pub/Sub's push requests have: for our audience, of our service account.

    Anybody can have Google make a token for any audience. So the account is what proves the sender.
    """

    needs: ClassVar[tuple[str, ...]] = ("audience", "account")
    may: ClassVar[tuple[str, ...]] = ()
    signs_time: ClassVar[bool] = False
    issuers: tuple[str, ...] = GOOGLE_ISSUERS
    keys_url: str = GOOGLE_KEYS

    def prepare(self, given: SchemeConfig) -> Verify:
        """Raises UnusableKey."""
        return _verifier(given, self.issuers, lambda: self.keys_url)


class Oidc(msgspec.Struct, frozen=True):
    """Tokens of the issuer that the settings name; its keys are found by OpenID Connect Discovery.

    `account` is the token's sub, azp or appid, or its email if that is verified.
    https://openid.net/specs/openid-connect-discovery-1_0.html
    """

    needs: ClassVar[tuple[str, ...]] = ("issuer", "audience", "account")
    may: ClassVar[tuple[str, ...]] = ()
    signs_time: ClassVar[bool] = False

    def prepare(self, given: SchemeConfig) -> Verify:
        """Raises UnusableKey if the issuer is no https URL, or another key is missing."""
        issuer = given.section.issuer or ""
        if not _is_https(issuer):
            raise UnusableKey("issuer", "expected an https URL without a query")
        url = issuer.removesuffix("/") + "/.well-known/openid-configuration"

        def read(body: bytes) -> str:
            return _keys_url(body, issuer)

        return _verifier(given, (issuer,), lambda: given.documents.get(url, read))


def _verifier(given: SchemeConfig, issuers: tuple[str, ...], keys_url: Callable[[], str]) -> Verify:
    from glassq.sources.schemes import jwk_set

    audience, account = given.section.audience, given.section.account
    for key, value in (("audience", audience), ("account", account)):
        if not value:
            raise UnusableKey(key, "is empty: without it, others could send tokens of their own")

    def verify(request: HookRequest) -> Proof:
        token = bearer(request)
        named = (token.algorithm, token.key)
        keys = given.documents.get(keys_url(), jwk_set.read, lambda keys: named in keys)
        matches = keys.get(named)
        if matches is None or not matches(token.signature, token.signed):
            raise unproven("wrong signature", "The token is not signed by a key of its issuer.")
        _check(token.claims, request.now, issuers, audience or "", account or "")
        return Proof()

    return verify


def bearer(request: HookRequest) -> Token:
    """The token in Authorization. Raises PingRefused if there is none, or it is none."""
    scheme, _, text = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not text:
        raise unproven("no token", "Authorization: Bearer is missing.")
    try:
        if len(text) > MAX_TOKEN:
            raise ValueError
        signed, _, signature = text.strip().encode("ascii").rpartition(b".")
        head, claims = (from_base64url(part) for part in signed.split(b"."))
        named = _HEAD.decode(head)
        return Token(named.alg, named.kid, _CLAIMS.decode(claims), signed, from_base64url(signature))
    except (ValueError, *_NOT_JSON):
        raise unproven("wrong token", "Authorization has no token of the form that is expected.") from None


def _check(claims: Claims, now: float, issuers: tuple[str, ...], audience: str, account: str) -> None:
    if now > claims.exp + LEEWAY:
        raise unproven("too old", "The token has expired.", claims.exp - now)
    if now < max(claims.nbf, claims.iat) - LEEWAY:
        raise unproven("too new", "The token is not valid yet.", max(claims.nbf, claims.iat) - now)
    audiences = [claims.aud] if isinstance(claims.aud, str) else claims.aud
    if claims.iss not in issuers or audience not in audiences:
        raise unproven("wrong token", "The token is of another issuer, or for another audience.")
    if account not in claims.accounts():
        raise unproven("account", "The token is of another account.")


def _is_https(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme == "https" and bool(parts.hostname) and not parts.query and url.isprintable() and " " not in url


def _keys_url(body: bytes, issuer: str) -> str:
    """Where the issuer's keys are. Raises ValueError."""
    try:
        found = _DISCOVERY.decode(body)
    except _NOT_JSON:
        raise ValueError("sent no OpenID configuration") from None
    if found.issuer != issuer or not _is_https(found.jwks_uri):
        raise ValueError("sent the OpenID configuration of another issuer, or no https URL of keys")
    return found.jwks_uri
