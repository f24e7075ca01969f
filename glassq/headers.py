"""HTTP header fields, in the forms that HTTP libraries use, and Retry-After."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

# Maximum wait that we accept from a server, in seconds.
MAX_RETRY_AFTER = 86_400.0
# A date has 29 characters; a longer value is neither a date nor a number that matters.
_MAX_LENGTH = 100


class Headers(Mapping[str, str]):
    """Header fields by name, in any case (RFC 9110, 5.1); immutable."""

    __slots__ = ("_fields",)

    def __init__(self, fields: Mapping[str, str]) -> None:
        self._fields = {name.lower(): (name, value) for name, value in fields.items()}

    def __getitem__(self, name: str) -> str:
        return self._fields[name.lower()][1]

    def __iter__(self) -> Iterator[str]:
        return (name for name, _ in self._fields.values())

    def __len__(self) -> int:
        return len(self._fields)

    def __repr__(self) -> str:
        return f"Headers({dict(self)!r})"


def retry_after(headers: Any) -> float | None:
    """Seconds that a response asks its client to wait (Retry-After), from 0 to a day; None if it does not say.

    `headers` are the response's, as http.client, urllib3, requests, httpx, aiohttp or ASGI have them: a mapping, or
    pairs of name and value, in text or bytes. It may also be None, or the field's value alone.
    A date is compared with this machine's clock; one in the past is 0. Source of the rule: RFC 9110, 10.2.3.
    """
    found = (seconds(value) for value in _values(headers, "retry-after"))
    return next((wait for wait in found if wait is not None), None)


def retry_delay(value: object, now: datetime | None = None) -> float | None:
    """The same of one value, as the delay of a job: rounded up to whole seconds, at least 1."""
    wait = seconds(value, now)
    return None if wait is None else max(1.0, math.ceil(wait))


def seconds(value: object, now: datetime | None = None) -> float | None:
    """One Retry-After value, a number or an HTTP-date, in seconds from `now`; None if it is neither."""
    text = _text(value).strip() if isinstance(value, str | bytes | int) and not isinstance(value, bool) else ""
    if not text.isascii() or not text:
        return None
    if text.isdigit():
        return min(float(text), MAX_RETRY_AFTER)
    if len(text) > _MAX_LENGTH:
        return None
    try:
        moment = parsedate_to_datetime(text)
        wait = (moment.replace(tzinfo=moment.tzinfo or UTC) - (now or datetime.now(UTC))).total_seconds()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return min(max(0.0, wait), MAX_RETRY_AFTER)


def _values(headers: Any, name: str) -> Iterator[object]:
    if headers is None:
        return
    if isinstance(headers, str | bytes):
        yield headers
        return
    for key, value in headers.items() if hasattr(headers, "items") else headers:
        if _text(key).lower() == name:
            # some clients keep a list of values for each name
            yield from value if isinstance(value, Iterable) and not isinstance(value, str | bytes) else (value,)


def _text(value: object) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)
