"""Amazon SWF for tests: a server that keeps histories as the service does, and is as hostile as it may be.

Run as `python -m tests.queues.swf.server PORT`; it listens on 127.0.0.1, speaks AWS JSON 1.0, and keeps all in memory.
Calls and answers are checked against botocore's description of the service. Tests may ask for `POST /glassq/truth` (all
executions as they are now, and who polls), `/glassq/skip` (so many seconds pass at once) and `/glassq/clear` (a
domain has no executions any more).

Not done, as glassq asks for none of it: child workflows, signals and cancels between executions, Lambda functions,
priorities, another list for decisions, tags of domains, deprecated domains, types that are deleted.
"""

from __future__ import annotations

import base64
import binascii
import json
import sys
import threading
import time
import uuid
from collections import Counter
from typing import TYPE_CHECKING, Any, TypeVar

from botocore import xform_name

from tests.queues.aws.front import Front, error, is_gone, serve
from tests.queues.swf import decisions
from tests.queues.swf.clock import Clock
from tests.queues.swf.domain import Domain
from tests.queues.swf.faults import Faults, SwfFault, fault, invalid
from tests.queues.swf.listing import chosen, info_of
from tests.queues.swf.rates import Rates
from tests.queues.swf.shapes import check_answer, check_question

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from tests.queues.aws.front import Answer, Environ
    from tests.queues.swf.domain import Kind, SwfType
    from tests.queues.swf.run import Run
    from tests.queues.swf.tasks import ActivityTask

    Asked = dict[str, Any]

T = TypeVar("T")
# How often a poll looks whether its client is still there, and the clock what is due, at least; in seconds.
_TICK = 0.1
# How often it is looked whether all is decided, at least; in seconds.
_SOON = 0.01
_PAGE = 1000


