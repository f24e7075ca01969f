"""Handlers of tasks: `of_tasks` makes any handler a handler of tasks; `post` sends a task's HTTP request.

A status of 200 to 299 is success. After any other status, or without a complete response within the deadline, the task
is retried by the rule of its queue, and the response is kept as evidence. Redirects are not followed.
Source of the rules: App Engine's documents on push queues, and the SDK's task queue stub.
"""

from __future__ import annotations

import functools
import json
import time
from codecs import getincrementaldecoder
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from glassq.delivery import MAX_DETAIL
from glassq.errors import Bury, Drop, Retry, SettingsError
from glassq.mask import masked_body, masked_text
from glassq.push import queue_yaml
from glassq.push.http_client import KEPT, HttpClient, split
from glassq.push.http_request import HttpRequest, latest, of_task, ping_headers, task_headers
from glassq.push.names import open_names
from glassq.push.request import DEFAULT_QUEUE, DEFAULT_TARGET, SOURCE, from_labels
from glassq.push.rule import RetryParameters
from glassq.routes import call, mark, marks_of, requires, retry_policy
from glassq.settings import MAX_BODY
from glassq.standard_webhooks import signed_headers

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from glassq.delivery import Delivery
    from glassq.push.http_client import Origin, TargetResponse
    from glassq.push.names import Names
    from glassq.push.queue_yaml import PushQueue
    from glassq.push.request import TaskRequest
    from glassq.routes import Context, Handler, Result
    from glassq.settings import Settings

# Maximum size of a response's headers in the evidence, in bytes of JSON; the body gets the rest of MAX_DETAIL.
_MAX_HEADERS = 2_000
# Maximum length of a header's value, and of a status phrase, in characters.
_MAX_VALUE, _MAX_PHRASE = 300, 80


@dataclass(frozen=True, slots=True)
class Dispatcher:
    """What a process needs to send requests: targets, queues, task names, and its HTTP client."""

    targets: Mapping[str, tuple[Origin, str]]
    queues: Mapping[str, PushQueue]
    names: Names
    http: HttpClient
    file: str

    @classmethod
    def open(cls, settings: Settings, queues: Mapping[str, PushQueue] | None = None) -> Dispatcher:
        """One for these settings. `queues` None: they are read from queue.yaml.

        Raises SettingsError if [push] is missing, or if queue.yaml or the URL of the names cannot be used.
        """
        if settings.push is None:
            raise SettingsError(f"{settings.file}: missing section [push]: a route sends deliveries to HTTP endpoints")
        targets = {name: split(url) for name, url in settings.push.targets.items()}
        known = queue_yaml.load(settings.push.queue_yaml, settings.push.targets) if queues is None else queues
        return cls(targets, known, open_names(settings.push), HttpClient(), settings.file)

    def close(self) -> None:
        """Closes its connections, also the one to the names' database."""
        self.http.close()
        self.names.close()

    def resolve_target(self, request: TaskRequest) -> tuple[str, Origin, str]:
        """The target of a task: its name, its origin, and its base path. Raises Bury if the settings do not have it."""
        queue = self.queues.get(request.queue)
        name = request.target or (queue.target if queue else None) or DEFAULT_TARGET
        if name not in self.targets:
            raise Bury(f'no target "{name}": add it to [push.targets] in {self.file}, reload the pool, then kick this')
        return name, *self.targets[name]

    def retry_parameters(self, queue: str) -> RetryParameters:
        """The retry_parameters of a queue; the defaults if queue.yaml no longer has the queue."""
        known = self.queues.get(queue)
        return known.retry if known else RetryParameters()


def rule(delivery: Delivery, context: Context, queue: str = DEFAULT_QUEUE) -> RetryParameters:
    """The retry rule of a task, else of its queue; for a ping, that of `queue`. Never raises."""
    if delivery.source != SOURCE:
        return _queue_rule(queue, context)
    try:
        request = from_labels(delivery.labels)
    except ValueError:
        return RetryParameters()
    return request.retry if request.retry is not None else _queue_rule(request.queue, context)


def _queue_rule(queue: str, context: Context) -> RetryParameters:
    try:
        return context.resource(Dispatcher.open).retry_parameters(queue)
    except SettingsError:
        return RetryParameters()


def of_tasks(handler: Handler) -> Handler:
    """Wraps the handler with what every task has: a retry rule, a deadline, and a name that stays taken.

    A handler's own retry policy is kept. A handler that is wrapped already is returned as it is.
    """
    if marks_of(handler).for_tasks:
        return handler

    @functools.wraps(handler)
    def work(delivery: Delivery, context: Context) -> Result:
        try:
            request = from_labels(delivery.labels)
        except ValueError:
            # put by hand, not by a program: the handler decides whether it can work it
            return call(handler, delivery, context)
        if request.dispatch_deadline:
            context.deadline = min(context.deadline, time.monotonic() + request.dispatch_deadline)
        with _named(request, delivery, context):
            # inside `_named`, because a task that returned unfinished work must keep its name
            return call(handler, delivery, context)

    return mark(work, for_tasks=True, retry_policy=marks_of(handler).retry_policy or rule)


@contextmanager
def _named(request: TaskRequest, delivery: Delivery, context: Context) -> Iterator[None]:
    """Runs an attempt at a named task: touches the name before it, and marks it finished if the task is over."""
    # a task without a name of its own is called by its delivery's id, which is unique anyway
    if request.name == delivery.id:
        yield
        return
    names = context.resource(Dispatcher.open).names
    names.touch(request.queue, request.name)
    try:
        yield
    except Drop:
        names.mark_finished(request.queue, request.name)
        raise
    names.mark_finished(request.queue, request.name)


