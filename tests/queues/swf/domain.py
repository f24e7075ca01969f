"""A domain: its types, its executions, and the lists at which deciders and workers wait."""

from __future__ import annotations

from collections import defaultdict, deque
from typing import TYPE_CHECKING, Any, Literal

from tests.queues.swf.faults import fault, invalid
from tests.queues.swf.run import Plan, Run
from tests.queues.swf.tasks import TIMEOUTS, ActivityTask, DecisionTask

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from tests.queues.swf.clock import Clock
    from tests.queues.swf.faults import Faults

    Kind = Literal["ActivityType", "WorkflowType"]

# An execution may be open for a year.
_YEAR = 31_536_000


class SwfType:
    """A registered type; `defaults` as it was registered."""

    def __init__(self, kind: Kind, asked: Mapping[str, Any], now: float) -> None:
        self.kind = kind
        self.name = {"name": asked["name"], "version": asked["version"]}
        self.defaults = {name: value for name, value in asked.items() if name.startswith("default")}
        self.description = asked.get("description")
        self.created = now
        self.deprecated: float | None = None

    @property
    def info(self) -> dict[str, Any]:
        key = f"{self.kind[0].lower()}{self.kind[1:]}"
        known = {key: self.name, "creationDate": self.created, "status": self.status}
        more = {"description": self.description, "deprecationDate": self.deprecated}
        return known | {name: value for name, value in more.items() if value is not None}

    @property
    def status(self) -> str:
        return "REGISTERED" if self.deprecated is None else "DEPRECATED"

    def __str__(self) -> str:
        return f"{self.kind}=[name={self.name['name']}, version={self.name['version']}]"