class SwfFront(Front[Faults]):
    """The service of one account in one region. It carries out one call at a time; only polls wait."""

    throttled = ("com.amazon.coral.availability#ThrottlingException", "Rate exceeded")

    def __init__(self) -> None:
        super().__init__(Faults())
        self._clock, self._rates = Clock(), Rates()
        self._domains: dict[str, Domain] = {}
        self._waiting: Counter[str] = Counter()
        # what is left of answers that have further pages, by their tokens
        self._pages: dict[str, tuple[dict[str, Any], str, list[Any]]] = {}
        threading.Thread(target=self._tick, daemon=True).start()

    # -- what tests ask ---------------------------------------------------------------------------------------------

    def told(self, what: str, body: bytes) -> object:
        if what == "truth":
            return {"waiting": self._waiting, "runs": [_as_it_is(run) for run in self._all_runs()]}
        if what == "decided":
            end = time.monotonic() + json.loads(body)
            while (undecided := self._is_anything_undecided()) and time.monotonic() < end:
                self.changed.wait(_SOON)
            return not undecided
        if what == "lease-left":
            return self._lease_left(json.loads(body))
        if what == "skip":
            self._clock.skip(json.loads(body))
            self.changed.notify_all()
        elif what == "clear" and (domain := self._domains.get(json.loads(body))):
            domain.clear()
        return super().told(what, body)

    def concerned(self, action: str, asked: Asked, answer: Answer | None) -> list[str]:
        if answer is not None:
            return [json.loads(answer[1]).get("workflowExecution", {}).get("workflowId", "")]
        if "taskToken" not in asked:
            return [asked["workflowId"]] if "workflowId" in asked else []
        try:
            return [_of_token(asked)[1]]
        except SwfFault:
            return []

    # -- calls ------------------------------------------------------------------------------------------------------

    def carry_out(self, action: str, asked: Asked, environ: Environ, client: socket.socket) -> Answer:
        try:
            check_question(action, asked)
            if self.faults.refuse and self.faults.refuse & _all_names(action, asked):
                raise fault("OperationNotPermittedFault", f"User is not authorized to perform: swf:{action}")
            with self.changed:
                if not self._rates.allow(action, self._clock.now(), self.faults.rates):
                    return error(400, *self.throttled)
                answer = self._does(action)(asked, client)
            check_answer(action, answer)
        except SwfFault as refused:
            return error(400, refused.kind, refused.message)
        return 200, json.dumps(answer if answer is not None else {}).encode()

    def _does(self, action: str) -> Callable[[Asked, socket.socket], dict[str, Any] | None]:
        found: Callable[[Asked, socket.socket], dict[str, Any] | None] | None = getattr(self, xform_name(action), None)
        if found is None:
            raise invalid(f"{action} is nothing that this server does")
        return found

    # domains and types

    def register_domain(self, asked: Asked, _: object) -> None:
        if asked["name"] in self._domains:
            raise fault("DomainAlreadyExistsFault", asked["name"])
        kept = asked["workflowExecutionRetentionPeriodInDays"]
        if kept != "NONE" and not (kept.isdigit() and int(kept) <= 90):
            raise invalid(f"Value '{kept}' at 'workflowExecutionRetentionPeriodInDays' is no number up to 90")
        self._domains[asked["name"]] = Domain(asked, self._clock, lambda: self.faults, self.random.random)

    def describe_domain(self, asked: Asked, _: object) -> dict[str, Any]:
        domain = self._domain(asked["name"])
        kept = {"workflowExecutionRetentionPeriodInDays": domain.retention}
        return {"domainInfo": _domain_info(domain), "configuration": kept}

    def list_domains(self, asked: Asked, _: object) -> dict[str, Any]:
        found = sorted(self._domains) if asked["registrationStatus"] == "REGISTERED" else []
        return self._page({}, "domainInfos", [_domain_info(self._domains[name]) for name in found], asked)

    def register_workflow_type(self, asked: Asked, _: object) -> None:
        self._domain(asked["domain"]).register("WorkflowType", asked)

    def register_activity_type(self, asked: Asked, _: object) -> None:
        self._domain(asked["domain"]).register("ActivityType", asked)

    def describe_workflow_type(self, asked: Asked, _: object) -> dict[str, Any]:
        return _told(self._domain(asked["domain"]).type("WorkflowType", asked["workflowType"]))

    def describe_activity_type(self, asked: Asked, _: object) -> dict[str, Any]:
        return _told(self._domain(asked["domain"]).type("ActivityType", asked["activityType"]))

    def deprecate_workflow_type(self, asked: Asked, _: object) -> None:
        self._deprecate(self._domain(asked["domain"]).type("WorkflowType", asked["workflowType"]))

    def deprecate_activity_type(self, asked: Asked, _: object) -> None:
        self._deprecate(self._domain(asked["domain"]).type("ActivityType", asked["activityType"]))

    def list_workflow_types(self, asked: Asked, _: object) -> dict[str, Any]:
        return self._types("WorkflowType", asked)

    def list_activity_types(self, asked: Asked, _: object) -> dict[str, Any]:
        return self._types("ActivityType", asked)

    # executions

    def start_workflow_execution(self, asked: Asked, _: object) -> dict[str, Any]:
        run = self._domain(asked["domain"]).start(asked)
        self.changed.notify_all()
        return {"runId": run.id}

    def signal_workflow_execution(self, asked: Asked, _: object) -> None:
        self._open_run(asked).signal(asked["signalName"], asked.get("input"))
        self.changed.notify_all()

    def request_cancel_workflow_execution(self, asked: Asked, _: object) -> None:
        self._open_run(asked).ask_cancel()
        self.changed.notify_all()

    def terminate_workflow_execution(self, asked: Asked, _: object) -> None:
        self._open_run(asked).terminate(asked)

    def describe_workflow_execution(self, asked: Asked, _: object) -> dict[str, Any]:
        run = self._domain(asked["domain"]).run(asked["execution"])
        names = ("taskList", "executionStartToCloseTimeout", "taskStartToCloseTimeout", "childPolicy")
        open_counts = {
            "openActivityTasks": len(run.activities),
            "openDecisionTasks": int(run.decision is not None),
            "openTimers": len(run.timers),
            "openChildWorkflowExecutions": 0,
            "openLambdaFunctions": 0,
        }
        more = {"latestActivityTaskTimestamp": run.last_activity, "latestExecutionContext": run.context}
        return {
            "executionInfo": info_of(run),
            "executionConfiguration": {name: run.plan.attributes[name] for name in names},
            "openCounts": open_counts,
            **{name: value for name, value in more.items() if value is not None},
        }

    def get_workflow_execution_history(self, asked: Asked, _: object) -> dict[str, Any]:
        run = self._domain(asked["domain"]).run(asked["execution"])
        seen = self._seen()
        events = [event for event in run.events if event["eventTimestamp"] <= seen]
        return self._page({}, "events", events[::-1] if asked.get("reverseOrder") else events, asked)

    def list_open_workflow_executions(self, asked: Asked, _: object) -> dict[str, Any]:
        return self._page({}, "executionInfos", self._listed(asked, closed=False), asked)

    def list_closed_workflow_executions(self, asked: Asked, _: object) -> dict[str, Any]:
        return self._page({}, "executionInfos", self._listed(asked, closed=True), asked)

    def count_open_workflow_executions(self, asked: Asked, _: object) -> dict[str, Any]:
        return {"count": len(self._listed(asked, closed=False)), "truncated": False}

    def count_closed_workflow_executions(self, asked: Asked, _: object) -> dict[str, Any]:
        return {"count": len(self._listed(asked, closed=True)), "truncated": False}

    # tasks

    def count_pending_activity_tasks(self, asked: Asked, _: object) -> dict[str, Any]:
        name = asked["taskList"]["name"]
        return {"count": self._domain(asked["domain"]).pending_activities(name), "truncated": False}

    def count_pending_decision_tasks(self, asked: Asked, _: object) -> dict[str, Any]:
        name = asked["taskList"]["name"]
        return {"count": self._domain(asked["domain"]).pending_decisions(name), "truncated": False}

    def poll_for_decision_task(self, asked: Asked, client: socket.socket) -> dict[str, Any]:
        if asked.get("nextPageToken"):
            return self._page({}, "events", [], asked)
        task = self._polled("decision", Domain.take_decision, asked, client)
        if task is None:
            return {"startedEventId": 0, "previousStartedEventId": 0}
        run = task.run
        previous = run.begin_decision(task, asked.get("identity"))
        events = run.events[previous - 1 if asked.get("startAtPreviousStartedEvent") and previous else 0 :]
        head = {
            "taskToken": _token(asked, run, task.scheduled),
            "startedEventId": task.started,
            "previousStartedEventId": previous,
            "workflowExecution": run.execution,
            "workflowType": run.plan.workflow_type,
        }
        return self._page(head, "events", events[::-1] if asked.get("reverseOrder") else list(events), asked)

    def respond_decision_task_completed(self, asked: Asked, _: object) -> None:
        made = asked.get("decisions") or []
        decisions.check(made)
        run, scheduled = self._run_of(asked)
        task = run.decision
        if task is None or task.scheduled != scheduled or not task.started:
            raise fault("UnknownResourceFault", f"Unknown decision task, scheduledEventId = {scheduled}")
        run.end_decision(task, made, asked.get("executionContext"))
        self.changed.notify_all()

    def poll_for_activity_task(self, asked: Asked, client: socket.socket) -> dict[str, Any]:
        task = self._polled("activity", Domain.take_activity, asked, client)
        if task is None:
            return {"startedEventId": 0}
        task.run.begin_activity(task, asked.get("identity"))
        text = task.asked.get("input")
        return {
            "taskToken": _token(asked, task.run, task.scheduled),
            "activityId": task.asked["activityId"],
            "startedEventId": task.started,
            "workflowExecution": task.run.execution,
            "activityType": task.asked["activityType"],
            **({} if text is None else {"input": text}),
        }

    def record_activity_task_heartbeat(self, asked: Asked, _: object) -> dict[str, Any]:
        task = self._activity(asked)
        return {"cancelRequested": task.run.beat(task, asked.get("details"))}

    def respond_activity_task_completed(self, asked: Asked, _: object) -> None:
        self._end(asked, "Completed", result=asked.get("result"))

    def respond_activity_task_failed(self, asked: Asked, _: object) -> None:
        self._end(asked, "Failed", reason=asked.get("reason"), details=asked.get("details"))

    def respond_activity_task_canceled(self, asked: Asked, _: object) -> None:
        latest = self._activity(asked).cancel or None
        self._end(asked, "Canceled", details=asked.get("details"), latestCancelRequestedEventId=latest)

    # -- their parts ------------------------------------------------------------------------------------------------

    def _domain(self, name: str) -> Domain:
        if name not in self._domains:
            raise fault("UnknownResourceFault", f"Unknown domain: {name}")
        return self._domains[name]

    def _open_run(self, asked: Asked) -> Run:
        return self._domain(asked["domain"]).open_run(asked)

    def _run_of(self, asked: Asked) -> tuple[Run, int]:
        """The open execution that a task's token is of, and the number of the event that scheduled the task."""
        domain, workflow_id, run_id, scheduled = _of_token(asked)
        return self._domain(domain).open_run({"workflowId": workflow_id, "runId": run_id}), int(scheduled)

    def _activity(self, asked: Asked) -> ActivityTask:
        run, scheduled = self._run_of(asked)
        task = run.activities.get(scheduled)
        if task is None or not task.started:
            raise fault("UnknownResourceFault", f"Unknown activity, scheduledEventId = {scheduled}")
        return task

    def _end(self, asked: Asked, how: str, **attributes: Any) -> None:
        task = self._activity(asked)
        task.run.end_activity(task, how, **attributes)
        self.changed.notify_all()

    def _polled(
        self, kind: str, take: Callable[[Domain, str], T | None], asked: Asked, client: socket.socket
    ) -> T | None:
        """The next task of a list; None if none came in the time of a poll, or its client is gone by then."""
        began = time.monotonic()
        name = asked["taskList"]["name"]
        key = f"{kind} {asked['domain']} {name}"
        if self._waiting[key] >= 1000:
            raise fault("LimitExceededFault", "Too many polls at this list")
        self._waiting[key] += 1
        try:
            while True:
                domain = self._domain(asked["domain"])
                if not self.faults.zombies and is_gone(client):
                    return None
                task = take(domain, name)
                # tests may make it longer while it waits
                poll = (kind == "decision" and self.faults.decider_poll) or self.faults.poll
                left = began + poll - time.monotonic()
                if task is not None or left <= 0:
                    self.calls[f"{kind} polls of nothing"] += task is None
                    return task
                self.changed.wait(min(_TICK, left))
        finally:
            self._waiting[key] -= 1

    def _listed(self, asked: Asked, *, closed: bool) -> list[dict[str, Any]]:
        domain = self._domain(asked["domain"])
        found = chosen(domain.visible(closed, self._seen()), asked, closed=closed)
        return [info_of(run, as_open=not closed) for run in found]

    def _seen(self) -> float:
        """Until when what is asked for in passing has been brought up to date."""
        stale = self.faults.stale
        return self._clock.now() - (self.random.random() * stale if stale else 0.0)

    def _types(self, kind: Kind, asked: Asked) -> dict[str, Any]:
        types = self._domain(asked["domain"]).types.values()
        wanted, name = asked["registrationStatus"], asked.get("name")
        found = [
            each.info
            for each in sorted(types, key=lambda each: (each.name["name"], each.name["version"]))
            if each.kind == kind and each.status == wanted and name in (None, each.name["name"])
        ]
        return self._page({}, "typeInfos", found[::-1] if asked.get("reverseOrder") else found, asked)

    def _deprecate(self, found: SwfType) -> None:
        if found.deprecated is not None:
            raise fault("TypeDeprecatedFault", str(found))
        found.deprecated = self._clock.now()

    def _page(self, head: dict[str, Any], name: str, whole: list[Any], asked: Asked) -> dict[str, Any]:
        """The first page of an answer, or the one that the call's token is of."""
        token, size = asked.get("nextPageToken"), asked.get("maximumPageSize") or _PAGE
        if token:
            if token not in self._pages:
                raise invalid("Invalid token")
            head, name, whole = self._pages[token]
        answer = {**head, name: whole[:size]}
        if len(whole) > size:
            answer["nextPageToken"] = uuid.uuid4().hex
            self._pages[answer["nextPageToken"]] = (head, name, whole[size:])
        return answer

    def _lease_left(self, workflow_id: str) -> float:
        for domain in self._domains.values():
            for task in domain.open[workflow_id].activities.values() if workflow_id in domain.open else ():
                if task.started and (seconds := task.timeout("HEARTBEAT")) is not None:
                    return task.beaten + seconds - self._clock.now()
        return 0.0

    def _is_anything_undecided(self) -> bool:
        """Whether an execution waits for a decider, at a list where one has been."""
        return any(
            run.decision is not None and f"decision {domain.name} {run.decision.list}" in self._waiting
            for domain in self._domains.values()
            for run in domain.open.values()
        )

    def _all_runs(self) -> list[Run]:
        return [run for domain in self._domains.values() for run in domain.runs.values()]

    def _tick(self) -> None:
        """Does what is due, for ever."""
        with self.changed:
            while True:
                if self._clock.strike():
                    self.changed.notify_all()
                self.changed.wait(self._clock.until_next(_TICK))


