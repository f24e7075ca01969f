"""The values of Cloud Tasks in their JSON form: times, durations, bytes, enumerations.

Each raises ApiError with the field's name. Source: the JSON mapping of proto3.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from datetime import UTC, datetime

import msgspec

from glassq.push.http.errors import invalid

# HttpMethod of target.proto, by number.
METHODS = ("HTTP_METHOD_UNSPECIFIED", "POST", "GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS")
# Task.View of task.proto, by number.
VIEWS = ("VIEW_UNSPECIFIED", "BASIC", "FULL")

_DURATION = re.compile(r"(-?[0-9]{1,12})(\.[0-9]{1,9})?s")
_URL_SAFE = bytes.maketrans(b"-_", b"+/")


def seconds(field: str, text: str) -> float:
    """A duration, such as "30s" or "1.5s"."""
    if not _DURATION.fullmatch(text):
        raise invalid(f'{field}: expected a duration in seconds such as "30s" or "1.5s"')
    return float(text[:-1])


def posix(field: str, text: str) -> float:
    """A time of RFC 3339, in seconds since 1970."""
    try:
        found = msgspec.convert(text, datetime)
        if found.tzinfo is None:
            raise ValueError
        return found.timestamp()
    except (msgspec.ValidationError, ValueError, OverflowError):
        raise invalid(f'{field}: expected a time of RFC 3339, such as "2026-01-31T12:00:00Z"') from None


def octets(field: str, text: str) -> bytes:
    """Bytes in base64; the alphabet for URLs, and no padding, are fine too."""
    try:
        plain = text.encode("ascii").translate(_URL_SAFE).rstrip(b"=")
        return base64.b64decode(plain + b"=" * (-len(plain) % 4), validate=True)
    except (UnicodeEncodeError, binascii.Error):
        raise invalid(f"{field}: expected bytes in base64") from None


def one_of(field: str, given: str | int | None, words: tuple[str, ...]) -> str:
    """The word of an enumeration, which may be given by its number; None is the first, as is 0."""
    if given is None:
        return words[0]
    word = words[given] if isinstance(given, int) and 0 <= given < len(words) else given
    if word not in words:
        raise invalid(f"{field}: expected one of {', '.join(words[1:])}")
    return str(word)


def time_text(posix_seconds: float) -> str:
    """A time of RFC 3339 in UTC, with microseconds."""
    return datetime.fromtimestamp(posix_seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def duration_text(length: float) -> str:
    """A duration in JSON, such as "1.5s"."""
    whole = math.floor(length)
    return f"{whole}s" if whole == length else f"{length:.9f}".rstrip("0") + "s"
