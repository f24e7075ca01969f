"""Error answers as problem+json (RFC 9457). Their texts are fixed: nothing of a request is echoed."""

from __future__ import annotations

import json
from functools import lru_cache
from http import HTTPStatus

from glassq.http.answer import encoded

PROBLEM_JSON = "application/problem+json"
# Retry-After of a 503, in seconds.
RETRY_AFTER = 5


def problem(status: int, title: str, detail: str = "") -> bytes:
    """The body of an error answer."""
    members = {"title": title, "status": status, **({"detail": detail} if detail else {})}
    return json.dumps(members).encode() + b"\n"


def refusal(status: int, detail: str = "", *, closes: bool = True, headers: tuple[str, ...] = ()) -> bytes:
    """A whole error answer, head and body, with these lines of headers; `closes`: the connection ends with it."""
    head, body = _refusal(status, detail, headers)
    return encoded(head, body, closes=closes)


# A crowd gets thousands of them in a second.
@lru_cache(maxsize=32)
def _refusal(status: int, detail: str, headers: tuple[str, ...]) -> tuple[tuple[str, ...], bytes]:
    title = HTTPStatus(status).phrase
    body = problem(status, title, detail)
    head = [f"{status} {title}", f"Content-Type: {PROBLEM_JSON}\r\n", f"Content-Length: {len(body)}\r\n"]
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        head.append(f"Retry-After: {RETRY_AFTER}\r\n")
    return (*head, *headers), body
