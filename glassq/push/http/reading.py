"""From a client's task to a TaskRequest: everything is checked here, before anything is put."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from glassq.push.http import values
from glassq.push.http.errors import invalid
from glassq.push.http_request import SENDABLE, WITH_BODY, beneath
from glassq.push.request import TaskRequest
from glassq.push.rule import RetryParameters
from glassq.push.task import (
    MAX_COUNTDOWN_SECONDS,
    MAX_DISPATCH_DEADLINE,
    MAX_TASK_SIZE_BYTES,
    MAX_URL_LENGTH,
    MIN_DISPATCH_DEADLINE,
    checked_headers,
    request_size,
)
from glassq.push.task_errors import InvalidTaskError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from glassq.push.http.messages import (
        AppEngineMessage,
        HttpRequestMessage,
        RetryMessage,
        RoutingMessage,
        TaskMessage,
    )
    from glassq.push.http.places import QueuePlace
    from glassq.push.http.targets import Targets

# Of a target's name, in characters; it is repeated in messages.
_MAX_TARGET = 200
_NO_TOKENS = (
    "glassq makes no tokens of Google's service accounts; let the target trust the network or check a header that the "
    "task has, such as Authorization"
)


class NewTask(NamedTuple):
    """A task to add: its request, and its payload."""

    request: TaskRequest
    payload: bytes


@dataclass(frozen=True, slots=True)
class Call:
    """What a task calls. `target` "": that of its queue. `absolute`: it was given as a full URL."""

    field: str
    target: str
    url: str
    method: str
    headers: Mapping[str, str]
    payload: bytes
    absolute: bool = False


def new_task(place: QueuePlace, task: TaskMessage | None, targets: Targets) -> NewTask:
    """The task of a create. Raises ApiError with the field that is wrong."""
    if task is None:
        raise invalid("task: expected a task")
    if (task.http_request is None) == (task.app_engine_http_request is None):
        raise invalid("task: expected either httpRequest or appEngineHttpRequest")
    if task.http_request is not None:
        call = _http("task.httpRequest", task.http_request, targets)
    else:
        assert task.app_engine_http_request is not None
        call = _app_engine("task.appEngineHttpRequest", task.app_engine_http_request)
    eta = values.posix("task.scheduleTime", task.schedule_time) if task.schedule_time is not None else 0.0
    deadline = values.seconds("task.dispatchDeadline", task.dispatch_deadline) if task.dispatch_deadline else 0.0
    retry = _retry("task.retryConfig", task.retry_config) if task.retry_config is not None else None
    name = place.task_id("task.name", task.name) if task.name else ""
    return checked(place.queue, call, name=name, eta=eta, deadline=deadline, retry=retry)


def checked(
    queue: str,
    call: Call,
    *,
    name: str,
    eta: float,
    deadline: float,
    retry: RetryParameters | None = None,
    eta_field: str = "scheduleTime",
) -> NewTask:
    """The task that calls this. `eta` is in seconds since 1970 (0: now), `deadline` in seconds (0: the pool's).

    `eta_field` is the field of the request that said when. Raises ApiError.
    """
    headers = _sendable(call)
    if eta - time.time() > MAX_COUNTDOWN_SECONDS:
        raise invalid(f"{eta_field}: is more than 30 days ahead")
    least, most = MIN_DISPATCH_DEADLINE.total_seconds(), MAX_DISPATCH_DEADLINE.total_seconds()
    if deadline and not least <= deadline <= most:
        raise invalid(f"dispatchDeadline: expected {least:.0f}s to {most:.0f}s")
    request = TaskRequest(
        queue=queue,
        name=name,
        url=call.url,
        method=call.method,
        target=call.target,
        headers=headers,
        eta=max(0.0, eta),
        retry=retry,
        dispatch_deadline=deadline,
        form="http" if call.absolute else "",
    )
    return NewTask(request, call.payload)


def _sendable(call: Call) -> dict[str, str]:
    """The headers of a call that can be sent. Raises ApiError."""
    field = call.field
    if len(call.target) > _MAX_TARGET:
        raise invalid(f"{field}: the target is none of [push.targets]")
    if len(call.url) > MAX_URL_LENGTH:
        raise invalid(f"{field}: a URL has at most {MAX_URL_LENGTH} characters")
    if call.method not in SENDABLE:
        raise invalid(f"{field}: the method is one of {', '.join(SENDABLE)}")
    if call.payload and call.method not in WITH_BODY:
        raise invalid(f"{field}.body: goes with {', '.join(WITH_BODY)} only, not with {call.method}")
    try:
        beneath("/", call.url)
        headers = checked_headers(call.headers)
    except ValueError as error:
        raise invalid(f"{field}: {error}") from None
    except InvalidTaskError as error:
        raise invalid(f"{field}.headers: {error}") from None
    size = request_size(call.method, call.url, headers, call.payload)
    if size > MAX_TASK_SIZE_BYTES:
        raise invalid(f"{field}: a task has at most {MAX_TASK_SIZE_BYTES} bytes with its headers; this one has {size}")
    return headers


def _http(field: str, given: HttpRequestMessage, targets: Targets) -> Call:
    for name, token in (("oidcToken", given.oidc_token), ("oauthToken", given.oauth_token)):
        if token is not None:
            raise invalid(f"{field}.{name}: {_NO_TOKENS}")
    if not given.url:
        raise invalid(f"{field}.url: expected a URL below a target of [push.targets]")
    target, url = targets.below(f"{field}.url", given.url)
    method = _method(field, given.http_method)
    payload = values.octets(f"{field}.body", given.body) if given.body else b""
    return Call(field, target, url, method, given.headers or {}, payload, absolute=True)


def _app_engine(field: str, given: AppEngineMessage) -> Call:
    target = _service(f"{field}.appEngineRouting", given.app_engine_routing) if given.app_engine_routing else ""
    payload = values.octets(f"{field}.body", given.body) if given.body else b""
    method = _method(field, given.http_method)
    return Call(field, target, given.relative_uri or "/", method, given.headers or {}, payload)


def _service(field: str, given: RoutingMessage) -> str:
    for name, value in (("version", given.version), ("instance", given.instance)):
        if value:
            raise invalid(f"{field}.{name}: glassq has targets ([push.targets]), which have no {name}s: leave it out")
    return given.service or ""


def _method(field: str, given: str | int | None) -> str:
    word = values.one_of(f"{field}.httpMethod", given, values.METHODS)
    return "POST" if word == values.METHODS[0] else word


def _retry(field: str, given: RetryMessage) -> RetryParameters:
    attempts = given.max_attempts
    if attempts is not None and (attempts == 0 or attempts < -1):
        raise invalid(f"{field}.maxAttempts: expected 1 or more, or -1 for no limit")
    age = values.seconds(f"{field}.maxRetryDuration", given.max_retry_duration) if given.max_retry_duration else None
    try:
        return RetryParameters.of(
            # the limit of App Engine's rule counts the retries
            task_retry_limit=attempts - 1 if attempts is not None and attempts > 0 else None,
            task_age_limit=age or None,
            min_backoff_seconds=values.seconds(f"{field}.minBackoff", given.min_backoff) if given.min_backoff else None,
            max_backoff_seconds=values.seconds(f"{field}.maxBackoff", given.max_backoff) if given.max_backoff else None,
            max_doublings=given.max_doublings,
        )
    except ValueError as error:
        raise invalid(f"{field}: {error}") from None
