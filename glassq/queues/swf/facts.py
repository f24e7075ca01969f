"""What an operator should know about the domain: is it there, is there room, does a delivery fit?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from glassq.queues.base import EngineGauge, Fact
from glassq.queues.swf.forms import MAX_JOB
from glassq.queues.swf.looking import open_runs
from glassq.queues.swf.names import NOBODY, PAUSE_TYPE, PAUSE_VERSION, workflow_id
from glassq.queues.swf.troubles import AlreadyThere

if TYPE_CHECKING:
    from collections.abc import Iterator

    from glassq.queues.swf.client import SwfClient
    from glassq.queues.swf.looking import Left

# So many executions of a domain may be open: ready, delayed, reserved and buried together.
MAX_OPEN = 100_000
_MUCH = MAX_OPEN * 3 // 4


def of_domain(client: SwfClient, left: Left, job_size: int) -> Iterator[Fact]:
    """Whether the domain answers, how full it is, and whether our largest job fits."""
    place = client.place
    yield Fact(
        "queue", True, f"Amazon SWF in {place.region}, domain {place.domain}, {place.endpoint or 'its own endpoint'}"
    )
    count = _open(client, left)
    said = f"{count:,} executions are open, of {MAX_OPEN:,}"
    if count > _MUCH:
        yield Fact("open executions", False, said, "work or delete what is buried; beyond that no ping is taken")
    else:
        yield Fact("open executions", True, said)
    said = f"jobs of up to {MAX_JOB} bytes"
    if job_size <= MAX_JOB:
        yield Fact("job size", True, said)
    else:
        todo = "keep larger bodies in the body store: a lower limit in [bodies]"
        yield Fact("job size", False, f"{said}; a delivery with its story has up to {job_size}", todo)


def gauges(client: SwfClient, left: Left) -> tuple[EngineGauge, ...]:
    """The metrics that only SWF has."""
    return (EngineGauge("glassq_queue_open_executions", "Open executions of the domain.", float(_open(client, left))),)


def try_to_put(client: SwfClient, left: Left) -> None:
    """Raises QueueError if no execution is taken now: starts one that nobody decides, and ends it."""
    execution = workflow_id("glassq-probe")
    try:
        client.once(
            "start_workflow_execution",
            within=left(),
            workflowId=execution,
            workflowType={"name": PAUSE_TYPE, "version": PAUSE_VERSION},
            taskList=NOBODY,
            executionStartToCloseTimeout="60",
            taskStartToCloseTimeout="NONE",
            childPolicy="TERMINATE",
        )
    except AlreadyThere:
        return
    client.settle("terminate_workflow_execution", within=left(), workflowId=execution, reason="it was a probe")


def _open(client: SwfClient, left: Left) -> int:
    return sum(len(page) for page in open_runs(client, left))
