"""Which executions a call lists or counts, and what it says of each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.queues.swf.faults import invalid

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tests.queues.swf.run import Run

_FILTERS = ("executionFilter", "typeFilter", "tagFilter", "closeStatusFilter")


def info_of(run: Run, *, as_open: bool = False) -> dict[str, Any]:
    """`as_open`: as it was before it was closed."""
    is_open = as_open or run.open
    known: dict[str, Any] = {
        "execution": run.execution,
        "workflowType": run.plan.workflow_type,
        "startTimestamp": run.started,
        "executionStatus": "OPEN" if is_open else "CLOSED",
        "cancelRequested": run.cancel_requested,
    }
    if run.plan.tags:
        known["tagList"] = list(run.plan.tags)
    return known if is_open else {**known, "closeTimestamp": run.ended, "closeStatus": run.status}


def chosen(runs: Iterable[Run], asked: Mapping[str, Any], *, closed: bool) -> list[Run]:
    """Those that the call's filters let through, the latest first. Raises SwfFault."""
    if len(used := [name for name in _FILTERS if asked.get(name)]) > 1:
        raise invalid(f"Cannot specify more than one exclusive filters in the same query: [{', '.join(used)}]")
    times = [name for name in ("startTimeFilter", "closeTimeFilter") if asked.get(name)]
    if len(times) != 1:
        raise invalid("Must specify exactly one of the time filters")
    found = [run for run in runs if _in_time(run, asked) and _matches(run, asked)]
    by_end = closed and times == ["closeTimeFilter"]
    latest_first = not asked.get("reverseOrder")
    return sorted(found, key=lambda run: (run.ended or 0) if by_end else run.started, reverse=latest_first)


def _in_time(run: Run, asked: Mapping[str, Any]) -> bool:
    for name, at in (("startTimeFilter", run.started), ("closeTimeFilter", run.ended or 0.0)):
        within = asked.get(name)
        if within and not within["oldestDate"] <= at <= within.get("latestDate", at):
            return False
    return True


def _matches(run: Run, asked: Mapping[str, Any]) -> bool:
    if named := asked.get("executionFilter"):
        return bool(run.workflow_id == named["workflowId"])
    if named := asked.get("typeFilter"):
        kind = run.plan.workflow_type
        return kind["name"] == named["name"] and named.get("version") in (None, "", kind["version"])
    if named := asked.get("tagFilter"):
        return named["tag"] in run.plan.tags
    if named := asked.get("closeStatusFilter"):
        return bool(run.status == named["status"])
    return True
