"""An edited copy of a masked body: what the operator left masked keeps its value.

People see bodies with their secrets masked (mask.py), and an edited copy is made of what they see.
"""

from __future__ import annotations

import json
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


def editable_text(body: object) -> str:
    """The same for a field of a form, which takes no characters that cannot be seen: JSON can write them out."""
    text = body_text(body)
    plain = isinstance(body, str) or all(char.isprintable() or char == "\n" for char in text)
    return text if plain else json.dumps(body, indent=2)


def has_mask(text: str) -> bool:
    """Whether something in it is masked."""
    return MASK in text


def unmasked(original: bytes, edited: str) -> bytes:
    """The bytes of the edited body, with the original's values where the edited one has a mask at the same place.

    A body that was not changed keeps its very bytes. Raises InvalidRequest where a masked value cannot be found again.
    """
    shown = masked_body(original)
    text = edited.replace("\r\n", "\n")
    if not isinstance(shown, dict | list):
        return _edited_text(original, text)
    try:
        document = json.loads(text)
        if json.dumps(document) == json.dumps(shown):
            return original
        return json.dumps(_merged(document, shown, json.loads(original)), allow_nan=False).encode()
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"body: not JSON, as the original is: {error}") from None


def _edited_text(original: bytes, text: str) -> bytes:
    """Of a body that is no JSON object or list: what was typed, if all of the original was shown."""
    before = original.decode("utf-8", "replace")
    if str(masked_body(original)).encode("utf-8", "replace") != original:
        raise InvalidRequest(
            "body: it is no JSON object, and has secrets, or was not shown whole: it cannot be edited here"
        )
    return original if text.strip() == before.replace("\r\n", "\n").strip() else text.encode("utf-8", "replace")


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
