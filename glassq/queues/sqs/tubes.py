"""The queues that there are, and how one is made."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from glassq.errors import QueueError
from glassq.queues.sqs.names import CERTAIN, TAG, escaped, is_hashed, queue_name, tube_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from glassq.queues.sqs.client import SqsClient

# How long the service keeps a message: 14 days, the most it can, in seconds. By default it would be 4.
RETENTION = 1_209_600
# What a new queue has besides; a receiver says its own lease with each receive.
ATTRIBUTES = {"MessageRetentionPeriod": str(RETENTION)}
# A queue that was just made can be used after a second (API reference, CreateQueue).
_SOON = 1.0


def make_queue(client: SqsClient, tube: str) -> None:
    """Makes the tube's queue; it does nothing if it is there. Raises QueueError."""
    prefix = client.place.prefix
    name = queue_name(prefix, tube)
    tags = {TAG: tube} if is_hashed(prefix, tube) else {}
    answer = client.insist("create_queue", about=name, QueueName=name, Attributes=ATTRIBUTES, tags=tags)
    client.know(tube, str(answer["QueueUrl"]))
    deadline = time.monotonic() + client.timeout + _SOON
    while True:
        try:
            client.call("get_queue_attributes", **client.of(tube), AttributeNames=["QueueArn"])
        except QueueError:
            if time.monotonic() > deadline:
                raise
            time.sleep(_SOON / 10)
        else:
            return


def tubes_named(client: SqsClient, prefix: str, *, within: float | None = None) -> Iterator[str]:
    """The tubes that have a queue and whose names begin so. `within` is for each call, in seconds."""
    ours = client.place.prefix
    for url in _urls(client, f"{ours}-{escaped(prefix)}", within):
        name = url.rpartition("/")[2]
        tube = tube_of(ours, name)
        if tube is None or not (tube := tube or _tagged(client, url)).startswith(prefix):
            continue
        # a tag may lie, and a name may be one that we would write otherwise: neither takes the place of the tube's own
        if tube and queue_name(ours, tube) == name:
            client.know(tube, url)
            yield tube


def _urls(client: SqsClient, begins: str, within: float | None) -> Iterator[str]:
    more: dict[str, Any] = {}
    while True:
        answer = client.insist("list_queues", within=within, QueueNamePrefix=begins[:CERTAIN], MaxResults=1000, **more)
        yield from answer.get("QueueUrls", ())
        if not (token := answer.get("NextToken")):
            return
        more = {"NextToken": token}


def _tagged(client: SqsClient, url: str) -> str:
    return str(client.insist("list_queue_tags", QueueUrl=url).get("Tags", {}).get(TAG, ""))
