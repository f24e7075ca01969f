"""Error answers as problem+json (RFC 9457). Their texts are fixed: nothing of a request is echoed."""

from __future__ import annotations

import json
import time
from functools import lru_cache
from http import HTTPStatus

from gunicorn.util import http_date

PROBLEM_JSON = "application/problem+json"
# Retry-After of a 503, in seconds.
RETRY_AFTER = 5


def problem(status: int, title: str, detail: str = "") -> bytes:
    """The body of an error answer."""
    members = {"title": title, "status": status, **({"detail": detail} if detail else {})}
    return json.dumps(members).encode() + b"\n"


def last_answer(status: int) -> bytes:
    """A whole error answer, head and body, after which the connection is closed."""
    return _last_answer(status, int(time.time()))


# A crowd gets thousands of them in a second, and within a second all are the same.
@lru_cache(maxsize=16)
def _last_answer(status: int, second: int) -> bytes:
    title = HTTPStatus(status).phrase
    body = problem(status, title)
    head = [f"HTTP/1.1 {status} {title}", f"Date: {http_date(second)}", "Connection: close"]
    head += [f"Content-Type: {PROBLEM_JSON}", f"Content-Length: {len(body)}"]
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        head.append(f"Retry-After: {RETRY_AFTER}")
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body
