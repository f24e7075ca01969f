"""The HTTP request that a task stands for, as its delivery stores it.

The delivery's body is the task's payload, unchanged. Everything else is in its labels, so that routes can match it and
operators can read it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec

from glassq.push.rule import RetryParameters, expected, fits

if TYPE_CHECKING:
    from collections.abc import Mapping

# The source of deliveries that are tasks.
SOURCE = "push"
# The queue of a task that does not name one, and of pings whose handler is a URL.
DEFAULT_QUEUE = "default"
# The queue of requests of cron.yaml, as App Engine calls it. No queue.yaml can have a queue of this name.
CRON_QUEUE = "__cron"
# The target of a task if neither the task nor its queue names one.
DEFAULT_TARGET = "default"


class TaskRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The request of a task, without its payload.

    `queue` and `name` are the task's. `url` is relative and includes the query. `target` is a name of [push.targets]
    ("": the queue's, else "default"). `eta` is the earliest time to send it, in seconds since 1970. `retry` replaces
    the queue's retry_parameters. `dispatch_deadline` limits each attempt, in seconds; 0: only the pool's deadline does.
    `form` "http": it was added with a full URL, as an HTTP task of Cloud Tasks.
    """

    queue: str
    name: str
    url: str
    method: str = "POST"
    target: str = ""
    headers: dict[str, str] = {}
    eta: float = 0.0
    retry: RetryParameters | None = None
    dispatch_deadline: float = 0.0
    form: str = ""

    def labels(self) -> dict[str, str]:
        """The labels of the task's delivery."""
        labels = {"queue": self.queue, "task": self.name, "method": self.method, "url": self.url}
        if self.target:
            labels["target"] = self.target
        if self.headers:
            labels["headers"] = msgspec.json.encode(self.headers).decode()
        if self.eta:
            labels["eta"] = repr(self.eta)
        if self.dispatch_deadline:
            labels["dispatch_deadline"] = repr(self.dispatch_deadline)
        if self.form:
            labels["form"] = self.form
        if self.retry is not None:
            labels["retry"] = msgspec.json.encode(self.retry).decode()
        return labels


def from_labels(labels: Mapping[str, str]) -> TaskRequest:
    """The request in the labels of a task's delivery. Raises ValueError with the label that is wrong."""
    fields: dict[str, object] = {"name" if key == "task" else key: value for key, value in labels.items()}
    fields.pop("cron", None)
    try:
        for key in ("headers", "retry"):
            if key in labels:
                fields[key] = msgspec.json.decode(labels[key])
        request = msgspec.convert(fields, TaskRequest, strict=False)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ValueError(str(error)) from None
    if not math.isfinite(request.eta):
        raise ValueError("its eta: expected a time")
    if not (math.isfinite(request.dispatch_deadline) and request.dispatch_deadline >= 0):
        raise ValueError("its dispatch_deadline: expected seconds")
    for key, value in msgspec.structs.asdict(request.retry).items() if request.retry else ():
        if value is not None and not fits(key, value):
            raise ValueError(f"its {key}: expected {expected(key)}")
    return request


def tube_of(base: str, queue: str) -> str:
    """The tube of a push queue. `base` is [queue] tube."""
    return f"{base}.push.{queue}"