class Domain:
    """Every method is called with the service's lock held. It is the `Home` of its executions."""

    def __init__(
        self, asked: Mapping[str, Any], clock: Clock, faults: Callable[[], Faults], draw: Callable[[], float]
    ) -> None:
        self.name: str = asked["name"]
        self.retention: str = asked["workflowExecutionRetentionPeriodInDays"]
        self.description: str | None = asked.get("description")
        self._clock, self._faults, self._draw = clock, faults, draw
        self.types: dict[tuple[Kind, str, str], SwfType] = {}
        self.runs: dict[str, Run] = {}
        self.open: dict[str, Run] = {}
        # by their ends
        self.ended: dict[str, Run] = {}
        self._decisions: defaultdict[str, deque[DecisionTask]] = defaultdict(deque)
        self._activities: defaultdict[str, deque[ActivityTask]] = defaultdict(deque)

    # -- what its executions ask ------------------------------------------------------------------------------------

    def now(self) -> float:
        return self._clock.now()

    def after(self, seconds: float, what: Callable[[], None]) -> None:
        self._clock.after(seconds, what)

    def offer_decision(self, task: DecisionTask) -> None:
        self._decisions[task.list].append(task)

    def offer_activity(self, task: ActivityTask) -> None:
        self._activities[task.list].append(task)

    def begin(self, run: Run) -> None:
        self.runs[run.id] = self.open[run.workflow_id] = run
        run.start()

    def closed(self, run: Run) -> None:
        del self.open[run.workflow_id]
        self.ended[run.id] = run
        days = 0.0 if self.retention == "NONE" else float(self.retention)
        # without a retention it is gone at once
        self.after(days * 86_400, lambda: self._forget(run))

    def is_refused(self) -> bool:
        return self._draw() < self._faults().refuse_decisions

    @property
    def event_limit(self) -> int:
        return self._faults().event_limit

    def continue_as_new(self, run: Run, attributes: Mapping[str, Any]) -> str | Run:
        """The next run, not begun yet; or why there is none."""
        name = run.plan.workflow_type["name"]
        version = attributes.get("workflowTypeVersion") or run.plan.workflow_type["version"]
        found = self.types.get(("WorkflowType", name, version))
        if found is None:
            return "WORKFLOW_TYPE_DOES_NOT_EXIST"
        if found.deprecated is not None:
            return "WORKFLOW_TYPE_DEPRECATED"
        plan = _planned(found, attributes, run.id)
        return f"DEFAULT_{_upper(plan)}_UNDEFINED" if isinstance(plan, str) else Run(self, run.workflow_id, plan)

    def activity_of(self, attributes: Mapping[str, Any]) -> str | dict[str, Any]:
        """The list and the timeouts of a task; or why it cannot be scheduled."""
        kind = attributes["activityType"]
        found = self.types.get(("ActivityType", kind["name"], kind["version"]))
        if found is None:
            return "ACTIVITY_TYPE_DOES_NOT_EXIST"
        if found.deprecated is not None:
            return "ACTIVITY_TYPE_DEPRECATED"
        resolved = {}
        for name in ("taskList", *TIMEOUTS):
            default = f"defaultTask{name[0].upper()}{name[1:]}".replace("TaskTask", "Task")
            value = attributes.get(name) or found.defaults.get(default)
            if value is None:
                return f"DEFAULT_{_upper(name)}_UNDEFINED"
            resolved[name] = value
        return resolved

    # -- what calls ask ---------------------------------------------------------------------------------------------

    def register(self, kind: Kind, asked: Mapping[str, Any]) -> None:
        key = (kind, asked["name"], asked["version"])
        if key in self.types:
            raise fault("TypeAlreadyExistsFault", str(self.types[key]))
        self.types[key] = SwfType(kind, asked, self.now())

    def type(self, kind: Kind, named: Mapping[str, str]) -> SwfType:
        found = self.types.get((kind, named["name"], named["version"]))
        if found is None:
            which = f"{kind}=[name={named['name']}, version={named['version']}]"
            raise fault("UnknownResourceFault", f"Unknown type: {which}")
        return found

    def start(self, asked: Mapping[str, Any]) -> Run:
        found = self.type("WorkflowType", asked["workflowType"])
        if found.deprecated is not None:
            raise fault("TypeDeprecatedFault", str(found))
        plan = _planned(found, asked)
        if isinstance(plan, str):
            raise fault("DefaultUndefinedFault", plan)
        if not plan.execution_timeout.isdigit() or int(plan.execution_timeout) > _YEAR:
            raise invalid(f"Value '{plan.execution_timeout}' at 'executionStartToCloseTimeout' is no time up to a year")
        if asked["workflowId"] in self.open:
            raise fault("WorkflowExecutionAlreadyStartedFault", "Already Started")
        if len(self.open) >= self._faults().open_limit:
            raise fault("LimitExceededFault", "The limit of open executions of this domain is reached")
        run = Run(self, asked["workflowId"], plan)
        self.begin(run)
        return run

    def open_run(self, asked: Mapping[str, Any]) -> Run:
        """The open execution that a call names. Raises SwfFault if there is none."""
        run = self.open.get(asked["workflowId"])
        if run is None or (asked.get("runId") or run.id) != run.id:
            raise unknown_run(asked)
        return run

    def run(self, execution: Mapping[str, str]) -> Run:
        """This one, open or not."""
        run = self.runs.get(execution["runId"])
        if run is None or run.workflow_id != execution["workflowId"]:
            raise unknown_run(execution)
        return run

    def take_decision(self, name: str) -> DecisionTask | None:
        return _taken(self._decisions[name])

    def take_activity(self, name: str) -> ActivityTask | None:
        return _taken(self._activities[name])

    def pending_decisions(self, name: str) -> int:
        return sum(task.waits for task in self._decisions[name])

    def pending_activities(self, name: str) -> int:
        return sum(task.waits for task in self._activities[name])

    def visible(self, closed: bool, at: float) -> Iterator[Run]:
        """The executions that were open, or closed, at this time."""
        if closed:
            yield from (run for run in self.ended.values() if run.ended is not None and run.ended <= at)
            return
        yield from (run for run in self.open.values() if run.started <= at)
        for run in reversed(self.ended.values()):
            if run.ended is None or run.ended <= at:
                return
            if run.started <= at:
                yield run

    def clear(self) -> None:
        """No execution is there any more, and no task."""
        for run in list(self.open.values()):
            run.terminate({})
        self.runs.clear()
        self.ended.clear()

    def _forget(self, run: Run) -> None:
        self.runs.pop(run.id, None)
        self.ended.pop(run.id, None)


def unknown_run(asked: Mapping[str, str]) -> Exception:
    if asked.get("runId"):
        named = f"execution: WorkflowExecution=[workflowId={asked['workflowId']}, runId={asked['runId']}]"
    else:
        named = f"execution, workflowId = {asked['workflowId']}"
    return fault("UnknownResourceFault", f"Unknown {named}")


def _taken(tasks: deque[Any]) -> Any:
    """The first that waits; those before it are gone."""
    while tasks:
        task = tasks.popleft()
        if task.waits:
            return task
    return None


def _planned(found: SwfType, asked: Mapping[str, Any], continued: str | None = None) -> Plan | str:
    """What an execution is started with; or what is said nowhere."""
    said: dict[str, Any] = {}
    for name in ("executionStartToCloseTimeout", "taskList", "taskStartToCloseTimeout", "childPolicy"):
        default = f"default{name[0].upper()}{name[1:]}"
        value = asked.get(name) or found.defaults.get(default)
        if value is None:
            return name
        said[name] = value
    return Plan(
        workflow_type=found.name,
        task_list=said["taskList"]["name"],
        execution_timeout=said["executionStartToCloseTimeout"],
        task_timeout=said["taskStartToCloseTimeout"],
        child_policy=said["childPolicy"],
        tags=tuple(asked.get("tagList") or ()),
        input=asked.get("input"),
        continued=continued,
    )


def _upper(name: str) -> str:
    return "".join(f"_{each}" if each.isupper() else each.upper() for each in name)
