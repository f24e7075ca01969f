"""The SWF of tests does what the reference of the real one says (its API, and the developer guide)."""

from __future__ import annotations

import threading
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ConnectionClosedError

from tests.conftest import wait_for
from tests.queues.swf import caller
from tests.queues.swf.caller import Caller, refused
from tests.queues.swf.calls import CALLS, answers
from tests.queues.swf.faults import Faults
from tests.queues.swf.service import SwfService

if TYPE_CHECKING:
    from collections.abc import Iterator

_numbers = count(1)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SwfService]:
    with SwfService(tmp_path_factory.mktemp("swf"), poll=0.2) as running:
        yield running


@pytest.fixture(scope="module")
def client(service: SwfService) -> Any:
    return caller.make_client(service.endpoint())


@pytest.fixture
def swf(client: Any, service: SwfService) -> Iterator[Caller]:
    yield Caller(client, f"d{next(_numbers)}")
    service.set()


def attributes(event: dict[str, Any]) -> dict[str, Any]:
    kind = event["eventType"]
    found: dict[str, Any] = event[f"{kind[0].lower()}{kind[1:]}EventAttributes"]
    return found


# -- the whole way of a delivery ------------------------------------------------------------------------------------


def test_a_delivery_that_fails_twice_is_put_aside_by_a_new_run_with_a_tag_and_kicked_by_a_signal(
    swf: Caller, service: SwfService
) -> None:
    first = swf.start(tagList=["pings"], input="body")
    swf.decide(caller.schedule(1, input="body"))
    task = swf.work()
    assert (task["activityId"], task["input"], task["workflowExecution"]["runId"]) == ("attempt 1", "body", first)
    swf.fail(task, "retry")
    swf.decide(caller.timer("retry 1", 60))
    assert swf.work().get("taskToken") is None
    service.skip(60)
    swf.decide(caller.schedule(2))
    swf.fail(swf.work(), "bury")
    swf.decide(caller.continue_as_new("pings", "buried", input="the story"))
    assert swf.types(first) == [
        "WorkflowExecutionStarted",
        *("DecisionTaskScheduled", "DecisionTaskStarted", "DecisionTaskCompleted"),
        *("ActivityTaskScheduled", "ActivityTaskStarted", "ActivityTaskFailed"),
        *("DecisionTaskScheduled", "DecisionTaskStarted", "DecisionTaskCompleted", "TimerStarted", "TimerFired"),
        *("DecisionTaskScheduled", "DecisionTaskStarted", "DecisionTaskCompleted"),
        *("ActivityTaskScheduled", "ActivityTaskStarted", "ActivityTaskFailed"),
        *("DecisionTaskScheduled", "DecisionTaskStarted", "DecisionTaskCompleted"),
        "WorkflowExecutionContinuedAsNew",
    ]
    assert swf.open(tagFilter={"tag": "buried"}) == ["one"]
    following = attributes(swf.history(first)[-1])["newExecutionRunId"]
    began = attributes(swf.history(following)[0])
    assert (began["continuedExecutionRunId"], began["input"], began["tagList"]) == (
        first, "the story", ["pings", "buried"],
    )  # fmt: skip
    swf.decide()
    swf.signal("kick")
    assert attributes(swf.decide(caller.schedule(1))["events"][-3])["signalName"] == "kick"
    swf.complete(swf.work())
    swf.decide(caller.complete())
    assert swf.open() == []
    assert swf.closed() == [("one", "COMPLETED"), ("one", "CONTINUED_AS_NEW")]


# -- decisions ------------------------------------------------------------------------------------------------------


def test_what_happens_while_a_decision_is_made_fails_its_close_and_needs_another_decision(swf: Caller) -> None:
    run = swf.start()
    for closing in (caller.complete(), caller.fail(), caller.cancel(), caller.continue_as_new("buried")):
        task = swf.poll_decision()
        swf.signal("kick", input="now")
        # one decision task at a time
        assert swf.poll_decision().get("taskToken") is None
        swf.decide(caller.marker("seen"), closing, task=task)
        last = swf.history(run)[-2]
        assert last["eventType"] == f"{closing['decisionType']}Failed"
        assert attributes(last)["cause"] == "UNHANDLED_DECISION"
        assert swf.types(run)[-1] == "DecisionTaskScheduled"
    swf.decide(caller.complete())
    assert swf.open() == []


