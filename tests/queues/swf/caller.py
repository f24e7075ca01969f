"""Who calls SWF as the reference says, through botocore: a decider, a worker and an operator in one."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import botocore.session
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.queues.aws.service import REGION

# Since ever.
EVER = {"oldestDate": datetime(2020, 1, 1, tzinfo=UTC)}
TYPE = {"name": "glassq", "version": "1"}
_TIMES = dict.fromkeys(("ScheduleToStart", "ScheduleToClose", "StartToClose", "Heartbeat"), "NONE")
Decision = dict[str, Any]


def make_client(endpoint: str | None = None) -> Any:
    """A client that repeats nothing by itself."""
    session = botocore.session.Session()
    session.set_credentials("testing", "testing")
    config = Config(retries={"total_max_attempts": 1}, read_timeout=60, parameter_validation=False)
    return session.create_client("swf", region_name=REGION, endpoint_url=endpoint, config=config)


class Caller:
    """One domain, with one type of workflow and one of activity, and the list "work" for all of its tasks."""

    def __init__(self, client: Any, domain: str, *, retention: str = "1", decision_timeout: str = "30") -> None:
        self.client, self.domain = client, domain
        # a task that a decider keeps
        self.held: dict[str, Any] = {}
        client.register_domain(name=domain, workflowExecutionRetentionPeriodInDays=retention)
        client.register_workflow_type(
            domain=domain,
            **TYPE,
            defaultTaskList={"name": "work"},
            defaultChildPolicy="TERMINATE",
            defaultTaskStartToCloseTimeout=decision_timeout,
            defaultExecutionStartToCloseTimeout="31536000",
        )
        times = {f"defaultTask{name}Timeout": value for name, value in _TIMES.items()}
        client.register_activity_type(domain=domain, **TYPE, defaultTaskList={"name": "work"}, **times)

    def start(self, workflow_id: str = "one", **more: Any) -> str:
        """The id of the run."""
        asked = {"domain": self.domain, "workflowId": workflow_id, "workflowType": TYPE, **more}
        return str(self.client.start_workflow_execution(**asked)["runId"])

    def poll_decision(self, **more: Any) -> dict[str, Any]:
        found: dict[str, Any] = self.client.poll_for_decision_task(
            domain=self.domain, taskList={"name": "work"}, identity="decider", **more
        )
        return found

    def decide(self, *decisions: Decision, task: dict[str, Any] | None = None) -> dict[str, Any]:
        """Takes the next decision task, or this one, and decides so; what it was."""
        task = task or self.poll_decision()
        self.client.respond_decision_task_completed(taskToken=task["taskToken"], decisions=list(decisions))
        return task

    def work(self, **more: Any) -> dict[str, Any]:
        """The next task of a worker; without a token there was none."""
        found: dict[str, Any] = self.client.poll_for_activity_task(
            domain=self.domain, taskList={"name": "work"}, identity="worker", **more
        )
        return found

    def fail(self, task: dict[str, Any], reason: str, details: str = "evidence") -> None:
        self.client.respond_activity_task_failed(taskToken=task["taskToken"], reason=reason, details=details)

    def complete(self, task: dict[str, Any], result: str = "done") -> None:
        self.client.respond_activity_task_completed(taskToken=task["taskToken"], result=result)

    def signal(self, name: str, workflow_id: str = "one", **more: Any) -> None:
        self.client.signal_workflow_execution(domain=self.domain, workflowId=workflow_id, signalName=name, **more)

    def history(self, run: str, workflow_id: str = "one", **more: Any) -> list[dict[str, Any]]:
        execution = {"workflowId": workflow_id, "runId": run}
        answer = self.client.get_workflow_execution_history(domain=self.domain, execution=execution, **more)
        events: list[dict[str, Any]] = answer["events"]
        return events

    def types(self, run: str, workflow_id: str = "one") -> list[str]:
        return [event["eventType"] for event in self.history(run, workflow_id)]

    def open(self, **more: Any) -> list[str]:
        """The ids of the open executions that these filters let through."""
        asked = {"domain": self.domain, "startTimeFilter": EVER, **more}
        return [
            each["execution"]["workflowId"]
            for each in self.client.list_open_workflow_executions(**asked)["executionInfos"]
        ]

    def closed(self, **more: Any) -> list[tuple[str, str]]:
        """The ids of the closed ones, and how each was closed."""
        asked = {"domain": self.domain, "startTimeFilter": EVER, **more}
        infos = self.client.list_closed_workflow_executions(**asked)["executionInfos"]
        return [(each["execution"]["workflowId"], each["closeStatus"]) for each in infos]


def schedule(number: int = 1, **more: Any) -> Decision:
    attributes = {"activityType": TYPE, "activityId": f"attempt {number}", **more}
    return {"decisionType": "ScheduleActivityTask", "scheduleActivityTaskDecisionAttributes": attributes}


def timer(name: str, seconds: int) -> Decision:
    attributes = {"timerId": name, "startToFireTimeout": str(seconds)}
    return {"decisionType": "StartTimer", "startTimerDecisionAttributes": attributes}


def cancel_timer(name: str) -> Decision:
    return {"decisionType": "CancelTimer", "cancelTimerDecisionAttributes": {"timerId": name}}


def cancel_activity(number: int) -> Decision:
    attributes = {"activityId": f"attempt {number}"}
    return {"decisionType": "RequestCancelActivityTask", "requestCancelActivityTaskDecisionAttributes": attributes}


def marker(name: str) -> Decision:
    return {"decisionType": "RecordMarker", "recordMarkerDecisionAttributes": {"markerName": name, "details": "x"}}


def complete() -> Decision:
    attributes = {"result": "done"}
    return {"decisionType": "CompleteWorkflowExecution", "completeWorkflowExecutionDecisionAttributes": attributes}


def fail() -> Decision:
    attributes = {"reason": "why", "details": "more"}
    return {"decisionType": "FailWorkflowExecution", "failWorkflowExecutionDecisionAttributes": attributes}


def cancel() -> Decision:
    attributes = {"details": "more"}
    return {"decisionType": "CancelWorkflowExecution", "cancelWorkflowExecutionDecisionAttributes": attributes}


def continue_as_new(*tags: str, **more: Any) -> Decision:
    attributes = {"tagList": list(tags), **more}
    key = "continueAsNewWorkflowExecutionDecisionAttributes"
    return {"decisionType": "ContinueAsNewWorkflowExecution", key: attributes}


def refused(call: Any, *arguments: Any, **asked: Any) -> str:
    """The name of the fault that a call is answered with; "" if it is done."""
    try:
        call(*arguments, **asked)
    except ClientError as error:
        return str(error.response["Error"]["Code"])
    return ""
