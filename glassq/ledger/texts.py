"""Texts as every database takes them."""

from __future__ import annotations


def storable(text: str) -> str:
    """A lone surrogate or a NUL would have its whole batch refused for ever."""
    if text.isprintable():
        return text
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")
