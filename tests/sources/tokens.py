"""Keys and tokens as issuers make them; the tokens by google-auth, which knows nothing of the code that reads them."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from google.auth import crypt
from google.auth import jwt as google_jwt

NOW = time.time()
AUDIENCE = "https://example.com/hooks/orders"
ACCOUNT = "pusher@project.iam.gserviceaccount.com"
CLAIMS = {
    "aud": AUDIENCE,
    "azp": "113774264463038321964",
    "email": ACCOUNT,
    "email_verified": True,
    "exp": NOW + 3600,
    "iat": NOW - 60,
    "iss": "https://accounts.google.com",
    "sub": "113774264463038321964",
}

RSA = rsa.generate_private_key(65537, 2048)
OTHER_RSA = rsa.generate_private_key(65537, 2048)
P256 = ec.generate_private_key(ec.SECP256R1())


def text_of(octets: bytes) -> str:
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()


def number(value: int) -> str:
    return text_of(value.to_bytes((value.bit_length() + 7) // 8))


def jwk(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, kid: str, **more: Any) -> dict[str, Any]:
    if isinstance(key, rsa.RSAPrivateKey):
        numbers = key.public_key().public_numbers()
        return {"kty": "RSA", "kid": kid, "n": number(numbers.n), "e": number(numbers.e), "alg": "RS256"} | more
    point = key.public_key().public_numbers()
    coordinates = {"x": text_of(point.x.to_bytes(32)), "y": text_of(point.y.to_bytes(32))}
    return {"kty": "EC", "crv": "P-256", "kid": kid, **coordinates} | more


def key_set(*keys: object) -> bytes:
    return json.dumps({"keys": keys}).encode()


SET = key_set(jwk(RSA, "one"), jwk(P256, "two"), jwk(OTHER_RSA, "three"))


def signed(key: Any = RSA, kid: str | None = "one", **claims: Any) -> str:
    """A token, as google-auth makes it."""
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    signer: Any = crypt.RSASigner if isinstance(key, rsa.RSAPrivateKey) else crypt.EsSigner
    payload = {name: value for name, value in (CLAIMS | claims).items() if value is not None}
    token: bytes = google_jwt.encode(signer.from_string(pem, kid), payload)  # type: ignore[no-untyped-call]
    return token.decode()
