"""Tubes that are paused: each is an execution of a type of its own, which nobody decides. It ends with the pause."""

from __future__ import annotations

import math
import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from glassq.errors import JobNotFound
from glassq.queues.swf.forms import MAX_SECONDS
from glassq.queues.swf.looking import ALL
from glassq.queues.swf.names import NOBODY, PAUSE_TYPE, PAUSE_VERSION, workflow_id
from glassq.queues.swf.troubles import AlreadyThere

if TYPE_CHECKING:
    from collections.abc import Callable

    from glassq.queues.swf.client import SwfClient

_TUBE, _UNTIL = "paused:", "until:"


def paused(client: SwfClient, within: float | None = None) -> dict[str, float]:
    """The tubes that are paused now, each with the time until it goes on, in seconds. Raises QueueError."""
    found: dict[str, float] = {}
    pages = client.pages(
        "list_open_workflow_executions",
        "executionInfos",
        within=within,
        startTimeFilter={"oldestDate": datetime.now(UTC) - ALL},
        typeFilter={"name": PAUSE_TYPE},
    )
    for info in (info for page in pages for info in page):
        tags = info.get("tagList", [])
        tube = next((tag.removeprefix(_TUBE) for tag in tags if tag.startswith(_TUBE)), "")
        until = next((_time_in(tag.removeprefix(_UNTIL)) for tag in tags if tag.startswith(_UNTIL)), 0.0)
        if tube and (left := until - time.time()) > 0:
            found[tube] = left
    return found


def _time_in(text: str) -> float:
    """The time, since 1970; 0 where another program wrote what is none."""
    try:
        return min(float(text), time.time() + MAX_SECONDS)
    except ValueError:
        return 0.0


def pause(client: SwfClient, tube: str, seconds: float, left: Callable[[], float]) -> None:
    """Pauses the tube for this time; 0 ends the pause. Raises QueueError."""
    execution = workflow_id(f"glassq-pause {tube}")
    with suppress(JobNotFound):
        client.insist(
            "terminate_workflow_execution", within=left(), workflowId=execution, reason="another pause, or none"
        )
    if not seconds:
        return
    # where two operators do so at once, one of both pauses it
    with suppress(AlreadyThere):
        client.insist(
            "start_workflow_execution",
            within=left(),
            workflowId=execution,
            workflowType={"name": PAUSE_TYPE, "version": PAUSE_VERSION},
            taskList=NOBODY,
            tagList=[_TUBE + tube, f"{_UNTIL}{time.time() + seconds:.3f}"],
            executionStartToCloseTimeout=str(math.ceil(seconds)),
            taskStartToCloseTimeout="NONE",
            childPolicy="TERMINATE",
        )