def test_a_decision_that_takes_too_long_is_asked_for_again_and_refused_then(swf: Caller, service: SwfService) -> None:
    run = swf.start(taskStartToCloseTimeout="20")
    late = swf.poll_decision()
    service.skip(20)
    again = swf.poll_decision()
    assert swf.types(run)[3:] == ["DecisionTaskTimedOut", "DecisionTaskScheduled", "DecisionTaskStarted"]
    assert again["previousStartedEventId"] == late["startedEventId"]
    assert refused(swf.decide, task=late) == "UnknownResourceFault"
    swf.decide(caller.complete(), task=again)
    assert refused(swf.decide, task=again) == "UnknownResourceFault"


@pytest.mark.parametrize(
    ("decision", "cause"),
    [
        (caller.schedule(1), "ACTIVITY_ID_ALREADY_IN_USE"),
        (caller.schedule(2, activityType={"name": "other", "version": "1"}), "ACTIVITY_TYPE_DOES_NOT_EXIST"),
        (caller.timer("t", 5), "TIMER_ID_ALREADY_IN_USE"),
        (caller.cancel_timer("other"), "TIMER_ID_UNKNOWN"),
        (caller.cancel_activity(3), "ACTIVITY_ID_UNKNOWN"),
        (caller.continue_as_new(workflowTypeVersion="9"), "WORKFLOW_TYPE_DOES_NOT_EXIST"),
    ],
)
def test_a_decision_that_cannot_be_carried_out_is_an_event_and_asks_again(
    swf: Caller, decision: dict[str, Any], cause: str
) -> None:
    run = swf.start()
    swf.decide(caller.schedule(1), caller.timer("t", 3600))
    swf.signal("go on")
    swf.decide(decision)
    failed, again = swf.history(run)[-2:]
    assert (failed["eventType"], again["eventType"]) == (f"{decision['decisionType']}Failed", "DecisionTaskScheduled")
    assert attributes(failed)["cause"] == cause


def test_a_task_that_nobody_began_is_cancelled_at_once_and_one_that_runs_hears_of_it(swf: Caller) -> None:
    run = swf.start()
    swf.decide(caller.schedule(1), caller.schedule(2))
    running = swf.work()
    swf.client.request_cancel_workflow_execution(domain=swf.domain, workflowId="one")
    swf.decide(caller.cancel_activity(1), caller.cancel_activity(2))
    assert swf.client.record_activity_task_heartbeat(taskToken=running["taskToken"])["cancelRequested"]
    swf.client.respond_activity_task_canceled(taskToken=running["taskToken"], details="stopped")
    found = swf.types(run)
    assert (found.count("ActivityTaskCancelRequested"), found.count("ActivityTaskCanceled")) == (2, 2)
    assert swf.work().get("taskToken") is None
    swf.decide(caller.cancel())
    assert swf.closed() == [("one", "CANCELED")]


def test_a_cancelled_timer_does_not_fire_and_its_name_is_free(swf: Caller, service: SwfService) -> None:
    run = swf.start()
    swf.decide(caller.timer("t", 10), caller.cancel_timer("t"), caller.timer("t", 100))
    service.skip(50)
    assert swf.poll_decision().get("taskToken") is None
    service.skip(50)
    assert swf.decide(caller.complete())["events"][-3]["eventType"] == "TimerFired"
    assert swf.types(run).count("TimerCanceled") == 1


# -- time -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("begun", "name", "kind"),
    [
        (True, "heartbeatTimeout", "HEARTBEAT"),
        (True, "startToCloseTimeout", "START_TO_CLOSE"),
        (True, "scheduleToCloseTimeout", "SCHEDULE_TO_CLOSE"),
        (False, "scheduleToCloseTimeout", "SCHEDULE_TO_CLOSE"),
        (False, "scheduleToStartTimeout", "SCHEDULE_TO_START"),
        (False, "heartbeatTimeout", ""),
        (False, "startToCloseTimeout", ""),
        (True, "scheduleToStartTimeout", ""),
    ],
)
def test_a_task_times_out_for_each_reason_and_its_late_word_is_refused(
    swf: Caller, service: SwfService, begun: bool, name: str, kind: str
) -> None:
    run = swf.start()
    swf.decide(caller.schedule(1, **{name: "10"}))
    task = swf.work() if begun else None
    if task:
        beat = swf.client.record_activity_task_heartbeat(taskToken=task["taskToken"], details="half")
        assert not beat["cancelRequested"]
    service.skip(10)
    wait_for(lambda: not kind or "ActivityTaskTimedOut" in swf.types(run), "it to time out")
    if not kind:
        assert "ActivityTaskTimedOut" not in swf.types(run)
        return
    told = attributes(swf.history(run)[-2])
    assert (told["timeoutType"], told.get("details")) == (kind, "half" if task else None)
    if task:
        assert refused(swf.complete, task) == "UnknownResourceFault"
        assert refused(swf.client.record_activity_task_heartbeat, taskToken=task["taskToken"]) == "UnknownResourceFault"
    assert swf.work().get("taskToken") is None