def _all_names(action: str, asked: Asked) -> set[str]:
    """All by which a call may be refused."""
    return {action, *(f"{action}.{name}" for name in asked), *(f"{action}.{name}={asked[name]}" for name in asked)}


def _token(asked: Asked, run: Run, scheduled: int) -> str:
    text = "\n".join([asked["domain"], run.workflow_id, run.id, str(scheduled)])
    return base64.b64encode(text.encode()).decode()


def _of_token(asked: Asked) -> tuple[str, str, str, str]:
    try:
        domain, workflow_id, run_id, scheduled = (
            base64.b64decode(asked["taskToken"], validate=True).decode().split("\n")
        )
    except (binascii.Error, ValueError):
        raise invalid("Invalid token") from None
    return domain, workflow_id, run_id, scheduled


def _domain_info(domain: Domain) -> dict[str, Any]:
    arn = f"arn:aws:swf:eu-west-1:123456789012:/domain/{domain.name}"
    known = {"name": domain.name, "status": "REGISTERED", "arn": arn}
    return known if domain.description is None else {**known, "description": domain.description}


def _told(found: SwfType) -> dict[str, Any]:
    return {"typeInfo": found.info, "configuration": found.defaults}


def _as_it_is(run: Run) -> dict[str, Any]:
    return {
        **info_of(run),
        "input": run.plan.input,
        "events": len(run.events),
        "activities": [{"list": task.list, "started": bool(task.started)} for task in run.activities.values()],
        "timers": len(run.timers),
        "decision": run.decision is not None,
    }


def main() -> None:
    serve(SwfFront(), int(sys.argv[1]))


if __name__ == "__main__":
    main()
