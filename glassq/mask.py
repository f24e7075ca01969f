"""Texts and bodies out of pings as people may see them: without secrets."""

from __future__ import annotations

import json
import math
import re
from typing import Any

MASK = "***"
# Of a body that is no JSON, so many characters are shown.
MAX_TEXT = 4_000

# a userToken is the name of a user, whom the operator must know
_SENSITIVE = (
    r"(?<!user)token|secret|passw|passphrase|credential|authori[sz]ation|api_?-?key|private_?-?key|signature|cookie"
)
_SECRET_KEY = re.compile(_SENSITIVE, re.IGNORECASE)
# In a text: key=value, "key": "value" (also of JSON that was cut off), and what stands in an Authorization header.
_VALUE = r""""(?:\\.|[^"\\])*"?|'(?:\\.|[^'\\])*'?|[^\s"'&,;}\]]+"""
_SECRET_PAIR = re.compile(
    rf"""([\w.-]{{0,60}}(?:{_SENSITIVE})[\w.-]{{0,60}}(?:["']\s*:|=)\s*|\b(?:bearer|basic)\s+)(?:{_VALUE})""",
    re.IGNORECASE,
)
# up to the last @ before the path: a password may hold one
_PASSWORD = re.compile(r"(://[^/:]*):[^/]*@")
_SECRET_IN_QUERY = re.compile(r"([?&][^=&]*(?:password|secret|token|key)[^=&]*=)[^&]*", re.IGNORECASE)


def masked_body(body: bytes) -> Any:
    """The body's JSON with secrets masked at any depth; a text, shortened, where it is no JSON."""
    try:
        return _masked(json.loads(body, parse_float=_float, parse_constant=str))
    except (ValueError, RecursionError):
        text = body.decode("utf-8", "backslashreplace")
        cut = f" … ({len(body)} bytes in all)" if len(text) > MAX_TEXT else ""
        return masked_text(text)[:MAX_TEXT] + cut


def masked_text(text: str) -> str:
    """The text with whatever follows a key that looks like a secret's masked."""
    return _SECRET_PAIR.sub(rf"\1{MASK}", text)


def without_password(url: str) -> str:
    """The URL with any password in it masked."""
    return _SECRET_IN_QUERY.sub(r"\1***", _PASSWORD.sub(r"\1:***@", url))


def _masked(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: MASK if _SECRET_KEY.search(key) and each else _masked(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_masked(each) for each in value]
    return value


def _float(text: str) -> float | str:
    # 1e999 is valid JSON, but what Python makes of it is not
    number = float(text)
    return number if math.isfinite(number) else text