@of_tasks
@requires(Dispatcher.open)
def post(delivery: Delivery, context: Context) -> Result:
    """Sends the request of a task.

    Raises Retry if the target does not answer with 200 to 299, and Bury if the request cannot be sent at all.
    """
    dispatcher = context.resource(Dispatcher.open)
    try:
        request = from_labels(delivery.labels)
        target, origin, base = dispatcher.resolve_target(request)
        http_request = of_task(request, base, delivery)
    except ValueError as error:
        raise Bury(f"not a task that can be sent: {error}") from None
    return _send(f"target {target}", origin, http_request, delivery, context)


def forward(url: str, queue: str = DEFAULT_QUEUE, keys: Sequence[bytes] = (), *, whole: bool = False) -> Handler:
    """A handler that posts a delivery's body to `url`: a ping as a task of `queue`, a task as one of its own queue.

    With `keys` each request is signed (Standard Webhooks), by each of them. With `whole`, its result is the body of the
    response, as bytes.
    """
    origin, path = split(url)
    target = url.partition("?")[0]

    @retry_policy(lambda delivery, context: rule(delivery, context, queue))
    @requires(Dispatcher.open)
    def handler(delivery: Delivery, context: Context) -> Result:
        headers = {
            **ping_headers(delivery),
            "X-Glassq-Source": delivery.source,
            **_about(delivery, queue),
        }
        if keys:
            # a sender's own signature is never kept, but its id and time may be
            headers = {name: value for name, value in headers.items() if not name.lower().startswith("webhook-")}
            headers |= signed_headers(keys, delivery.id, time.time(), delivery.body)
        request = HttpRequest("POST", path, headers, delivery.body)
        return _send(target, origin, request, delivery, context, whole=whole)

    return handler


def _about(delivery: Delivery, queue: str) -> dict[str, str]:
    if delivery.source != SOURCE:
        return task_headers(delivery, queue, delivery.id)
    request = from_labels(delivery.labels)
    return task_headers(delivery, request.queue, request.name, request.eta)


def _send(
    target: str, origin: Origin, request: HttpRequest, delivery: Delivery, context: Context, *, whole: bool = False
) -> Result:
    """Sends it; returns the result of the attempt, or raises Retry. `target` is the name in messages.

    With `whole`, the result is the body of the response; Bury is raised if that is too large to be kept.
    """
    started = time.monotonic()
    kept = MAX_BODY if whole else KEPT
    stoppable = context.stoppable if context.in_lane else nullcontext
    answer = context.resource(Dispatcher.open).http.send(origin, request, context.remaining, stoppable, kept)
    if 200 <= answer.status <= 299 and not answer.failure:
        if whole and answer.cut:
            raise Bury(f"{target} answered more than {MAX_BODY} for the next step")
        if whole:
            # the step after this one gets it
            return answer.body  # type: ignore[return-value]
        return {"status": answer.status, "ms": round((time.monotonic() - started) * 1000)}
    # App Engine's execution count: responses, without those of 5xx
    executions = latest(delivery, "executions") + (100 <= answer.status < 500)
    raise Retry(
        f"{target} {_in_words(answer)}",
        slow_down=answer.status == HTTPStatus.SERVICE_UNAVAILABLE,
        detail=_detail(answer, executions),
    )


def _in_words(answer: TargetResponse) -> str:
    if not answer.status:
        return answer.failure
    words = f"answered {answer.status} {_phrase(answer)}".rstrip()
    return f"{words}, but {answer.failure}" if answer.failure else words


def _phrase(answer: TargetResponse) -> str:
    if answer.reason:
        return answer.reason[:_MAX_PHRASE]
    try:
        return HTTPStatus(answer.status).phrase
    except ValueError:
        return ""


def _detail(answer: TargetResponse, executions: int) -> dict[str, Any]:
    """The evidence of a response, with secrets masked; at most MAX_DETAIL bytes of JSON."""
    if not answer.status:
        return {"executions": executions}
    detail: dict[str, Any] = {
        "status": answer.status,
        "reason": _phrase(answer),
        "headers": _some(answer.headers),
        "body": "",
        "executions": executions,
    }
    # the last character may be cut in two, and any byte may be invalid
    decode = getincrementaldecoder("utf-8")("backslashreplace").decode
    detail["body"] = _fitting(masked_text(decode(answer.body[:KEPT], not answer.cut)), MAX_DETAIL - _size(detail))
    return detail


def _some(headers: Mapping[str, str]) -> dict[str, str]:
    """The first headers, up to _MAX_HEADERS bytes of JSON."""
    shortened = {name: masked_text(value[:_MAX_VALUE]) for name, value in headers.items()}
    masked: dict[str, str] = masked_body(json.dumps(shortened).encode())
    some: dict[str, str] = {}
    room = _MAX_HEADERS
    for name, value in masked.items():
        room -= _size({name: value})
        if room < 0:
            break
        some[name] = value
    return some


def _fitting(text: str, room: int) -> str:
    """The text, shortened to fit into `room` bytes of JSON, which may write one character as six bytes."""
    while _size(text) > room:
        text = text[: min(len(text) - 1, len(text) * room // _size(text))]
    return text


def _size(value: object) -> int:
    return len(json.dumps(value))
