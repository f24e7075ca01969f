"""Tasks as their authors write them: App Engine's Task and TaskRetryOptions, with its checks.

Source of the rules: taskqueue.py of App Engine's SDK, and Google's pages about push queues.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

import msgspec

from glassq.content import FORM
from glassq.push.http_request import METHODS, WITH_BODY, beneath, check_header, is_reserved_header
from glassq.push.received import Params, grouped
from glassq.push.request import TaskRequest
from glassq.push.rule import RetryParameters
from glassq.push.task_errors import (
    InvalidDispatchDeadlineError,
    InvalidEtaError,
    InvalidQueueModeError,
    InvalidTaskError,
    InvalidTaskNameError,
    InvalidTaskRetryOptionsError,
    InvalidUrlError,
    TaskTooLargeError,
)

# Maximum size of a task with its headers, in bytes.
MAX_PUSH_TASK_SIZE_BYTES = 100 * 1024
MAX_TASK_SIZE_BYTES = MAX_PUSH_TASK_SIZE_BYTES
# Characters.
MAX_TASK_NAME_LENGTH = 500
MAX_URL_LENGTH = 2083
# Maximum time until an eta, in seconds.
MAX_COUNTDOWN_SECONDS = 30 * 86_400
# Limits of the deadline of one attempt.
MIN_DISPATCH_DEADLINE = timedelta(seconds=15)
MAX_DISPATCH_DEADLINE = timedelta(hours=24)
_MICROSECOND = timedelta(microseconds=1)

NO_PULL_QUEUES = "glassq has push queues only: nothing can be put into, or leased from, a pull queue"

_TASK_NAME = re.compile(rf"[a-zA-Z0-9_-]{{1,{MAX_TASK_NAME_LENGTH}}}")
# ": " and CR LF, in bytes
_HEADER_EXTRA = 4


class TaskRetryOptions:
    """When a failed task is retried. A task's own options replace the retry_parameters of its queue.

    `min_backoff_seconds`, `max_backoff_seconds` and `task_age_limit` are in seconds; the last is rounded up to a whole
    number. If both limits are given, the task is retried until both are reached. `parameters` is the resulting rule.
    Raises InvalidTaskRetryOptionsError.
    """

    def __init__(
        self,
        *,
        min_backoff_seconds: float | None = None,
        max_backoff_seconds: float | None = None,
        task_age_limit: float | None = None,
        max_doublings: int | None = None,
        task_retry_limit: int | None = None,
    ) -> None:
        self.min_backoff_seconds = min_backoff_seconds
        self.max_backoff_seconds = max_backoff_seconds
        self.max_doublings = max_doublings
        self.task_retry_limit = task_retry_limit
        try:
            self.task_age_limit = math.ceil(task_age_limit) if task_age_limit else task_age_limit
            # the SDK accepts an age limit of 0, for a task that is not retried; queue.yaml does not
            rule = RetryParameters.of(**{**vars(self), "task_age_limit": self.task_age_limit or None})
        except (TypeError, ValueError, OverflowError) as error:
            raise InvalidTaskRetryOptionsError(f"retry options: {error}") from None
        self.parameters = rule if self.task_age_limit != 0 else msgspec.structs.replace(rule, task_age_limit=0.0)

    def __repr__(self) -> str:
        given = {name: value for name, value in vars(self).items() if name != "parameters"}
        return f"TaskRetryOptions({', '.join(f'{name}={value!r}' for name, value in given.items())})"


class TaskSpec:
    """An HTTP request to send later. This class checks it; `taskqueue.Task` can also add it to a queue.

    All arguments except `payload` are given by name.

    `url` is relative ("": the queue's own, /_ah/queue/NAME). `payload` (bytes, or text, which is sent as UTF-8) goes
    with POST and PUT. `params`, a mapping whose values may be lists, becomes the form body of a POST, and the query of
    other requests. Give either `eta` (a datetime; without a time zone it is UTC, as in App Engine) or `countdown`
    (seconds). `target` is a name in [push.targets]. `dispatch_deadline_usec` limits each attempt, in microseconds, from
    15 seconds to 24 hours; the pool's own deadline holds as well.

    Adding it sets `was_enqueued`, `name` and `queue_name`.
    Raises InvalidTaskError or a subclass, and InvalidQueueModeError for method "PULL".
    """

    def __init__(
        self,
        payload: bytes | str | None = None,
        *,
        url: str = "",
        name: str | None = None,
        method: str = "POST",
        headers: Mapping[str, Any] | None = None,
        params: Mapping[str, Any] | None = None,
        countdown: float | None = None,
        eta: datetime | None = None,
        retry_options: TaskRetryOptions | None = None,
        target: str | None = None,
        tag: str | None = None,
        dispatch_deadline_usec: int | None = None,
    ) -> None:
        self.name = _checked_name(name)
        self.method = _checked_method(method, tag)
        self.headers = checked_headers(headers or {})
        self.on_queue_url = not url
        self.url, self.payload = self._request(url, payload, params or {})
        if len(self.url) > MAX_URL_LENGTH:
            raise InvalidUrlError(f"a task's url has at most {MAX_URL_LENGTH} characters; this one has {len(self.url)}")
        self.eta_posix = _checked_eta(eta, countdown)
        self.has_eta = eta is not None or countdown is not None
        if retry_options is not None and not isinstance(retry_options, TaskRetryOptions):
            raise InvalidTaskError("retry_options: expected a TaskRetryOptions")
        self.retry_options = retry_options
        if target is not None and not isinstance(target, str):
            raise InvalidTaskError("target: expected a name in [push.targets]")
        self.target = target
        self.dispatch_deadline_usec = _checked_dispatch_deadline(dispatch_deadline_usec)
        self.tag = tag
        self.retry_count = 0
        self.queue_name: str | None = None
        self.was_enqueued = False
        self.was_deleted = False
        if self.size > MAX_TASK_SIZE_BYTES:
            raise TaskTooLargeError(f"a task has at most {MAX_TASK_SIZE_BYTES} bytes; this one has {self.size}")

    @property
    def size(self) -> int:
        """Bytes of method, url, headers and payload, as App Engine counts them."""
        return request_size(self.method, self.url, self.headers, self.payload or b"")

    @property
    def eta(self) -> datetime:
        """The earliest time to run it, in UTC."""
        return datetime.fromtimestamp(self.eta_posix, UTC)

    def extract_params(self) -> Params:
        """Its parameters: the value of a name, or a list if the name has several values."""
        if self.method == "POST":
            return grouped(self.payload or b"")
        return grouped(self.url.partition("?")[2].encode())

    def request(self, queue: str, own: str) -> TaskRequest:
        """Its request in this queue. `own` is its name if its author did not give one."""
        return TaskRequest(
            queue=queue,
            name=self.name or own,
            url=f"/_ah/queue/{queue}{self.url}" if self.on_queue_url else self.url,
            method=self.method,
            target=self.target or "",
            headers=self.headers,
            eta=self.eta_posix if self.has_eta else 0.0,
            retry=self.retry_options.parameters if self.retry_options else None,
            dispatch_deadline=(self.dispatch_deadline_usec or 0) / 1_000_000,
        )

    def __repr__(self) -> str:
        shown = ("name", "queue_name", "method", "url", "eta", "size", "target", "was_enqueued", "was_deleted")
        return f"Task<{', '.join(f'{field}={getattr(self, field)!r}' for field in shown)}>"

    def _request(self, url: str, payload: bytes | str | None, params: Mapping[str, Any]) -> tuple[str, bytes | None]:
        """The url with its query, and the payload."""
        path, query = _split(url)
        if payload and params and self.method == "POST":
            raise InvalidTaskError("payload and params are both given: expected one of them, as POST sends either")
        if query and params:
            raise InvalidTaskError("url has a query and params are given: expected one of them")
        if payload and self.method not in WITH_BODY:
            raise InvalidTaskError(f"a payload goes with POST and PUT only, not with {self.method}")
        if self.method == "POST" and query:
            raise InvalidTaskError("the url of a POST cannot have a query: give it as params")
        if params:
            query = _query(params)
        if self.method == "POST" and params:
            self._header("Content-Type", FORM)
            return path, query.encode()
        return (f"{path}?{query}" if query else path), self._bytes(payload)

    def _bytes(self, payload: bytes | str | None) -> bytes | None:
        if not isinstance(payload, str):
            if payload is not None and not isinstance(payload, bytes):
                raise InvalidTaskError(f"payload: expected bytes or text, not {type(payload).__name__}")
            return payload
        if payload:
            self._header("Content-Type", "text/plain; charset=utf-8")
        try:
            return payload.encode()
        except UnicodeEncodeError:
            raise InvalidTaskError("payload: the text is not encodable as UTF-8") from None

    def _header(self, name: str, value: str) -> None:
        if name.lower() not in (known.lower() for known in self.headers):
            self.headers[name] = value


def _checked_name(name: object) -> str | None:
    if not name:
        return None
    if not isinstance(name, str) or not _TASK_NAME.fullmatch(name):
        raise InvalidTaskNameError(f"task name {str(name)[:50]!r}: expected 1 to 500 of a-z A-Z 0-9 _ and -")
    return name


def _checked_method(method: object, tag: str | None) -> str:
    word = method.upper() if isinstance(method, str) else ""
    if word == "PULL":
        raise InvalidQueueModeError(NO_PULL_QUEUES)
    if tag is not None:
        raise InvalidTaskError("tag: only tasks of pull queues have one, and glassq has push queues only")
    if word not in METHODS:
        raise InvalidTaskError(f"method {method!r}: expected one of {', '.join(METHODS)}")
    return word


def request_size(method: str, url: str, headers: Mapping[str, str], payload: bytes) -> int:
    """The size of a task in bytes, as App Engine counts it."""
    extra = sum(len(name) + len(value) + _HEADER_EXTRA for name, value in headers.items())
    return len(method) + len(url) + extra + len(payload)


def checked_headers(headers: Mapping[str, Any]) -> dict[str, str]:
    """The headers to send. Of names that differ only in case, the last one counts. Raises InvalidTaskError."""
    found: dict[str, tuple[str, str]] = {}
    for name, value in headers.items():
        name, text = _text(name), ", ".join(_text(item) for item in _items(value)).strip(" \t\r\n")
        try:
            check_header(name, text)
        except ValueError as error:
            raise InvalidTaskError(f"a task that cannot be sent: {error}") from None
        if not is_reserved_header(name):
            found[name.lower()] = name, text
    return dict(found.values())


def _checked_eta(eta: object, countdown: object) -> float:
    """Seconds since 1970."""
    now = time.time()
    if eta is not None and countdown is not None:
        raise InvalidTaskError("eta and countdown are both given: expected one of them")
    try:
        if eta is None:
            when = now + float(countdown or 0.0)  # type: ignore[arg-type]
        elif isinstance(eta, datetime):
            when = (eta if eta.tzinfo else eta.replace(tzinfo=UTC)).timestamp()
        else:
            raise InvalidTaskError("eta: expected a datetime")
    except (TypeError, ValueError, OverflowError, OSError):
        raise InvalidTaskError("eta or countdown is out of range, or countdown is no number of seconds") from None
    if math.isnan(when):
        raise InvalidTaskError("countdown: expected a number of seconds")
    if when - now > MAX_COUNTDOWN_SECONDS:
        raise InvalidEtaError("the eta is more than 30 days ahead")
    return max(0.0, when)


def _checked_dispatch_deadline(usec: object) -> int | None:
    if usec is None:
        return None
    if not isinstance(usec, int) or isinstance(usec, bool):
        raise TypeError("dispatch_deadline_usec: expected a whole number of microseconds")
    if not MIN_DISPATCH_DEADLINE / _MICROSECOND <= usec <= MAX_DISPATCH_DEADLINE / _MICROSECOND:
        raise InvalidDispatchDeadlineError("dispatch_deadline_usec: expected 15 seconds to 24 hours, in microseconds")
    return usec


def _split(url: object) -> tuple[str, str]:
    """Path and query of a relative url; both are "" for the queue's own."""
    if not url:
        return "", ""
    if not isinstance(url, str):
        raise InvalidUrlError(f"url: expected text, not {type(url).__name__}")
    try:
        beneath("/", url)
    except ValueError as error:
        raise InvalidUrlError(f"a task that cannot be sent: {error}; where it goes is the target's") from None
    path, _, query = url.partition("?")
    return path, query


def _query(params: Mapping[str, Any]) -> str:
    try:
        return urlencode(list(_pairs(params)))
    except UnicodeEncodeError:
        raise InvalidTaskError("params: a text is not encodable as UTF-8") from None


def _pairs(params: Mapping[str, Any]) -> Iterable[tuple[str | bytes, str | bytes]]:
    for name, value in params.items():
        for item in _items(value):
            yield _plain(name), _plain(item)


def _items(value: Any) -> Iterable[Any]:
    single = isinstance(value, str | bytes) or not isinstance(value, Iterable)
    return (value,) if single else value


def _plain(value: object) -> str | bytes:
    return value if isinstance(value, str | bytes) else str(value)


def _text(value: object) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)
