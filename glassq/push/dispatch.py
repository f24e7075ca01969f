"""What works tasks: `of_tasks` makes any handler one of tasks; `post` makes the HTTP request that a task stands for.

A status of 200 to 299 is done. Anything else, or no whole answer within the deadline, is tried again by the rule of the
task's queue, with what was answered as evidence. Redirects are not followed.
Source of the rules: App Engine's documents on push queues, and the SDK's task queue stub.
"""

from __future__ import annotations

import functools
import json
import time
from codecs import getincrementaldecoder
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from glassq.delivery import MAX_DETAIL
from glassq.errors import Bury, Drop, Retry, SettingsError
from glassq.handler import finished
from glassq.mask import masked_body, masked_text
from glassq.push import queue_yaml
from glassq.push.call import OCTETS, Call, about, latest, of_task
from glassq.push.exchange import Exchange, split
from glassq.push.names import open_names
from glassq.push.request import DEFAULT_QUEUE, DEFAULT_TARGET, SOURCE, from_labels
from glassq.push.rule import RetryParameters
from glassq.routes import mark, marks_of, requires, retry_policy

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from glassq.delivery import Delivery
    from glassq.push.exchange import Answer, Origin
    from glassq.push.names import Names
    from glassq.push.queue_yaml import PushQueue
    from glassq.push.request import Request
    from glassq.routes import Context, Handler, Result
    from glassq.settings import Settings

# Of an answer's headers, as bytes of JSON; the body gets what they leave of MAX_DETAIL.
_MOST_HEADERS = 2_000
# Of one header's value, and of an answer's phrase, in characters.
_MOST_VALUE, _MOST_PHRASE = 300, 80


@dataclass(frozen=True, slots=True)
class Desk:
    """What a process needs to make requests: the known targets, queues and names, and its connections."""

    targets: Mapping[str, tuple[Origin, str]]
    queues: Mapping[str, PushQueue]
    names: Names
    exchange: Exchange
    file: str

    @classmethod
    def open(cls, settings: Settings, queues: Mapping[str, PushQueue] | None = None) -> Desk:
        """With the queues of queue.yaml, which is read where they are not given.

        Raises SettingsError where [push] is missing, or queue.yaml or the URL of the names cannot be used.
        """
        if settings.push is None:
            raise SettingsError(f"{settings.file}: missing section [push]: a route sends deliveries to HTTP endpoints")
        targets = {name: split(url) for name, url in settings.push.targets.items()}
        known = queue_yaml.load(settings.push.queue_yaml, settings.push.targets) if queues is None else queues
        return cls(targets, known, open_names(settings.push), Exchange(), settings.file)

    def close(self) -> None:
        """Closes its connections, those to the names' database too."""
        self.exchange.close()
        self.names.close()

    def place(self, request: Request) -> tuple[str, Origin, str]:
        """The target of a task: its name, its origin, and the path beneath which all of its URLs are."""
        queue = self.queues.get(request.queue)
        name = request.target or (queue.target if queue else None) or DEFAULT_TARGET
        if name not in self.targets:
            raise Bury(f'no target "{name}": add it to [push.targets] in {self.file}, reload the pool, then kick this')
        return name, *self.targets[name]

    def retry(self, queue: str) -> RetryParameters:
        """The retry_parameters of a queue; the defaults where queue.yaml does not have it any more."""
        known = self.queues.get(queue)
        return known.retry if known else RetryParameters()


def rule(delivery: Delivery, context: Context, queue: str = DEFAULT_QUEUE) -> RetryParameters:
    """When a task is tried again: as it says itself, else as its queue does; a ping, as `queue` does. Never raises."""
    if delivery.source != SOURCE:
        return _queue_rule(queue, context)
    try:
        request = from_labels(delivery.labels)
    except ValueError:
        return RetryParameters()
    return request.retry if request.retry is not None else _queue_rule(request.queue, context)


def _queue_rule(queue: str, context: Context) -> RetryParameters:
    try:
        return context.resource(Desk.open).retry(queue)
    except SettingsError:
        return RetryParameters()


def of_tasks(handler: Handler) -> Handler:
    """The handler with what holds for every task: its retry rule, its deadline, and its name, which stays taken.

    A retry rule that the handler brings itself is kept. Handlers that are made of tasks already are left as they are.
    """
    if marks_of(handler).for_tasks:
        return handler

    @functools.wraps(handler)
    def work(delivery: Delivery, context: Context) -> Result:
        try:
            request = from_labels(delivery.labels)
        except ValueError:
            # put by hand, not by a program: it is for the handler to say whether it can work that
            return handler(delivery, context)
        if request.dispatch_deadline:
            context.deadline = min(context.deadline, time.monotonic() + request.dispatch_deadline)
        with _named(request, delivery, context):
            # checked inside `_named`: a task that returned unfinished work must keep its name
            return finished(handler(delivery, context))

    return mark(work, for_tasks=True, retry_policy=marks_of(handler).retry_policy or rule)


