"""A delivery's history at SWF, all its runs, in words: what was put, tried, refused, waited for and decided."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from glassq.queues.base import Happened
from glassq.queues.swf.forms import SwfForm, read_form
from glassq.queues.swf.history import BURY, DUE_TIMER, RELEASE, RETRY, UNTAKEN, attributes_of
from glassq.queues.swf.looking import ALL, events_of, open_runs
from glassq.queues.swf.names import tube_in, workflow_id

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from glassq.queues.swf.client import SwfClient
    from glassq.queues.swf.looking import Left

    Attributes = Mapping[str, Any]
    Words = Callable[[Attributes], str]


def told(client: SwfClient, key: str, left: Left) -> list[Happened]:
    """What happened to the delivery with this key, oldest first, as long as the service keeps it. Raises QueueError."""
    workflow = workflow_id(key)
    found: list[Happened] = []
    for _, run in sorted(_runs(client, workflow, left)):
        found += in_words(events_of(client, workflow, run, left))
    return found


def in_words(events: list[Mapping[str, Any]]) -> Iterator[Happened]:
    """The events of a run that say something about its delivery."""
    for event in events:
        words = _WORDS.get(event["eventType"])
        if words is not None and (said := words(attributes_of(event))):
            yield Happened(event["eventTimestamp"].astimezone(UTC), said)


def _runs(client: SwfClient, workflow: str, left: Left) -> Iterator[tuple[datetime, str]]:
    """All runs of the execution, and when each began."""
    for page in open_runs(client, left, workflow=workflow):
        yield from ((run.began, run.run) for run in page)
    pages = client.pages(
        "list_closed_workflow_executions",
        "executionInfos",
        within=left(),
        startTimeFilter={"oldestDate": datetime.now(UTC) - ALL},
        executionFilter={"workflowId": workflow},
    )
    for closed in pages:
        yield from ((info["startTimestamp"], info["execution"]["runId"]) for info in closed)


def _begun(found: Attributes) -> str:
    form = read_form(found.get("input", ""), tube_in(found.get("tagList", [])))
    where = f"{form.tube}{_after(form)}"
    state = "buried in" if form.state == "buried" else "in"
    if not found.get("continuedExecutionRunId"):
        return f"put: {state} {where}"
    return f"a new run: {state} {where}" + (", with a fresh budget" if form.kicked else "")


def _failed(found: Attributes) -> str:
    reason, details = found.get("reason", ""), found.get("details", "")
    form = read_form(details, "") if details else None
    if reason == RETRY and form is not None:
        return f"the attempt ended: again in {form.tube}{_after(form)}"
    said = {BURY: "the attempt ended: to be buried", RELEASE: "given back, no attempt is counted"}
    return said.get(reason, "the attempt was lost with its process, and given back by the pool")


def _timed_out(found: Attributes) -> str:
    kind = found.get("timeoutType", "")
    if kind == UNTAKEN:
        return "nobody has taken it: it waits on in a new run"
    return f"the attempt was lost: no sign of life ({kind})"


def _timer(found: Attributes) -> str:
    return f"waits for {found['startToFireTimeout']} s" if found["timerId"].startswith(DUE_TIMER) else ""


def _signal(found: Attributes) -> str:
    form = read_form(found.get("input", ""), "")
    return f"an operator: {'bury' if form.state == 'buried' else form.state}{_after(form)}, in {form.tube}"


def _after(form: SwfForm) -> str:
    return f", after {form.delay:g} s" if form.state == "delayed" else ""


def _refused(what: str) -> Words:
    return lambda found: f"the service refused {what} ({found.get('cause', '')}): it is decided again"


_WORDS: dict[str, Words] = {
    "WorkflowExecutionStarted": _begun,
    "ActivityTaskScheduled": lambda found: f"{found.get('activityId', '').replace('-', ' ')} may begin",
    "ActivityTaskStarted": lambda found: f"taken by {found.get('identity') or 'a worker'}",
    "ActivityTaskCompleted": lambda _: "done",
    "ActivityTaskFailed": _failed,
    "ActivityTaskTimedOut": _timed_out,
    "TimerStarted": _timer,
    "TimerFired": lambda found: "is due" if found["timerId"].startswith(DUE_TIMER) else "",
    "WorkflowExecutionSignaled": _signal,
    "WorkflowExecutionTerminated": lambda found: f"ended: {found.get('reason') or 'by somebody else'}",
    "WorkflowExecutionTimedOut": lambda _: "LOST: an execution ends after a year",
    "DecisionTaskTimedOut": lambda _: "a decision was lost: it is made again",
    "ScheduleActivityTaskFailed": _refused("the next attempt"),
    "StartTimerFailed": _refused("the timer"),
    "ContinueAsNewWorkflowExecutionFailed": _refused("the new run"),
    "CompleteWorkflowExecutionFailed": _refused("the end"),
}
