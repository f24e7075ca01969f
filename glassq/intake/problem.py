"""Error answers as problem+json (RFC 9457), in fixed words."""

from __future__ import annotations

import json

PROBLEM_JSON = "application/problem+json"
# When a sender who got a 503 shall try again, in seconds.
RETRY_AFTER = 5


def problem(status: int, title: str, detail: str = "") -> bytes:
    """The body of an error answer."""
    members = {"title": title, "status": status, **({"detail": detail} if detail else {})}
    return json.dumps(members).encode() + b"\n"
