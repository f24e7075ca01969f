"""A journal's own id, which stays with its directory wherever that is moved or mounted."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from glassq.files import write_durably

if TYPE_CHECKING:
    from pathlib import Path

_NAME = ".id"
_ID = re.compile(r"[0-9a-f]{32}")


def journal_id(directory: Path) -> str:
    """The id of the journal in this directory; "" if it has none yet, or it cannot be read."""
    try:
        text = (directory / _NAME).read_text("ascii").strip()
    except (OSError, ValueError):
        return ""
    return text if _ID.fullmatch(text) else ""


def make_id(directory: Path) -> str:
    """The id of the journal in this directory, which gets one if it has none. Raises OSError."""
    if not journal_id(directory):
        aside = directory / f"{_NAME}.{os.getpid()}.new"
        aside.unlink(missing_ok=True)
        write_durably(directory / _NAME, f"{os.urandom(16).hex()}\n".encode(), aside=aside)
    # of two processes that made one at once, the last one counts
    return journal_id(directory)
