"""Which values JSON returns exactly as they were written."""

from __future__ import annotations

import math
from datetime import date, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

# Maximum depth of lists and dicts in each other. A value that contains itself has no end.
MAX_DEPTH = 100
# Some JSON parsers read larger integers as floats.
_INTEGERS = range(-(1 << 63), 1 << 63)
_HINTS: dict[type, str] = {
    tuple: "it would arrive as a list: give a list",
    set: "JSON has no sets: give a list",
    frozenset: "JSON has no sets: give a list",
    bytes: "JSON has no bytes: give text",
    datetime: "JSON has no times: give text, such as its isoformat()",
    date: "JSON has no dates: give text, such as its isoformat()",
}


def parts(place: str, value: object, depth: int = 0) -> Iterator[tuple[str, object]]:
    """The value and, recursively, everything in its lists and dicts, each with its place.

    Raises ValueError beyond MAX_DEPTH.
    """
    yield place, value
    if depth > MAX_DEPTH:
        raise ValueError(f"{place[:100]}...: nested more than {MAX_DEPTH} deep, or holds itself")
    if type(value) is list:
        for index, item in enumerate(value):
            yield from parts(f"{place}[{index}]", item, depth + 1)
    elif type(value) is dict:
        for key, item in value.items():
            yield from parts(f"{place}[{ascii(key)[:50]}]", item, depth + 1)


def unlike_json(value: object) -> str:
    """Why the value is not JSON-serialisable as it is, and what to give instead; "": it is.

    Checks the keys of a dict, but not the values in a list or dict.
    """
    kind = type(value)
    if value is None or kind in (bool, list):
        return ""
    if isinstance(value, str) and kind is str:
        return "" if _is_utf_8(value) else "a text with half of a surrogate pair: not encodable as UTF-8"
    if isinstance(value, int) and kind is int:
        return "" if value in _INTEGERS else "an integer of more than 64 bits: give it as text"
    if isinstance(value, float) and kind is float:
        return "" if math.isfinite(value) else f"{value}, which JSON does not have"
    if isinstance(value, dict) and kind is dict:
        wrong = [key for key in value if type(key) is not str or not _is_utf_8(key)]
        return f"a dict with the key {shown(wrong[0])}: JSON's keys are texts" if wrong else ""
    hint = _HINTS.get(kind, "it would arrive as something else, or not at all: give what JSON holds, such as a key")
    return f"{shown(value)}: {hint}"


def shown(value: object) -> str:
    """The value for a message: its type and its beginning."""
    try:
        text = ascii(value)
    except Exception:
        text = "..."
    return f"a {type(value).__name__} ({text[:50]}{'...' if len(text) > 50 else ''})"


def _is_utf_8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
