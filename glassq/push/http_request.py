"""The HTTP request that a task or a ping becomes: its path below the target's, and App Engine's headers.

A task cannot send its request elsewhere, end it early, or forge App Engine's headers. push/task.py calls the same
functions when a task is made, so a task that was added can be sent.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

from glassq.push.request import CRON_QUEUE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from glassq.delivery import Delivery
    from glassq.push.request import TaskRequest

USER_AGENT = "AppEngine-Google; (+http://code.google.com/appengine)"
# Those of App Engine's tasks, and those that a request may have.
METHODS = ("POST", "GET", "PUT", "DELETE", "HEAD")
SENDABLE = (*METHODS, "PATCH", "OPTIONS")
# The methods that send a payload.
WITH_BODY = ("POST", "PUT", "PATCH")
OCTETS = "application/octet-stream"

# Headers that a task cannot set: where the request goes, where it ends, and what happens to the connection.
_CONNECTION = frozenset(
    {"host", "content-length", "transfer-encoding", "connection", "keep-alive", "proxy-connection"}
    | {"te", "trailer", "upgrade", "expect"}
)
# Headers by which App Engine and Cloud Tasks describe a task; a task's own are dropped.
_RESERVED = ("user-agent", "x-appengine-", "x-cloudtasks-", "x-glassq-", "proxy-")
# RFC 9110, 5.6.2 and 5.5; of latin-1 without its control characters
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[\t\x20-\x7e\xa0-\xff]*")
# Characters that need no percent-encoding in a path or a query.
_SAFE = "/?%!$&'()*+,;=:@[]|-._~"
_UNSENDABLE = re.compile(r"[\x00-\x20\x7f\ud800-\udfff#\\]")
# Maximum length of the retry reason in a header, in characters.
_MAX_REASON = 200


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """A request to send. `path` includes the query. Everything is valid in a request line or a header."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


def of_task(request: TaskRequest, base: str, delivery: Delivery) -> HttpRequest:
    """The request of a task. Raises ValueError with the part that cannot be sent."""
    if request.method not in SENDABLE:
        raise ValueError(f"its method: expected one of {', '.join(SENDABLE)}")
    headers = {
        name: value for name, value in request.headers.items() if not (_of_connection(name) or is_reserved_header(name))
    }
    if request.method in WITH_BODY and not any(name.lower() == "content-type" for name in headers):
        headers["Content-Type"] = OCTETS
    told = task_headers(delivery, request.queue, request.name, request.eta)
    headers |= told
    if request.form == "http":
        # what targets of Cloud Tasks look for, beside App Engine's
        headers |= {name.replace("X-AppEngine-", "X-CloudTasks-"): value for name, value in told.items()}
    for name, value in headers.items():
        check_line(name, value)
    return HttpRequest(request.method, beneath(base, request.url), headers, delivery.body)


def check_header(name: str, value: str) -> None:
    """Raises ValueError if a task cannot set this header."""
    check_line(name, value)
    if _of_connection(name):
        hint = "; to send it elsewhere, name a target" if name.lower() == "host" else ""
        raise ValueError(f"its headers: {name!r} belongs to the connection{hint}")


def check_line(name: str, value: str) -> None:
    """Raises ValueError if this is not a valid header in HTTP."""
    if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
        expected = "expected a name of letters, digits and -, and a value of one line in latin-1"
        raise ValueError(f"its headers: {name[:50]!r}: {expected}")


def is_reserved_header(name: str) -> bool:
    """Whether only App Engine sets headers of this name; a task's own is dropped."""
    return _plain(name).startswith(_RESERVED)


def _of_connection(name: str) -> bool:
    return _plain(name) in _CONNECTION


def _plain(name: str) -> str:
    # CGI and WSGI servers do not tell an underscore from a hyphen
    return name.lower().replace("_", "-")


def beneath(base: str, url: str) -> str:
    """The path and query of `url` on a target with the path `base`. Raises ValueError if it would lead out of that."""
    if not url.startswith("/") or url.startswith(("//", "/\\")):
        raise ValueError("its url: expected one that begins with one /")
    if _UNSENDABLE.search(url):
        raise ValueError(r"its url: expected one without spaces, control characters, halves of surrogates, # and \ ")
    if _climbs(url.partition("?")[0]):
        raise ValueError("its url: expected one without .. that leads out of the target")
    return base.rstrip("/") + quote(url, safe=_SAFE)


def _climbs(path: str) -> bool:
    """Whether .. lead above the start, however a server reads the path: decoded, // as /, ..;x as .. ."""
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


def ping_headers(delivery: Delivery) -> dict[str, str]:
    """The ping's own headers, as far as its source has kept them and an endpoint may see them; always Content-Type."""
    kept = {
        name: value
        for name, value in delivery.headers.items()
        if _NAME.fullmatch(name) and _VALUE.fullmatch(value) and not (_of_connection(name) or is_reserved_header(name))
    }
    kept.pop("content-type", None)
    kind = delivery.content_type if _VALUE.fullmatch(delivery.content_type) else ""
    guessed = "application/json" if delivery.body.lstrip()[:1] in (b"{", b"[") else OCTETS
    return {**kept, "Content-Type": kind or guessed}


def task_headers(delivery: Delivery, queue: str, name: str, eta: float = 0.0) -> dict[str, str]:
    """App Engine's headers about the task. `eta` is in seconds since 1970; 0: due when it was received."""
    headers = {
        "User-Agent": USER_AGENT,
        "X-AppEngine-QueueName": queue,
        "X-AppEngine-TaskName": name,
        "X-AppEngine-TaskRetryCount": str(delivery.failures),
        "X-AppEngine-TaskExecutionCount": str(latest(delivery, "executions")),
        "X-AppEngine-TaskETA": f"{eta or delivery.received.timestamp():.6f}",
    }
    if queue == CRON_QUEUE:
        headers["X-AppEngine-Cron"] = "true"
    if delivery.failures and delivery.evidence:
        reason = "".join(char if " " <= char <= "~" else "?" for char in delivery.evidence[-1].message[:_MAX_REASON])
        headers["X-AppEngine-TaskRetryReason"] = reason
        if status := delivery.evidence[-1].detail.get("status"):
            headers["X-AppEngine-TaskPreviousResponse"] = str(status)
    return headers


def latest(delivery: Delivery, key: str) -> int:
    """The latest integer `key` in the evidence's details; a killed attempt has left none."""
    found = (evidence.detail.get(key) for evidence in reversed(delivery.evidence))
    return next((value for value in found if isinstance(value, int)), 0)
