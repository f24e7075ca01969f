"""Calls of SQS for all threads of a process, and the queues' URLs."""

from __future__ import annotations

from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from glassq.queues.aws.client import AwsClient
from glassq.queues.sqs.names import queue_name
from glassq.queues.sqs.troubles import WORDS

if TYPE_CHECKING:
    from glassq.queues.sqs.place import SqsPlace


class SqsClient(AwsClient):
    """The queues of one place."""

    service, words = "sqs", WORDS
    needed = MappingProxyType(
        {
            "send_message": "MessageId",
            "get_queue_url": "QueueUrl",
            "create_queue": "QueueUrl",
            "get_queue_attributes": "Attributes",
        }
    )

    def __init__(self, place: SqsPlace, *, connect_timeout: float, timeout: float) -> None:
        """See `AwsClient`."""
        super().__init__(place.region, place.endpoint, connect_timeout=connect_timeout, timeout=timeout)
        self.place = place
        # the queues' URLs, by their names
        self._urls: dict[str, str] = {}

    def url(self, tube: str, *, within: float | None = None) -> str:
        """The URL of the tube's queue, which is asked for once. Raises WrongTables if there is none, QueueError."""
        name = queue_name(self.place.prefix, tube)
        found = self._urls.get(name)
        if found is None:
            answer = self.insist("get_queue_url", within=within, about=name, QueueName=name)
            found = self._urls[name] = str(answer["QueueUrl"])
        return found

    def of(self, tube: str, *, within: float | None = None) -> dict[str, Any]:
        """The arguments of a call that name the tube's queue. Raises as `url`."""
        return {"about": queue_name(self.place.prefix, tube), "QueueUrl": self.url(tube, within=within)}

    def know(self, tube: str, url: str) -> None:
        """This is the URL of the tube's queue."""
        self._urls[queue_name(self.place.prefix, tube)] = url


@lru_cache(8)
def shared_client(place: SqsPlace, connect_timeout: float, timeout: float) -> SqsClient:
    """One client for all roles of a process that want the same of it: a lane child has hundreds of them."""
    return SqsClient(place, connect_timeout=connect_timeout, timeout=timeout)
