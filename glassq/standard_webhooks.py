"""Standard Webhooks, as far as whoever signs and whoever verifies share it: `id.timestamp.body` by HMAC-SHA256 (v1).

Source: https://github.com/standard-webhooks/standard-webhooks (spec and libraries).
"""

from __future__ import annotations

import base64
import binascii
import hmac
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

# How secrets begin: a key that both sides have, and the public one of a pair.
SHARED, PUBLIC = "whsec_", "whpk_"
# The spec asks for 24 to 64 bytes; a shorter key that somebody uses is still told from a typing mistake.
MIN_KEY = 16


def unpadded_base64(text: str) -> bytes:
    """Bytes in base64, whose padding may lack. Raises ValueError."""
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except binascii.Error as error:
        raise ValueError("no base64") from error


def shared_key(secret: str) -> bytes:
    """The key that a secret writes: whsec_..., or the same without that. Raises ValueError, which quotes nothing."""
    try:
        key = unpadded_base64(secret.removeprefix(SHARED))
    except ValueError:
        key = b""
    if len(key) < MIN_KEY:
        raise ValueError(f"expected {SHARED} and base64 of at least {MIN_KEY} bytes")
    return key


def message(event_id: str, stamp: str, body: bytes = b"") -> bytes:
    """What is signed; without `body`, what stands before it."""
    return f"{event_id}.{stamp}.".encode() + body


def signature(key: bytes, signed: bytes) -> str:
    """The signature of a message."""
    return f"v1,{base64.b64encode(hmac.digest(key, signed, 'sha256')).decode()}"


def signed_headers(keys: Sequence[bytes], event_id: str, at: float, body: bytes) -> dict[str, str]:
    """The headers of a request that is sent at this Unix time, with a signature by each key."""
    stamp = str(int(at))
    signed = message(event_id, stamp, body)
    return {
        "webhook-id": event_id,
        "webhook-timestamp": stamp,
        "webhook-signature": " ".join(signature(key, signed) for key in keys),
    }
