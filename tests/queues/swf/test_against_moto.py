"""The same calls on the SWF of tests and on moto leave the same histories and the same faults, where moto can."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from moto import mock_aws

from tests.conftest import wait_for
from tests.queues.swf import caller
from tests.queues.swf.caller import Caller
from tests.queues.swf.calls import CALLS, answers
from tests.queues.swf.service import SwfService

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Events = list[tuple[str, dict[str, Any]]]

# What moto leaves out of an event: all that is 0, what it was given at the start, and defaults of a type.
LEFT_OUT = {
    "WorkflowExecutionStarted": {"tagList", "parentInitiatedEventId"},
    "WorkflowExecutionSignaled": {"externalInitiatedEventId"},
    "ActivityTaskScheduled": {
        "heartbeatTimeout", "scheduleToCloseTimeout", "scheduleToStartTimeout", "startToCloseTimeout",
    },
}  # fmt: skip
# How it writes an event that it misspells, so that botocore cannot read it.
MISSPELT = {"TimerCancelled": "TimerCanceled"}
# What it takes though the service does not.
TAKEN = {"a large input", "six tags", "a long tag", "a bad id", "more than a year"}


def fails_twice(swf: Caller) -> str:
    run = swf.start(tagList=["pings"], input="body")
    swf.decide(caller.schedule(1, input="body", control="x"))
    swf.fail(swf.work(), "retry")
    swf.decide(caller.timer("later", 3600), caller.timer("now", 0))
    wait_for(lambda: "TimerFired" in swf.types(run), "the timer")
    swf.decide(caller.schedule(2), caller.marker("second attempt"), caller.cancel_timer("later"))
    swf.fail(swf.work(), "bury", "x" * 1000)
    swf.decide()
    swf.signal("kick", input="by hand")
    swf.decide(caller.schedule(3))
    task = swf.work()
    swf.client.record_activity_task_heartbeat(taskToken=task["taskToken"], details="half")
    swf.complete(task)
    swf.decide(caller.complete())
    return run


def cannot_be_scheduled(swf: Caller) -> str:
    run = swf.start()
    swf.decide(caller.schedule(1), caller.schedule(1), caller.timer("t", 3600))
    swf.decide(caller.schedule(2, activityType={"name": "other", "version": "1"}))
    swf.decide(caller.fail())
    return run


def is_terminated(swf: Caller) -> str:
    run = swf.start()
    swf.decide(caller.schedule(1))
    swf.client.terminate_workflow_execution(domain=swf.domain, workflowId="one", reason="why", details="more")
    return run


def is_cancelled(swf: Caller) -> str:
    run = swf.start()
    swf.decide(caller.cancel())
    return run


SCRIPTS = (fails_twice, cannot_be_scheduled, is_terminated, is_cancelled)


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with SwfService(tmp_path_factory.mktemp("swf")) as service:
        yield caller.make_client(service.endpoint())


@pytest.fixture(scope="module")
def moto() -> Iterator[Any]:
    with mock_aws():
        yield caller.make_client()


@pytest.mark.parametrize("script", SCRIPTS)
def test_both_keep_the_same_history(mine: Any, moto: Any, script: Callable[[Caller], str]) -> None:
    domain = script.__name__
    found, theirs = (plain(each, script(each)) for each in (Caller(mine, domain), Caller(moto, domain)))
    assert [kind for kind, _ in found] == [MISSPELT.get(kind, kind) for kind, _ in theirs]
    for (kind, attributes), (their_kind, others) in zip(found, theirs, strict=True):
        if their_kind not in MISSPELT:
            left_out = LEFT_OUT.get(kind, set()) - set(others)
            assert {name: value for name, value in attributes.items() if name not in left_out} == others, kind


def test_both_refuse_the_same_calls_alike(mine: Any, moto: Any) -> None:
    found, theirs = (answers(Caller(each, "refused")) for each in (mine, moto))
    assert {name: fault for name, fault in found.items() if name not in TAKEN} == {
        name: fault for name, fault in theirs.items() if name not in TAKEN
    }
    assert {name for name in CALLS if not theirs[name]} == TAKEN


def plain(swf: Caller, run: str) -> Events:
    """The history without times."""
    return [
        (event["eventType"], next((value for name, value in event.items() if name.endswith("Attributes")), {}))
        for event in swf.history(run)
    ]
