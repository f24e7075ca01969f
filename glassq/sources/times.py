"""Signed times, in the forms in which senders write them."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Literal

Unit = Literal["s", "ms", "rfc3339", "http"]


def unix_time(text: str, unit: Unit) -> float | None:
    """The Unix time that a text writes; None if it is none."""
    if unit in ("s", "ms"):
        # int() would also take spaces, signs, underscores and digits of other scripts
        if not (text.isascii() and text.isdigit() and len(text) <= 16):
            return None
        return int(text) / (1000 if unit == "ms" else 1)
    try:
        found = datetime.fromisoformat(text) if unit == "rfc3339" else parsedate_to_datetime(text)
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError, IndexError, TypeError):
        return None
