"""The HTTP request that a task or a ping becomes: its path beneath the target, and App Engine's headers.

Nothing in a task makes the request go elsewhere, end early, or say what only App Engine says.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

if TYPE_CHECKING:
    from collections.abc import Mapping

    from glassq.delivery import Delivery
    from glassq.push.request import Request

USER_AGENT = "AppEngine-Google; (+http://code.google.com/appengine)"
METHODS = frozenset({"POST", "GET", "PUT", "DELETE", "HEAD"})
OCTETS = "application/octet-stream"

# A task's headers cannot say whom the request is for, where it ends, or what becomes of the connection; and what App
# Engine says of a task can be said by nobody else.
_OURS = frozenset(
    {"host", "user-agent", "content-length", "transfer-encoding", "connection", "keep-alive"}
    | {"te", "trailer", "upgrade", "expect"}
)
_OUR_PREFIXES = ("x-appengine-", "x-glassq-", "proxy-")
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[\t\x20-\x7e\xa0-\xff]*")
# What stands in a path or a query as it is; all else is percent-encoded.
_SAFE = "/?%!$&'()*+,;=:@[]|-._~"
_UNSENDABLE = re.compile(r"[\x00-\x20\x7f#\\]")
# Of the reason of a retry, in characters.
_MOST_REASON = 200


@dataclass(frozen=True, slots=True)
class Call:
    """The request to make. `path` may have a query; all of it in what a request line and a header can hold."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


def of_task(request: Request, base: str, delivery: Delivery) -> Call:
    """The request of a task. Raises ValueError with what of it cannot be sent."""
    if request.method not in METHODS:
        raise ValueError(f"its method: expected one of {', '.join(sorted(METHODS))}")
    headers = {name: value for name, value in request.headers.items() if not _is_ours(name)}
    if request.method in ("POST", "PUT") and not any(name.lower() == "content-type" for name in headers):
        headers["Content-Type"] = OCTETS
    headers |= about(delivery, request.queue, request.name, request.eta or delivery.received.timestamp())
    for name, value in headers.items():
        if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
            raise ValueError("its headers: expected names of letters, digits and -, and values of one line in latin-1")
    return Call(request.method, beneath(base, request.url), headers, delivery.body)


def _is_ours(name: str) -> bool:
    # to most servers an underscore is as good as a hyphen (CGI, WSGI)
    plain = name.lower().replace("_", "-")
    return plain in _OURS or plain.startswith(_OUR_PREFIXES)


def beneath(base: str, url: str) -> str:
    """The path and query of `url` on a target whose own path is `base`. Raises ValueError where it would leave that."""
    if not url.startswith("/") or url.startswith(("//", "/\\")):
        raise ValueError("its url: expected one that begins with one /")
    if _UNSENDABLE.search(url):
        raise ValueError(r"its url: expected one without spaces, control characters, # and \ ")
    if _climbs(url.partition("?")[0]):
        raise ValueError("its url: expected one without .. that leads out of the target")
    return base.rstrip("/") + quote(url, safe=_SAFE)


def _climbs(path: str) -> bool:
    """Whether its .. lead above where it starts, however a server reads it: decoded, // as /, ..;x as .. ."""
    if ".." not in (plain := unquote(path)):
        return False
    depth = 0
    for segment in re.split(r"[/\\]", plain):
        step = segment.partition(";")[0]
        if step == "..":
            depth -= 1
        elif step not in ("", "."):
            depth += 1
        if depth < 0:
            return True
    return False


def about(delivery: Delivery, queue: str, name: str, eta: float) -> dict[str, str]:
    """What App Engine tells a target of the task. `eta` is in seconds since 1970."""
    headers = {
        "User-Agent": USER_AGENT,
        "X-AppEngine-QueueName": queue,
        "X-AppEngine-TaskName": name,
        "X-AppEngine-TaskRetryCount": str(delivery.failures),
        "X-AppEngine-TaskExecutionCount": str(latest(delivery, "executions")),
        "X-AppEngine-TaskETA": f"{eta:.6f}",
    }
    if delivery.failures and delivery.evidence:
        reason = "".join(char if " " <= char <= "~" else "?" for char in delivery.evidence[-1].message[:_MOST_REASON])
        headers["X-AppEngine-TaskRetryReason"] = reason
        if status := latest(delivery, "status"):
            headers["X-AppEngine-TaskPreviousResponse"] = str(status)
    return headers


def latest(delivery: Delivery, key: str) -> int:
    """The latest number that an attempt told under `key`; an attempt that was killed told nothing."""
    told = (evidence.detail.get(key) for evidence in reversed(delivery.evidence))
    return next((value for value in told if isinstance(value, int)), 0)
