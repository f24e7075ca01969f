"""Finds executions that are open, and reads their histories. Lists and counts may be some seconds behind."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from glassq.errors import JobNotFound
from glassq.queues.base import Job
from glassq.queues.swf.history import DeliveryRun, Phase, read_history
from glassq.queues.swf.names import TYPE, buried_tag, ref_of, tube_tag

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from glassq.queues.base import State
    from glassq.queues.swf.client import SwfClient

    Left = Callable[[], float]

# Executions live for a year at most: older ones there are none.
ALL = timedelta(days=366)
# A list may lag behind so many runs of one execution.
_FOLLOWED = 5


@dataclass(frozen=True, slots=True)
class OpenRun:
    """A run as a list has it."""

    workflow: str
    run: str
    tags: tuple[str, ...]
    began: datetime


@dataclass(frozen=True, slots=True)
class SeenRun:
    """A run, and what its history says."""

    workflow: str
    run_id: str
    run: DeliveryRun

    @property
    def execution(self) -> dict[str, str]:
        """The arguments of a call that concerns this very run."""
        return {"workflowId": self.workflow, "runId": self.run_id}


def open_runs(
    client: SwfClient, left: Left, *, tag: str = "", workflow: str = "", since: datetime | None = None, page: int = 1000
) -> Iterator[list[OpenRun]]:
    """Pages of deliveries' runs that are open, newest first: those with this tag, or of this execution, or all."""
    chosen: dict[str, Any] = {"typeFilter": {"name": TYPE}}
    if tag:
        chosen = {"tagFilter": {"tag": tag}}
    elif workflow:
        chosen = {"executionFilter": {"workflowId": workflow}}
    pages = client.pages(
        "list_open_workflow_executions",
        "executionInfos",
        within=left(),
        startTimeFilter={"oldestDate": since or datetime.now(UTC) - ALL},
        maximumPageSize=page,
        **chosen,
    )
    for infos in pages:
        yield [
            OpenRun(
                info["execution"]["workflowId"],
                info["execution"]["runId"],
                tuple(info.get("tagList", ())),
                info["startTimestamp"],
            )
            for info in infos
            if info["workflowType"]["name"] == TYPE
        ]


def tag_for(states: frozenset[State], tubes: Sequence[str]) -> str:
    """The tag that finds these and no more than need be; "": all must be looked at."""
    only_buried = states == {"buried"}
    if len(tubes) == 1:
        return buried_tag(tubes[0]) if only_buried else tube_tag(tubes[0])
    return "buried" if only_buried else ""


def events_of(client: SwfClient, workflow: str, run: str, left: Left) -> list[Mapping[str, Any]]:
    """The whole history of a run. Raises JobNotFound if there is none, or no more."""
    execution = {"workflowId": workflow, "runId": run}
    pages = client.pages("get_workflow_execution_history", "events", within=left(), execution=execution)
    return [event for page in pages for event in page]


def see(client: SwfClient, workflow: str, run: str, left: Left) -> SeenRun | None:
    """What the history of this run says, or that of the one that took its place; None if the delivery is gone."""
    for _ in range(_FOLLOWED):
        try:
            seen = SeenRun(workflow, run, read_history(events_of(client, workflow, run, left)))
        except JobNotFound:
            return None
        if seen.run.phase is not Phase.CLOSED:
            return None if seen.run.phase is Phase.DONE else seen
        if not (run := seen.run.successor):
            return None
    return None


def find_run(client: SwfClient, workflow: str, left: Left) -> SeenRun | None:
    """The open run of this execution; None if there is none."""
    if not workflow:
        return None
    for page in open_runs(client, left, workflow=workflow, page=1):
        for found in page:
            return see(client, found.workflow, found.run, left)
    return None


def probe(client: SwfClient, within: float) -> None:
    """Raises QueueError if the domain is not there, or does not answer. A cheap question."""
    client.insist(
        "list_open_workflow_executions",
        within=within,
        startTimeFilter={"oldestDate": datetime.now(UTC)},
        maximumPageSize=1,
        typeFilter={"name": TYPE},
    )


def job_of(seen: SeenRun) -> Job:
    """A delivery as operators see it."""
    run, now = seen.run, time.time()
    form, state = run.form, run.state or "ready"
    at = datetime.fromtimestamp(now, UTC)
    elapsed = max(0.0, (at - run.since).total_seconds())
    left = 0.0
    if state == "delayed":
        left = run.left(at)
    elif state == "reserved":
        # heartbeats leave no event: it has been extended where more than a lease is over
        left = form.lease - elapsed % form.lease
    return Job(
        ref=ref_of(seen.workflow),
        tube=form.tube,
        state=state,
        body=form.body,
        age=max(0.0, now - (form.put_at or run.began.timestamp())),
        time_left=left,
        ready_for=elapsed if state == "ready" else None,
        losses=form.losses,
        kicked=form.kicked,
        counters={"losses": form.losses},
    )
