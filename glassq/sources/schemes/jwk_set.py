"""Sets of keys as issuers of tokens publish them (JSON Web Keys, RFC 7517)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import msgspec

from glassq.sources.schemes.asymmetric import es256_matches, p256_key_at, rsa_key, rsa_matches
from glassq.sources.schemes.encodings import from_base64url

MAX_KEYS = 100
# Whether this signature is that of these bytes.
Matches = Callable[[bytes, bytes], bool]
# By algorithm (of JWS, RFC 7518) and key id: a key is never used with another algorithm than its own.
KeySet = dict[tuple[str, str], Matches]


class _Jwk(msgspec.Struct):
    kty: str
    kid: str = ""
    use: str = "sig"
    n: str = ""
    e: str = ""
    crv: str = ""
    x: str = ""
    y: str = ""


class _JwkSet(msgspec.Struct):
    keys: list[Any]


_SET = msgspec.json.Decoder(_JwkSet)


def read(body: bytes) -> KeySet:
    """The keys that we can use: RSA (RS256) and P-256 (ES256). Raises ValueError if there is none."""
    try:
        listed = _SET.decode(body).keys
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise ValueError("sent no set of keys") from None
    found: KeySet = {}
    for item in listed[:MAX_KEYS]:
        # one that we cannot read does not hinder the others
        with suppress(msgspec.ValidationError, ValueError):
            found.update(_usable(msgspec.convert(item, _Jwk)))
    if not found:
        raise ValueError("sent a set without a key that can be used")
    return found


def _usable(jwk: _Jwk) -> KeySet:
    if jwk.use != "sig":
        return {}
    if jwk.kty == "RSA":
        return {("RS256", jwk.kid): partial(_rs256, rsa_key(_number(jwk.n), _number(jwk.e)))}
    if (jwk.kty, jwk.crv) == ("EC", "P-256"):
        return {("ES256", jwk.kid): partial(_es256, p256_key_at(_number(jwk.x), _number(jwk.y)))}
    return {}


def _rs256(key: Any, signature: bytes, signed: bytes) -> bool:
    return rsa_matches(key, signature, (signed,))


def _es256(key: Any, signature: bytes, signed: bytes) -> bool:
    return es256_matches(key, signature, (signed,))


def _number(text: str) -> int:
    return int.from_bytes(from_base64url(text.encode()))
