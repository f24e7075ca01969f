"""The lines of a secrets file, as keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from glassq.sources.schemes.base import UnusableKey
from glassq.standard_webhooks import unpadded_base64

if TYPE_CHECKING:
    from collections.abc import Iterable

KeyForm = Literal["text", "hex", "base64"]


def decoded_keys(secrets: Iterable[str], form: KeyForm) -> list[bytes]:
    """The keys that the lines write. Raises UnusableKey, which names the line but does not quote it."""
    keys = []
    for number, secret in enumerate(secrets, 1):
        try:
            keys.append(_decoded(secret, form))
        except ValueError:
            raise UnusableKey("secrets_file", f"has no {form} in secret {number}: expected the key in {form}") from None
    return keys


def _decoded(secret: str, form: KeyForm) -> bytes:
    if form == "text":
        return secret.encode()
    key = bytes.fromhex(secret) if form == "hex" else unpadded_base64(secret)
    if not key:
        raise ValueError
    return key