@contextmanager
def _named(request: Request, delivery: Delivery, context: Context) -> Iterator[None]:
    """An attempt at a task: its name is alive when it begins, and gone when the task is done or dropped."""
    # a task that its author did not name bears its delivery's id, which nobody can take twice
    if request.name == delivery.id:
        yield
        return
    names = context.resource(Desk.open).names
    names.touch(request.queue, request.name)
    try:
        yield
    except Drop:
        names.mark_finished(request.queue, request.name)
        raise
    names.mark_finished(request.queue, request.name)


@of_tasks
@requires(Desk.open)
def post(delivery: Delivery, context: Context) -> Result:
    """Makes the request of a task.

    Raises Retry where the target did not answer with 200 to 299, and Bury where there is no such request to make.
    """
    desk = context.resource(Desk.open)
    try:
        request = from_labels(delivery.labels)
        target, origin, base = desk.place(request)
        call = of_task(request, base, delivery)
    except ValueError as error:
        raise Bury(f"not a task that can be sent: {error}") from None
    return _send(f"target {target}", origin, call, delivery, context)


def forward(url: str, queue: str = DEFAULT_QUEUE) -> Handler:
    """A handler that posts a raw body to `url`, as a task of `queue` would be; that of a task as of its own queue."""
    origin, path = split(url)
    whom = url.partition("?")[0]

    @retry_policy(lambda delivery, context: rule(delivery, context, queue))
    @requires(Desk.open)
    def handler(delivery: Delivery, context: Context) -> Result:
        headers = {
            "Content-Type": "application/json" if delivery.body.lstrip()[:1] in (b"{", b"[") else OCTETS,
            "X-Glassq-Source": delivery.source,
            **_about(delivery, queue),
        }
        return _send(whom, origin, Call("POST", path, headers, delivery.body), delivery, context)

    return handler


def _about(delivery: Delivery, queue: str) -> dict[str, str]:
    if delivery.source != SOURCE:
        return about(delivery, queue, delivery.id)
    request = from_labels(delivery.labels)
    return about(delivery, request.queue, request.name, request.eta)


def _send(whom: str, origin: Origin, call: Call, delivery: Delivery, context: Context) -> dict[str, Any]:
    started = time.monotonic()
    answer = context.resource(Desk.open).exchange.ask(origin, call, context.remaining)
    if 200 <= answer.status <= 299 and not answer.failure:
        return {"status": answer.status, "ms": round((time.monotonic() - started) * 1000)}
    # times that the handler answered, without its 5xx
    executions = latest(delivery, "executions") + (100 <= answer.status < 500)
    raise Retry(
        f"{whom} {_in_words(answer)}",
        slow_down=answer.status == HTTPStatus.SERVICE_UNAVAILABLE,
        detail=_detail(answer, executions),
    )


def _in_words(answer: Answer) -> str:
    if not answer.status:
        return answer.failure
    words = f"answered {answer.status} {_phrase(answer)}".rstrip()
    return f"{words}, but {answer.failure}" if answer.failure else words


def _phrase(answer: Answer) -> str:
    if answer.reason:
        return answer.reason[:_MOST_PHRASE]
    try:
        return HTTPStatus(answer.status).phrase
    except ValueError:
        return ""


def _detail(answer: Answer, executions: int) -> dict[str, Any]:
    """What is kept of an answer, secrets masked; at most MAX_DETAIL bytes of JSON."""
    if not answer.status:
        return {"executions": executions}
    detail: dict[str, Any] = {
        "status": answer.status,
        "reason": _phrase(answer),
        "headers": _some(answer.headers),
        "body": "",
        "executions": executions,
    }
    # a character may be cut in two by the limit, or wrong anyway
    decode = getincrementaldecoder("utf-8")("backslashreplace").decode
    detail["body"] = _fitting(masked_text(decode(answer.body, not answer.cut)), MAX_DETAIL - _size(detail))
    return detail


def _some(headers: Mapping[str, str]) -> dict[str, str]:
    """The first headers, until they are enough."""
    shortened = {name: masked_text(value[:_MOST_VALUE]) for name, value in headers.items()}
    masked: dict[str, str] = masked_body(json.dumps(shortened).encode())
    some: dict[str, str] = {}
    room = _MOST_HEADERS
    for name, value in masked.items():
        room -= _size({name: value})
        if room < 0:
            break
        some[name] = value
    return some


def _fitting(text: str, room: int) -> str:
    """As much of the text as fits into so many bytes of JSON, which may write one character as six."""
    while _size(text) > room:
        text = text[: min(len(text) - 1, len(text) * room // _size(text))]
    return text


def _size(value: object) -> int:
    return len(json.dumps(value))
