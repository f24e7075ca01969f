"""What an operator should know about the domain: is it there, is there room, does somebody decide, does a job fit?"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from glassq.errors import WrongTables
from glassq.queues.base import EngineGauge, Fact
from glassq.queues.swf.decider import FIRST
from glassq.queues.swf.forms import MAX_JOB
from glassq.queues.swf.limits import DELIVERIES, MAX_OPEN
from glassq.queues.swf.looking import ALL
from glassq.queues.swf.making import SwfDomain
from glassq.queues.swf.names import NOBODY, PAUSE_TYPE, PAUSE_VERSION, TYPE, decision_list, workflow_id
from glassq.queues.swf.troubles import AlreadyThere, explained
from glassq.queues.swf.versions import DECIDERS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from glassq.queues.swf.client import SwfClient
    from glassq.queues.swf.looking import Left

_MUCH = MAX_OPEN * 3 // 4
# So many decisions wait where nobody makes them: a minute's at the most that an account has.
_WAITING = 60 * DELIVERIES
_DAY = 86_400


def of_domain(client: SwfClient, left: Left) -> Iterator[Fact]:
    """How full the domain is, and whether somebody decides. Raises QueueError."""
    count, more = _open(client, left)
    said = f"{count:,}{' or more' if more else ''} executions are open, of {MAX_OPEN:,}"
    if count > _MUCH:
        todo = "work or delete what lies buried, or ask Amazon for more; beyond that pings go to the journals"
        yield Fact("open executions", False, said, todo)
    else:
        yield Fact("open executions", True, said)
    waiting = _undecided(client, left)
    said = f"{waiting:,} executions wait for a decision"
    if waiting > _WAITING:
        yield Fact("decisions", False, said, "start glassq-worker, or look at its log: each pool decides")
    else:
        yield Fact("decisions", True, said)


def of_place(client: SwfClient, left: Left, job_size: int) -> Iterator[Fact]:
    """What is so for long: where the domain is, whether its types are there, and whether our largest job fits."""
    place = client.place
    where = f"Amazon SWF in {place.region}, domain {place.domain}, {place.endpoint or 'its own endpoint'}"
    yield Fact("queue", True, where)
    try:
        SwfDomain(client).check()
    except WrongTables as error:
        yield explained(error)
    else:
        yield Fact("domain", True, "its types are those of this version")
        yield from _of_old_runs(client, left)
    said = f"jobs of up to {MAX_JOB} bytes"
    if job_size <= MAX_JOB:
        yield Fact("job size", True, said)
    else:
        yield Fact("job size", False, f"{said}; a task has up to {job_size}", "add no tasks that are larger")


def _of_old_runs(client: SwfClient, left: Left) -> Iterator[Fact]:
    """How many runs there are still of the version whose runs nothing renews."""
    kind, oldest = {"name": TYPE, "version": FIRST}, {"oldestDate": datetime.now(UTC) - ALL}
    answer = client.insist("count_open_workflow_executions", within=left(), startTimeFilter=oldest, typeFilter=kind)
    if count := int(answer["count"]):
        yield Fact(
            "old executions",
            None,
            f"{count:,} executions began with an older glassq: what nobody takes of them ends after a year",
            "have all tubes that `glassq status` shows worked, or move or delete what is in them",
        )


def gauges(client: SwfClient, left: Left) -> tuple[EngineGauge, ...]:
    """The metrics that only SWF has. Raises QueueError."""
    return gauges_of(_open(client, left)[0], _undecided(client, left))


def gauges_of(executions: int, undecided: int) -> tuple[EngineGauge, ...]:
    """The same, for a domain with so many open executions, of which so many wait for a decision."""
    return (
        EngineGauge("glassq_queue_open_executions", "Open executions of the domain.", float(executions)),
        EngineGauge("glassq_queue_undecided", "Executions that wait for a decision.", float(undecided)),
    )


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


def _open(client: SwfClient, left: Left) -> tuple[int, bool]:
    """About how many executions are open, and whether there are more."""
    oldest = {"oldestDate": datetime.now(UTC) - ALL}
    answer = client.insist(
        "count_open_workflow_executions", within=left(), startTimeFilter=oldest, typeFilter={"name": TYPE}
    )
    return int(answer["count"]), bool(answer.get("truncated"))


def _undecided(client: SwfClient, left: Left) -> int:
    found = [
        client.insist("count_pending_decision_tasks", within=left(), taskList=decision_list(version))
        for version in DECIDERS
    ]
    return sum(int(answer["count"]) for answer in found)
