"""Tasks in short, for curl: POST /tasks/QUEUE with a few words of JSON, or POST /tasks/QUEUE/PATH with the payload.

    curl --unix-socket S localhost/tasks/mail --json '{"path": "/send", "json": {"to": "ann"}, "delay": 60}'
    curl --unix-socket S localhost/tasks/mail/send?to=ann -H 'Content-Type: text/plain' --data-binary @letter

In the second form the rest of the path is the task's, as is the body; its headers are Content-Type and those that begin
with X-; what else there is to say goes into headers that begin with Glassq-.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

from glassq.push.http import messages, values
from glassq.push.http.errors import invalid
from glassq.push.http.places import checked_task_id
from glassq.push.http.reading import Call, NewTask, checked

if TYPE_CHECKING:
    from collections.abc import Mapping

    from glassq.push.http.messages import ShortMessage
    from glassq.push.http.targets import Targets

_JSON = "application/json"
# The headers that say more about a task whose payload is the body, and what they are called in JSON.
_WORDS = {"GLASSQ_NAME": "name", "GLASSQ_DELAY": "delay", "GLASSQ_ETA": "eta", "GLASSQ_TARGET": "target"}
_WORDS |= {"GLASSQ_METHOD": "method", "GLASSQ_DEADLINE": "deadline"}


def described(queue: str, data: bytes, targets: Targets) -> NewTask:
    """The task that JSON describes. Raises ApiError."""
    given = messages.read(messages.ShortMessage, data)
    if (given.url is None) == (given.path is None):
        raise invalid("expected either url or path")
    target, url = targets.below("url", given.url) if given.url is not None else (given.target or "", given.path or "")
    if given.url is not None and given.target is not None:
        raise invalid("target: expected none beside url, which says it")
    payload, kind = _payload(given)
    headers = {**kind, **(given.headers or {})}
    field = "url" if given.url is not None else "path"
    call = Call(field, target, url, (given.method or "POST").upper(), headers, payload, absolute=given.url is not None)
    return _new(queue, call, given)


def raw(queue: str, environ: Mapping[str, str], url: str, body: bytes) -> NewTask:
    """The task whose payload is the request's body, and whose path and query are `url`. Raises ApiError."""
    said: dict[str, str | float] = {}
    headers = {"Content-Type": environ["CONTENT_TYPE"]} if environ.get("CONTENT_TYPE") else {}
    for key, value in environ.items():
        word = key.removeprefix("HTTP_")
        if word == key:
            continue
        if word.startswith("X_"):
            headers[word.replace("_", "-").title()] = value
        elif word in _WORDS:
            said[_WORDS[word]] = _number(word, value) if word in ("GLASSQ_DELAY", "GLASSQ_DEADLINE") else value
        elif word.startswith("GLASSQ_"):
            raise invalid(f"{word.replace('_', '-').title()[:50]}: expected one of {', '.join(sorted(_HEADERS))}")
    given = messages.ShortMessage(**said)  # type: ignore[arg-type]
    call = Call("the path", given.target or "", url, (given.method or "POST").upper(), headers, body)
    return _new(queue, call, given)


def _new(queue: str, call: Call, given: ShortMessage) -> NewTask:
    if given.delay is not None and given.eta is not None:
        raise invalid("delay and eta: expected one of them")
    eta = values.posix("eta", given.eta) if given.eta is not None else 0.0
    if given.delay is not None:
        eta = time.time() + _finite("delay", given.delay)
    name = checked_task_id("name", given.name) if given.name else ""
    said = "eta" if given.delay is None else "delay"
    deadline = _finite("deadline", given.deadline or 0.0)
    return checked(queue, call, name=name, eta=eta, deadline=deadline, eta_field=said)


def _payload(given: ShortMessage) -> tuple[bytes, dict[str, str]]:
    """The payload, and the header that says what it is."""
    ways = [word for word in ("body", "body_base64") if getattr(given, word) is not None]
    if len(ways) + bool(given.json) > 1:
        raise invalid("expected one of body, bodyBase64 and json")
    if given.json:
        return bytes(given.json), {"Content-Type": _JSON}
    if given.body_base64 is not None:
        return values.octets("bodyBase64", given.body_base64), {}
    try:
        return (given.body or "").encode(), {"Content-Type": "text/plain; charset=utf-8"} if given.body else {}
    except UnicodeEncodeError:
        raise invalid("body: is not encodable as UTF-8") from None


def _number(word: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise invalid(f"{word.replace('_', '-').title()}: expected a number of seconds") from None


def _finite(field: str, seconds: float) -> float:
    if not math.isfinite(seconds) or seconds < 0:
        raise invalid(f"{field}: expected a number of seconds, 0 or more")
    return seconds


_HEADERS = [word.replace("_", "-").title() for word in _WORDS]
