"""An edited copy of a masked body: what the operator left masked keeps its value.

People see bodies with their secrets masked (mask.py), and an edited copy is made of what they see.
"""

from __future__ import annotations

import json
import math
import unicodedata
from decimal import Decimal
from difflib import unified_diff
from typing import Any

from glassq.errors import InvalidRequest
from glassq.mask import MASK, masked_body

# Lines of a diff that are shown at most.
MAX_DIFF = 200


def body_text(body: object) -> str:
    """A masked body as people read it: JSON with a key a line, or the text that it is."""
    if isinstance(body, str):
        return body
    try:
        return json.dumps(body, indent=2, ensure_ascii=False)
    except RecursionError:
        # without indent it is C that walks through it
        return json.dumps(body)


def editable_text(original: bytes) -> str:
    """The masked body for a field of a form.

    Raises InvalidRequest where it is not shown whole, or a form would change what nobody edits.
    """
    shown = masked_body(original)
    if not isinstance(shown, dict | list):
        return _plain_text(original, shown)
    _check_json(original)
    text = body_text(shown)
    # what cannot be seen, JSON can write out
    return text if all(_is_kept(char) for char in text) else json.dumps(shown, indent=2)


def _is_kept(char: str) -> bool:
    """Whether a form shows and keeps this character."""
    return char.isprintable() or char in "\n\t" or unicodedata.category(char) == "Zs"


def _plain_text(original: bytes, shown: object) -> str:
    """Of a body that is no JSON object or list: its text, with the line ends of a form's field."""
    if str(shown).encode("utf-8", "replace") != original:
        raise InvalidRequest(
            "body: it is no JSON object, and has secrets, or was not shown whole: it cannot be edited here"
        )
    text = original.decode()
    lines = text.replace("\r\n", "\n")
    mixed = "\r\n" in text and lines.count("\n") != text.count("\r\n")
    if mixed or not all(_is_kept(char) for char in lines):
        raise InvalidRequest(
            "body: it has characters that a form cannot keep, as NUL or line ends of two kinds: "
            "`glassq replay` sends it again as it is"
        )
    return lines


def _check_json(original: bytes) -> None:
    """Raises InvalidRequest where a document that is written anew would say less than the original."""
    try:
        json.loads(original.decode(), object_pairs_hook=_without_twins, parse_float=_exactly, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(
            f"body: a form cannot keep it as it is ({error}): `glassq replay` sends it again unchanged"
        ) from None


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice in an object")
    return found


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")


def _exactly(text: str) -> float:
    number = float(text)
    if not math.isfinite(number) or Decimal(repr(number)) != Decimal(text):
        raise ValueError("a number has more digits than are kept")
    return number


def has_mask(text: str) -> bool:
    """Whether something in it is masked."""
    return MASK in text


def unmasked(original: bytes, edited: str) -> bytes:
    """The bytes of the edited body, with the original's values where the edited one has a mask at the same place.

    A body that was not changed keeps its very bytes. Raises InvalidRequest as `editable_text`, and where a masked value
    cannot be found again.
    """
    shown = masked_body(original)
    text, before = edited.replace("\r\n", "\n"), editable_text(original)
    if not isinstance(shown, dict | list):
        if text == before:
            return original
        return (text.replace("\n", "\r\n") if b"\r\n" in original else text).encode("utf-8", "replace")
    try:
        document = json.loads(text)
        if json.dumps(document) == json.dumps(shown):
            return original
        return _written(_merged(document, shown, json.loads(original)), original)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"body: not JSON, as the original is: {error}") from None


def _written(document: Any, original: bytes) -> bytes:
    """As JSON; in ASCII alone where the original is, or UTF-8 cannot hold it. Raises ValueError."""
    text = json.dumps(document, allow_nan=False, ensure_ascii=original.isascii())
    try:
        return text.encode()
    except UnicodeEncodeError:
        return json.dumps(document, allow_nan=False).encode()


def _merged(edited: Any, shown: Any, original: Any) -> Any:
    """The edited value, with that of the original where both are as they were shown masked."""
    if isinstance(edited, dict):
        known = shown if isinstance(shown, dict) else {}
        first = original if isinstance(original, dict) else {}
        return {key: _merged(each, known.get(key), first.get(key)) for key, each in edited.items()}
    if isinstance(edited, list):
        known_list = shown if isinstance(shown, list) and len(shown) == len(edited) else [None] * len(edited)
        first_list = original if isinstance(original, list) and len(original) == len(edited) else [None] * len(edited)
        return [_merged(*each) for each in zip(edited, known_list, first_list, strict=True)]
    if edited == shown and type(edited) is type(shown):
        return original
    if isinstance(edited, str) and MASK in edited:
        raise InvalidRequest(f"body: {MASK} stands where the original has no secret: write out what is to be sent")
    return edited


def diff(before: bytes, after: bytes) -> tuple[str, ...]:
    """What is changed, masked, line by line, without the names of files."""
    old, new = (body_text(masked_body(body)).splitlines() for body in (before, after))
    lines = list(unified_diff(old, new, lineterm="", n=2))[2:]
    more = len(lines) - MAX_DIFF
    return (*lines[:MAX_DIFF], *([f"... {more} lines more"] if more > 0 else []))
