"""What a push delivery asks for: the HTTP request to make, as the delivery's labels and body keep it.

The body is the task's payload, untouched; all else is in the labels, so that routes can match it and operators read it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec

from glassq.push.rule import RetryParameters, expected, fits

if TYPE_CHECKING:
    from collections.abc import Mapping

# The source of deliveries that a program put as tasks.
SOURCE = "push"
# The queue of a task that names none, and of pings whose handler is a URL.
DEFAULT_QUEUE = "default"
# The target of a task where neither it nor its queue names one.
DEFAULT_TARGET = "default"


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """The request that a task stands for, without its payload.

    `queue` and `name` are the task's; `url` is relative, with its query; `target` names one of [push.targets] ("": the
    queue's, else "default"). `eta` is when it may be made at the earliest, in seconds since 1970. `retry` takes the
    place of the queue's retry_parameters. `dispatch_deadline` is the longest that one attempt may take, in seconds; 0:
    it has no deadline of its own.
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

    def labels(self) -> dict[str, str]:
        """The labels of its delivery."""
        labels = {"queue": self.queue, "task": self.name, "method": self.method, "url": self.url}
        if self.target:
            labels["target"] = self.target
        if self.headers:
            labels["headers"] = msgspec.json.encode(self.headers).decode()
        if self.eta:
            labels["eta"] = repr(self.eta)
        if self.dispatch_deadline:
            labels["dispatch_deadline"] = repr(self.dispatch_deadline)
        if self.retry is not None:
            labels["retry"] = msgspec.json.encode(self.retry).decode()
        return labels


def from_labels(labels: Mapping[str, str]) -> Request:
    """The request in the labels of a push delivery. Raises ValueError with what is wrong with them."""
    fields: dict[str, object] = {"name" if key == "task" else key: value for key, value in labels.items()}
    try:
        for key in ("headers", "retry"):
            if key in labels:
                fields[key] = msgspec.json.decode(labels[key])
        request = msgspec.convert(fields, Request, strict=False)
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
    """The tube of a queue, where `base` is [queue] tube."""
    return f"{base}.push.{queue}"
