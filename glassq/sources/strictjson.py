"""JSON from strangers: strictly RFC 8259, without the constructs on which parsers disagree.

It also refuses duplicate keys (which of two userTokens counts?), NaN and infinities, numbers that parsers read
differently, NUL and lone surrogates in strings, and nesting that exhausts a parser.
"""

from __future__ import annotations

import json
import math
from typing import Any

# Maximum nesting: deeper than any ping, far below any parser's limit.
MAX_DEPTH = 16
# Maximum length of a number: parsing takes quadratic time, and 2**63 has 19 digits.
MAX_DIGITS = 40


def loads(body: bytes) -> Any:
    """The value of a JSON document.

    Raises ValueError with what is wrong; the message contains nothing of the document.
    """
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8") from None
    # the number of brackets limits the depth of nearly every document; the depth is measured only if there are many
    if body.count(b"{") + body.count(b"[") > MAX_DEPTH and _depth(text) > MAX_DEPTH:
        raise ValueError(f"it is nested deeper than {MAX_DEPTH}")
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not JSON, at character {error.pos}") from None
    if "\\u" in text:
        _check_strings(value)
    return value


def _depth(text: str) -> int:
    """The maximum nesting of brackets outside strings."""
    deepest = depth = 0
    quoted = escaped = False
    for char in text:
        if escaped:
            escaped = False
        elif quoted and char == "\\":
            escaped = True
        elif char == '"':
            quoted = not quoted
        elif quoted:
            continue
        elif char in "{[":
            depth += 1
            deepest = max(deepest, depth)
        elif char in "}]":
            depth -= 1
    return deepest


def _check_strings(value: Any) -> None:
    """Raises ValueError for strings that only \\u escapes can make."""
    if isinstance(value, str):
        if "\0" in value:
            raise ValueError("a string holds a NUL character")
        if not value.isascii() and any("\ud800" <= char <= "\udfff" for char in value):
            raise ValueError("a string holds half of a surrogate pair")
    elif isinstance(value, dict):
        for key, item in value.items():
            _check_strings(key)
            _check_strings(item)
    elif isinstance(value, list):
        for item in value:
            _check_strings(item)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("an object has the same key twice")
    return found


def _constant(_name: str) -> Any:
    raise ValueError("it contains NaN or Infinity, which JSON does not have")


def _int(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"a number has more than {MAX_DIGITS} digits")
    return int(digits)


def _float(digits: str) -> float:
    number = float(digits)
    if len(digits) > MAX_DIGITS or not math.isfinite(number):
        raise ValueError("a number is too large or too long")
    return number


# RecursionError cannot happen: the depth is checked before. Made once: json.loads would make a decoder for every call.
_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant, parse_int=_int, parse_float=_float)
