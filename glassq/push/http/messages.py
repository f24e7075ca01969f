"""The messages of Cloud Tasks as clients send them, and how their JSON is read.

As in Google's servers, a name may be in camelCase or snake_case, null is "not given", and a name that is not known is
an error. Fields that only the server sets are taken and ignored, so that a task that was read can be sent back.
Source: google.cloud.tasks.v2 (task.proto, target.proto, queue.proto, cloudtasks.proto).
"""

from __future__ import annotations

import re
from typing import Any, TypeVar

import msgspec

from glassq.push.http.errors import ApiError, invalid


class Message(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    """A message; None: the field is not given."""


T = TypeVar("T", bound=Message)


class HttpRequestMessage(Message, frozen=True):
    """A request to a URL below a target."""

    url: str | None = None
    http_method: str | int | None = None
    headers: dict[str, str] | None = None
    body: str | None = None
    oauth_token: Any = None
    oidc_token: Any = None


class RoutingMessage(Message, frozen=True):
    """Where an App Engine request goes: `service` is a target."""

    service: str | None = None
    version: str | None = None
    instance: str | None = None
    host: Any = None


class AppEngineMessage(Message, frozen=True):
    """A request to a path on a target."""

    http_method: str | int | None = None
    app_engine_routing: RoutingMessage | None = None
    relative_uri: str | None = None
    headers: dict[str, str] | None = None
    body: str | None = None


class RetryMessage(Message, frozen=True):
    """A task's own retry rule."""

    max_attempts: int | None = None
    max_retry_duration: str | None = None
    min_backoff: str | None = None
    max_backoff: str | None = None
    max_doublings: int | None = None


class TaskMessage(Message, frozen=True):
    """A task; from `create_time` on, what only the server sets."""

    name: str | None = None
    http_request: HttpRequestMessage | None = None
    app_engine_http_request: AppEngineMessage | None = None
    schedule_time: str | None = None
    dispatch_deadline: str | None = None
    retry_config: RetryMessage | None = None
    create_time: Any = None
    dispatch_count: Any = None
    response_count: Any = None
    first_attempt: Any = None
    last_attempt: Any = None
    view: Any = None
    glassq: Any = None


class CreateMessage(Message, frozen=True):
    """The body of a create."""

    task: TaskMessage | None = None
    response_view: str | int | None = None
    parent: Any = None


class RunMessage(Message, frozen=True):
    """The body of a run."""

    response_view: str | int | None = None
    name: Any = None


class QueueMessage(Message, frozen=True):
    """The body of a pause, a resume or a purge."""

    name: Any = None


class ShortMessage(Message, frozen=True):
    """The body of a POST to /tasks/QUEUE."""

    url: str | None = None
    path: str | None = None
    target: str | None = None
    method: str | None = None
    headers: dict[str, str] | None = None
    body: str | None = None
    body_base64: str | None = None
    json: msgspec.Raw = msgspec.Raw(b"")
    name: str | None = None
    delay: float | None = None
    eta: str | None = None
    deadline: float | None = None


# Names inside of these are the client's own.
_OPAQUE = frozenset({"headers", "json"})
_UNKNOWN = re.compile(r"Object contains unknown field `(?P<name>.*?)`(?: - at `\$\.?(?P<where>.*)`)?", re.DOTALL)
_WRONG = re.compile(r"(?P<what>.*) - at `\$\.?(?P<where>.*)`", re.DOTALL)
_SNAKE = re.compile(r"_([a-z0-9])")
# Of what a client wrote, in an error.
_MAX_SHOWN = 100


def read(kind: type[T], data: bytes) -> T:
    """The message in a request's body; an empty one is that of `{}`. Raises ApiError."""
    try:
        return msgspec.json.decode(data or b"{}", type=kind)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        if not isinstance(error, msgspec.ValidationError) or b"_" not in data:
            raise _refused(error) from None
    try:
        return msgspec.json.decode(msgspec.json.encode(_camel(msgspec.json.decode(data))), type=kind)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise _refused(error) from None


def _camel(value: Any) -> Any:
    if isinstance(value, list):
        return [_camel(item) for item in value]
    if not isinstance(value, dict):
        return value
    named = {_SNAKE.sub(lambda match: match[1].upper(), name): inner for name, inner in value.items()}
    return {name: inner if name in _OPAQUE else _camel(inner) for name, inner in named.items()}


def _refused(error: Exception) -> ApiError:
    said = str(error)
    if found := _UNKNOWN.fullmatch(said):
        at = f" at '{found['where'][:_MAX_SHOWN]}'" if found["where"] else ""
        return invalid(f'Invalid JSON payload received. Unknown name "{found["name"][:_MAX_SHOWN]}"{at}: no such field')
    if found := _WRONG.fullmatch(said):
        return invalid(f"{found['where'][:_MAX_SHOWN]}: {found['what'][:_MAX_SHOWN]}")
    return invalid(f"Invalid JSON payload received. {said[:_MAX_SHOWN]}")
