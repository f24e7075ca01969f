"""The HTTP request that a task or a ping becomes: its path beneath the target, and App Engine's headers.

Nothing in a task makes the request go elsewhere, end early, or say what only App Engine says. What is refused here is
refused when a task is made, too (push/task.py asks the same functions): what was added can be sent.
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
METHODS = ("POST", "GET", "PUT", "DELETE", "HEAD")
# Those that a payload goes with.
WITH_BODY = ("POST", "PUT")
OCTETS = "application/octet-stream"

# A task's headers cannot say whom the request is for, where it ends, or what becomes of the connection.
_CONNECTION = frozenset(
    {"host", "content-length", "transfer-encoding", "connection", "keep-alive", "proxy-connection"}
    | {"te", "trailer", "upgrade", "expect"}
)
# And what App Engine says of a task can be said by nobody else.
_TOLD = ("user-agent", "x-appengine-", "x-glassq-", "proxy-")
# RFC 9110, 5.6.2 and 5.5; of latin-1 without its control characters
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[\t\x20-\x7e\xa0-\xff]*")
# What stands in a path or a query as it is; all else is percent-encoded.
_SAFE = "/?%!$&'()*+,;=:@[]|-._~"
_UNSENDABLE = re.compile(r"[\x00-\x20\x7f\ud800-\udfff#\\]")
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
        raise ValueError(f"its method: expected one of {', '.join(METHODS)}")
    headers = {name: value for name, value in request.headers.items() if not (_of_connection(name) or is_told(name))}
    if request.method in WITH_BODY and not any(name.lower() == "content-type" for name in headers):
        headers["Content-Type"] = OCTETS
    headers |= about(delivery, request.queue, request.name, request.eta)
    for name, value in headers.items():
        check_line(name, value)
    return Call(request.method, beneath(base, request.url), headers, delivery.body)


def check_header(name: str, value: str) -> None:
    """Raises ValueError where a task's author cannot have this header sent."""
    check_line(name, value)
    if _of_connection(name):
        hint = "; to send it elsewhere, name a target" if name.lower() == "host" else ""
        raise ValueError(f"its headers: {name!r} belongs to the connection{hint}")


def check_line(name: str, value: str) -> None:
    """Raises ValueError where HTTP cannot say this in a header's line."""
    if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
        expected = "expected a name of letters, digits and -, and a value of one line in latin-1"
        raise ValueError(f"its headers: {name[:50]!r}: {expected}")


def is_told(name: str) -> bool:
    """Whether a header of this name is App Engine's to say: an author's is dropped."""
    return _plain(name).startswith(_TOLD)


def _of_connection(name: str) -> bool:
    return _plain(name) in _CONNECTION


def _plain(name: str) -> str:
    # to most servers an underscore is as good as a hyphen (CGI, WSGI)
    return name.lower().replace("_", "-")


def beneath(base: str, url: str) -> str:
    """The path and query of `url` on a target whose own path is `base`. Raises ValueError where it would leave that."""
    if not url.startswith("/") or url.startswith(("//", "/\\")):
        raise ValueError("its url: expected one that begins with one /")
    if _UNSENDABLE.search(url):
        raise ValueError(r"its url: expected one without spaces, control characters, halves of surrogates, # and \ ")
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


def about(delivery: Delivery, queue: str, name: str, eta: float = 0.0) -> dict[str, str]:
    """What App Engine tells a target of the task. `eta` is in seconds since 1970; 0: it was due when it came."""
    headers = {
        "User-Agent": USER_AGENT,
        "X-AppEngine-QueueName": queue,
        "X-AppEngine-TaskName": name,
        "X-AppEngine-TaskRetryCount": str(delivery.failures),
        "X-AppEngine-TaskExecutionCount": str(latest(delivery, "executions")),
        "X-AppEngine-TaskETA": f"{eta or delivery.received.timestamp():.6f}",
    }
    if delivery.failures and delivery.evidence:
        reason = "".join(char if " " <= char <= "~" else "?" for char in delivery.evidence[-1].message[:_MOST_REASON])
        headers["X-AppEngine-TaskRetryReason"] = reason
        if status := delivery.evidence[-1].detail.get("status"):
            headers["X-AppEngine-TaskPreviousResponse"] = str(status)
    return headers


def latest(delivery: Delivery, key: str) -> int:
    """The latest number that an attempt told under `key`; an attempt that was killed told nothing."""
    told = (evidence.detail.get(key) for evidence in reversed(delivery.evidence))
    return next((value for value in told if isinstance(value, int)), 0)
