"""Bytes as headers and tokens write them."""

from __future__ import annotations

import binascii

# "+" and "/" are none of base64url's characters, and "=" is left out.
_URL_SAFE = bytes.maketrans(b"-_+/=", b"+/!!!")


def from_base64(text: str) -> bytes:
    """base64 with its padding (RFC 4648, section 4), and nothing else. Raises ValueError."""
    return binascii.a2b_base64(text.encode("ascii"), strict_mode=True)


def from_base64url(text: bytes) -> bytes:
    """base64url without padding (RFC 7515, section 2), in its one right form. Raises ValueError."""
    standard = text.translate(_URL_SAFE) + b"=" * (-len(text) % 4)
    octets = binascii.a2b_base64(standard, strict_mode=True)
    # the last character may have bits to spare, which the library does not look at
    if binascii.b2a_base64(octets, newline=False) != standard:
        raise ValueError("bits to spare that are not 0")
    return octets