def test_heartbeats_keep_a_task(swf: Caller, service: SwfService) -> None:
    swf.start()
    swf.decide(caller.schedule(1, heartbeatTimeout="20"))
    task = swf.work()
    for _ in range(3):
        service.skip(12)
        swf.client.record_activity_task_heartbeat(taskToken=task["taskToken"])
    swf.complete(task)


def test_an_execution_ends_by_time_with_all_that_is_open_in_it(swf: Caller, service: SwfService) -> None:
    run = swf.start(executionStartToCloseTimeout="100")
    swf.decide(caller.schedule(1))
    task = swf.work()
    service.skip(100)
    wait_for(lambda: swf.types(run)[-1] == "WorkflowExecutionTimedOut", "its end")
    assert refused(swf.complete, task) == "UnknownResourceFault"
    assert refused(swf.signal, "kick") == "UnknownResourceFault"
    assert swf.closed() == [("one", "TIMED_OUT")]
    swf.start()


def test_what_is_closed_is_kept_for_its_days(client: Any, service: SwfService) -> None:
    for retention, found in (("2", [("one", "TERMINATED")]), ("0", []), ("NONE", [])):
        swf = Caller(client, f"d{next(_numbers)}", retention=retention)
        run = swf.start()
        client.terminate_workflow_execution(domain=swf.domain, workflowId="one", reason="an operator")
        wait_for(lambda swf=swf, found=found: swf.closed() == found, "it to be kept, or not")
        service.skip(2 * 86_400)
        wait_for(lambda swf=swf, run=run: refused(swf.history, run) == "UnknownResourceFault", "it to be forgotten")


# -- lists ----------------------------------------------------------------------------------------------------------


def test_open_ones_are_listed_and_counted_by_one_filter_in_pages_newest_first(swf: Caller) -> None:
    for number in range(5):
        swf.start(f"w{number}", tagList=["pings", "even" if number % 2 == 0 else "odd"])
    assert swf.open() == ["w4", "w3", "w2", "w1", "w0"]
    assert swf.open(reverseOrder=True, tagFilter={"tag": "even"}) == ["w0", "w2", "w4"]
    assert swf.open(executionFilter={"workflowId": "w3"}) == ["w3"]
    assert swf.open(typeFilter={"name": "other"}) == []
    asked: dict[str, Any] = {"domain": swf.domain, "startTimeFilter": caller.EVER, "maximumPageSize": 2}
    found, token = [], None
    while token != "":
        more = {"nextPageToken": token} if token else {}
        page = swf.client.list_open_workflow_executions(**asked, **more)
        found.append([each["execution"]["workflowId"] for each in page["executionInfos"]])
        token = page.get("nextPageToken", "")
    assert found == [["w4", "w3"], ["w2", "w1"], ["w0"]]
    counted = swf.client.count_open_workflow_executions(
        domain=swf.domain, startTimeFilter=caller.EVER, tagFilter={"tag": "odd"}
    )
    assert (counted["count"], counted["truncated"]) == (2, False)
    both = {"tagFilter": {"tag": "odd"}, "typeFilter": {"name": "glassq"}}
    assert refused(swf.open, **both) == "ValidationException"
    swf.client.terminate_workflow_execution(domain=swf.domain, workflowId="w1")
    assert swf.closed(closeStatusFilter={"status": "TERMINATED"}) == [("w1", "TERMINATED")]
    assert swf.closed(closeStatusFilter={"status": "FAILED"}) == []
    closed = swf.client.count_closed_workflow_executions(domain=swf.domain, closeTimeFilter=caller.EVER)
    assert closed["count"] == 1


def test_histories_come_in_pages_either_way_and_those_of_decisions_too(swf: Caller) -> None:
    run = swf.start()
    for _ in range(4):
        swf.signal("kick")
    assert [event["eventId"] for event in swf.history(run, reverseOrder=True)] == [6, 5, 4, 3, 2, 1]
    task = swf.poll_decision(maximumPageSize=3)
    rest = swf.poll_decision(maximumPageSize=3, nextPageToken=task["nextPageToken"])
    last = swf.poll_decision(maximumPageSize=3, nextPageToken=rest["nextPageToken"])
    pages = [[event["eventId"] for event in page["events"]] for page in (task, rest, last)]
    assert pages == [[1, 2, 3], [4, 5, 6], [7]]
    assert {page["taskToken"] for page in (task, rest, last)} == {task["taskToken"]}
    swf.decide(task=task)
    swf.signal("kick")
    since = swf.poll_decision(startAtPreviousStartedEvent=True)
    assert since["events"][0]["eventId"] == task["startedEventId"]


