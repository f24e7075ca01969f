"""Finds executions that are open, and reads their histories. Lists and counts may be some seconds behind."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from glassq.errors import JobNotFound
from glassq.queues.base import Job
from glassq.queues.swf.history import DeliveryRun, Phase, read_history
from glassq.queues.swf.names import BURIED, TYPE, buried_tag, ref_of, tube_in, tube_tag

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from glassq.queues.base import State
    from glassq.queues.swf.client import SwfClient

    Left = Callable[[], float]

# Executions live for a year at most: older ones there are none.
ALL = timedelta(days=366)
# A list may lag behind so many runs of one execution.
_FOLLOWED = 5
# So many executions are known again by one inspector.
_KNOWN = 10_000


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
    client: SwfClient,
    left: Left,
    *,
    tag: str = "",
    workflow: str = "",
    since: datetime | None = None,
    page: int = 1000,
    oldest_first: bool = False,
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
        reverseOrder=oldest_first,
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
    return BURIED if only_buried else ""


def may_be(run: OpenRun, states: frozenset[State], tubes: Sequence[str]) -> bool:
    """Whether its tags leave room for such a delivery: all that a list says of it, and its history need not be read."""
    return tube_in(list(run.tags)) in tubes and (BURIED not in run.tags or "buried" in states)


def events_of(client: SwfClient, workflow: str, run: str, left: Left) -> list[Mapping[str, Any]]:
    """The whole history of a run. Raises JobNotFound if there is none, or no more."""
    execution = {"workflowId": workflow, "runId": run}
    pages = client.pages("get_workflow_execution_history", "events", within=left(), execution=execution)
    return [event for page in pages for event in page]


def see(client: SwfClient, workflow: str, run: str, left: Left) -> SeenRun | None:
    """What the history of this run says, or that of the one that took its place; None if the delivery is gone."""
    for _ in range(_FOLLOWED):
        try:
            events = events_of(client, workflow, run, left)
        except JobNotFound:
            return None
        if not events:
            # its history is behind
            return None
        seen = SeenRun(workflow, run, read_history(events))
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


class KnownRuns:
    """Reads histories, and remembers which run each execution has: to look again takes one call, not two."""

    def __init__(self, client: SwfClient, left: Left) -> None:
        self._client = client
        self._left = left
        self._runs: dict[str, str] = {}

    def see(self, run: OpenRun) -> SeenRun | None:
        """The delivery of a run that a list has; None if it is gone."""
        return self._noted(run.workflow, see(self._client, run.workflow, run.run, self._left))

    def find(self, workflow: str) -> SeenRun | None:
        """The open run of this execution; None if there is none."""
        known = self._runs.get(workflow)
        if known is not None and (seen := see(self._client, workflow, known, self._left)) is not None:
            return self._noted(workflow, seen)
        # that one is over: another of this id may have begun
        return self._noted(workflow, find_run(self._client, workflow, self._left))

    def _noted(self, workflow: str, seen: SeenRun | None) -> SeenRun | None:
        if seen is None:
            self._runs.pop(workflow, None)
            return None
        if len(self._runs) >= _KNOWN:
            self._runs.pop(next(iter(self._runs)))
        self._runs[workflow] = seen.run_id
        return seen


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
