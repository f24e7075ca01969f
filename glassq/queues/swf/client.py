"""Calls of SWF for all threads of a process, in one domain."""

from __future__ import annotations

import os
import socket
import time
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from glassq.errors import JobNotFound, QueueUnavailable
from glassq.queues.aws.client import AwsClient
from glassq.queues.aws.troubles import in_doubt, is_throttled
from glassq.queues.swf.troubles import WORDS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from glassq.queues.swf.place import SwfPlace

# These name no domain: a token does, or `name`.
_WITHOUT = ("respond_", "record_", "register_domain")
# So often an answer is sent whose connection broke.
_TRIES = 3
# A poll that fails so soon, in seconds, is made once more; after a pause where there were too many calls.
_SOON, _PAUSE = 1.0, 0.5


class SwfClient(AwsClient):
    """The domain of one place."""

    service, words = "swf", WORDS
    needed = MappingProxyType(
        {
            "start_workflow_execution": "runId",
            "get_workflow_execution_history": "events",
            "list_open_workflow_executions": "executionInfos",
            "list_closed_workflow_executions": "executionInfos",
            "count_open_workflow_executions": "count",
            "count_pending_decision_tasks": "count",
            "describe_workflow_type": "typeInfo",
            "describe_activity_type": "typeInfo",
        }
    )

    def __init__(self, place: SwfPlace, *, connect_timeout: float, timeout: float) -> None:
        """See `AwsClient`."""
        super().__init__(place.region, place.endpoint, connect_timeout=connect_timeout, timeout=timeout)
        self.place = place

    def call(self, action: str, *, within: float | None = None, about: str = "", **arguments: Any) -> dict[str, Any]:
        if not action.startswith(_WITHOUT):
            arguments["domain"] = self.place.domain
        return super().call(action, within=within, about=about, **arguments)

    def poll(self, action: str, **arguments: Any) -> dict[str, Any]:
        """The task that a poll brings; one without `taskToken` brings none. The first page, of a decision's."""
        within, begun = self.place.poll + self.timeout, time.monotonic()
        try:
            return self.call(action, within=within, identity=identity(), **arguments)
        except QueueUnavailable as error:
            if time.monotonic() - begun > _SOON:
                raise
            # its connection had been idle for too long; or there were too many calls
            time.sleep(_PAUSE if is_throttled(error) else 0.0)
        return self.call(action, within=within, identity=identity(), **arguments)

    def settle(self, action: str, **arguments: Any) -> None:
        """Tells what became of a task, which ends with that. Raises JobNotFound if it had ended before."""
        doubtful = False
        for tries in range(_TRIES, 0, -1):
            try:
                self.once(action, **arguments)
            except JobNotFound:
                if doubtful:
                    # the try before has ended it
                    return
                raise
            except QueueUnavailable as error:
                if tries == 1:
                    raise
                doubtful = doubtful or in_doubt(error)
            else:
                return

    def pages(
        self, action: str, what: str, *, within: float | None = None, **arguments: Any
    ) -> Iterator[list[dict[str, Any]]]:
        """The pages of a list. `within` is for each call, in seconds."""
        more: dict[str, Any] = {}
        while True:
            answer = self.insist(action, within=within, **arguments, **more)
            yield answer.get(what, [])
            if not (token := answer.get("nextPageToken")):
                return
            more = {"nextPageToken": token}


def identity() -> str:
    """Who polls, as histories show it."""
    return f"{socket.gethostname()}:{os.getpid()}"[:256]


@lru_cache(8)
def shared_client(place: SwfPlace, connect_timeout: float, timeout: float) -> SwfClient:
    """One client for all roles of a process that want the same of it: a lane child has hundreds of them."""
    return SwfClient(place, connect_timeout=connect_timeout, timeout=timeout)
