"""A task as seen by the function that handles it: `glassq.task(delivery)`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from glassq.content import FORM, media_type
from glassq.errors import Bury
from glassq.headers import Headers
from glassq.push.request import SOURCE, from_labels

if TYPE_CHECKING:
    from collections.abc import Mapping

    from glassq.delivery import Delivery

Params = dict[str, str | list[str]]


@dataclass(frozen=True, slots=True)
class ReceivedTask:
    """A task as the program that added it wrote it.

    `queue`, `name`  the names of its queue and of the task
    `method`, `url`  of its request; `url` begins with / and includes the query
    `path`           `url` without the query
    `params`         its parameters: the value of a name, or a list if the name has several values
    `headers`        as its author gave them; names are case-insensitive
    `payload`        its body, as bytes
    `eta`            when it was due, in UTC
    `retry_count`    the number of failed attempts: 0 in the first attempt
    """

    queue: str
    name: str
    method: str
    url: str
    headers: Mapping[str, str]
    payload: bytes
    eta: datetime
    retry_count: int

    @property
    def path(self) -> str:
        return self.url.partition("?")[0]

    @property
    def params(self) -> Mapping[str, str | list[str]]:
        form = media_type(self.headers.get("Content-Type", "")) == FORM
        query = self.payload if self.method == "POST" and form else self.url.partition("?")[2].encode()
        return MappingProxyType(grouped(query))


def task(delivery: Delivery) -> ReceivedTask:
    """The task in a delivery of the source "push". Raises Bury if the delivery is not a task: a retry cannot help."""
    if delivery.source != SOURCE:
        raise Bury(f'not a task: its source is "{delivery.source}", not "{SOURCE}"')
    try:
        request = from_labels(delivery.labels)
        eta = datetime.fromtimestamp(request.eta, UTC) if request.eta else delivery.received
    except (ValueError, OverflowError, OSError) as error:
        raise Bury(f"not a task: {error}") from None
    return ReceivedTask(
        queue=request.queue,
        name=request.name,
        method=request.method,
        url=request.url,
        headers=Headers(request.headers),
        payload=delivery.body,
        eta=eta,
        retry_count=delivery.failures,
    )


def grouped(query: bytes) -> Params:
    """The parameters in a query or a form; invalid UTF-8 is replaced."""
    params: dict[str, list[str]] = {}
    for name, value in parse_qsl(query.decode("utf-8", "replace"), keep_blank_values=True, errors="replace"):
        params.setdefault(name, []).append(value)
    return {name: values if len(values) > 1 else values[0] for name, values in params.items()}
