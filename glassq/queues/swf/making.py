"""The domain and its types: made where they are missing. Both stay: a type cannot be changed, only deprecated."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from glassq.errors import InvalidRequest, QueueError, WrongTables
from glassq.queues.swf.decider import ACTIVITY
from glassq.queues.swf.names import PAUSE_TYPE, PAUSE_VERSION, TYPE
from glassq.queues.swf.place import NAME
from glassq.queues.swf.troubles import AlreadyThere
from glassq.queues.swf.versions import DECIDERS, NEWEST

if TYPE_CHECKING:
    from glassq.queues.swf.client import SwfClient

# How long the service keeps the histories of what is closed, in days. Each costs something; 90 were the most.
RETENTION = "7"
_ACTIVITY = f"{TYPE} activity"
# A domain that was just made is known everywhere after some seconds.
_SOON = 10.0
# What producers, pools and operators call.
_ACTIONS = (
    *("StartWorkflowExecution", "SignalWorkflowExecution", "TerminateWorkflowExecution"),
    *("PollForDecisionTask", "RespondDecisionTaskCompleted", "PollForActivityTask", "RecordActivityTaskHeartbeat"),
    *("RespondActivityTaskCompleted", "RespondActivityTaskFailed", "GetWorkflowExecutionHistory"),
    *("ListOpenWorkflowExecutions", "ListClosedWorkflowExecutions", "CountPendingActivityTasks"),
    *("CountOpenWorkflowExecutions", "CountPendingDecisionTasks"),
    *("DescribeWorkflowType", "DescribeActivityType"),
)
# What an answer to PollForDecisionTask may hold is asked for as well (IAM and SWF: decisions are pseudo actions).
_DECISIONS = (*("ScheduleActivityTask", "StartTimer", "CompleteWorkflowExecution", "ContinueAsNewWorkflowExecution"),)


class SwfDomain:
    """See `glassq.queues.engine.EngineTables`: a domain with its types takes the place of tables."""

    engine = NAME
    known = int(NEWEST)
    noun, grants = "types", False

    def __init__(self, client: SwfClient) -> None:
        self._client = client

    def version(self) -> int:
        found = self.parts()
        return min(found.get(name, 0) for name in (TYPE, PAUSE_TYPE, _ACTIVITY))

    def check(self) -> None:
        if self.version() < self.known:
            place = self._client.place
            raise WrongTables(
                f"the domain {place.domain} at Amazon SWF lacks types of ours, or is not there",
                "`glassq queue init` makes them",
            )

    def upgrade(self) -> int:
        found = self.version()
        client = self._client
        with suppress(AlreadyThere):
            client.insist(
                "register_domain",
                name=client.place.domain,
                description="glassq",
                workflowExecutionRetentionPeriodInDays=RETENTION,
            )
        deadline = time.monotonic() + _SOON
        for version in DECIDERS:
            self._register("register_workflow_type", TYPE, version, deadline)
        self._register("register_workflow_type", PAUSE_TYPE, PAUSE_VERSION, deadline)
        self._register("register_activity_type", ACTIVITY["name"], ACTIVITY["version"], deadline)
        return found

    def parts(self) -> dict[str, int]:
        """The newest versions of our types that are there."""
        found = {TYPE: max((int(version) for version in DECIDERS if self._has(TYPE, version)), default=0)}
        found[PAUSE_TYPE] = self.known * self._has(PAUSE_TYPE, PAUSE_VERSION)
        found[_ACTIVITY] = self.known * self._there("describe_activity_type", activityType=ACTIVITY)
        return {name: version for name, version in found.items() if version}

    def check_role(self, role: str) -> None:
        raise InvalidRequest(
            f"rights at Amazon are given by IAM: the policy that `glassq queue init` prints is {role}'s"
        )

    def rights(self, role: str) -> list[str]:
        place = self._client.place
        statement = {
            "Effect": "Allow",
            "Action": [f"swf:{name}" for name in (*_ACTIONS, *_DECISIONS)],
            "Resource": f"arn:aws:swf:{place.region}:*:/domain/{place.domain}",
        }
        return json.dumps({"Version": "2012-10-17", "Statement": [statement]}, indent=2).splitlines()

    def grant(self, role: str) -> None:
        self.check_role(role)

    def close(self) -> None:
        self._client.close()

    def _register(self, action: str, name: str, version: str, deadline: float) -> None:
        while True:
            try:
                self._client.insist(action, name=name, version=version)
            except AlreadyThere:
                return
            except QueueError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(_SOON / 50)
            else:
                return

    def _has(self, name: str, version: str) -> bool:
        return self._there("describe_workflow_type", workflowType={"name": name, "version": version})

    def _there(self, action: str, **arguments: Any) -> bool:
        try:
            found = self._client.insist(action, **arguments)
        except WrongTables:
            return False
        return bool(found["typeInfo"]["status"] == "REGISTERED")
