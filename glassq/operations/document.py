"""What commands print with --json and the console answers at a page's twin: the same text for both."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from glassq.operations.words import moment


def to_json(document: object) -> str:
    """The document; times become RFC 3339. ASCII only: no control character and no lone surrogate can be in it."""
    return json.dumps(document, indent=2, default=_plain)


def to_json_line(document: object) -> str:
    """One of many documents, on one line."""
    return json.dumps(document, default=_plain)


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return moment(value)
    raise TypeError(f"cannot be JSON: {type(value).__name__}")