def test_only_tasks_that_nobody_has_are_pending(swf: Caller) -> None:
    def pending() -> tuple[int, int]:
        named = {"domain": swf.domain, "taskList": {"name": "work"}}
        counted = (swf.client.count_pending_decision_tasks, swf.client.count_pending_activity_tasks)
        decisions, activities = (each(**named)["count"] for each in counted)
        return decisions, activities

    run = swf.start()
    assert pending() == (1, 0)
    swf.decide(caller.schedule(1))
    assert pending() == (0, 1)
    swf.work()
    described = swf.client.describe_workflow_execution(domain=swf.domain, execution={"workflowId": "one", "runId": run})
    assert described["openCounts"]["openActivityTasks"] == 1
    assert pending() == (0, 0)


# -- what is refused ------------------------------------------------------------------------------------------------


def test_what_the_service_does_not_take_has_its_own_fault(swf: Caller) -> None:
    assert answers(swf) == {name: expected for name, (_, expected) in CALLS.items()}


def test_limits_of_executions_events_and_rates(swf: Caller, service: SwfService) -> None:
    swf.start("a")
    service.set(Faults(open_limit=1))
    assert refused(swf.start, "b") == "LimitExceededFault"
    service.set(Faults(event_limit=4))
    swf.signal("kick", "a")
    swf.signal("kick", "a")
    assert swf.closed() == [("a", "TERMINATED")]
    # the real rate of counting is six a second, after 200
    service.set(Faults(rates=0.01))
    found = [refused(swf.open) for _ in range(4)]
    assert (found[0], found[-1]) == ("", "ThrottlingException")
    service.set(Faults(refuse=frozenset({"StartWorkflowExecution"})))
    assert refused(swf.start, "b") == "OperationNotPermittedFault"


# -- what is hostile ------------------------------------------------------------------------------------------------


def test_who_polls_is_woken_by_what_comes(swf: Caller, service: SwfService) -> None:
    service.ask("faults", b'{"poll": 30}')
    found: list[dict[str, Any]] = []
    thread = threading.Thread(target=lambda: found.append(swf.work()))
    thread.start()
    wait_for(lambda: service.truth().waiting.get(f"activity {swf.domain} work"), "a poll to wait")
    swf.start()
    swf.decide(caller.schedule(1))
    thread.join()
    assert [each["activityId"] for each in found] == ["attempt 1"]


def test_an_answer_that_is_cut_off_was_carried_out_and_is_noted(swf: Caller, service: SwfService) -> None:
    key = "01939d5a-7b3c-7def-8123-456789abcdef"
    service.set(Faults(cut=1.0))
    with pytest.raises(ConnectionClosedError):
        swf.start(key)
    service.set(Faults(cut_before=1.0))
    with pytest.raises(ConnectionClosedError):
        swf.start("two")
    service.set()
    assert swf.open() == [key]
    assert service.done_to()[key] == {"the answer to StartWorkflowExecution was cut off": 1}
    swf.decide(caller.schedule(1, heartbeatTimeout="10"))
    service.set(Faults(cut=1.0))
    with pytest.raises(ConnectionClosedError):
        swf.work()
    service.set()
    # nobody has it, and nobody else gets it until its time is over
    assert swf.work().get("taskToken") is None
    service.skip(10)
    assert swf.decide(caller.complete())["events"][-3]["eventType"] == "ActivityTaskTimedOut"
    assert service.done_to()[key]["the answer to PollForActivityTask was cut off"] == 1


def test_decisions_may_be_too_many_in_the_history_and_lists_may_be_late(swf: Caller, service: SwfService) -> None:
    run = swf.start()
    service.set(Faults(refuse_decisions=1.0))
    for decision in (caller.schedule(1), caller.timer("t", 1), caller.continue_as_new("x")):
        swf.decide(decision)
        assert "RATE_EXCEEDED" in attributes(swf.history(run)[-2])["cause"]
    service.set(Faults(stale=1e9, seed=1))
    assert (swf.open(), swf.history(run)) == ([], [])
