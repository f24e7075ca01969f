"""What glassq's programs would refuse at their start, and what the running ones answer.

A new check is a function of the Operations that yields what it saw, and a line in PROGRAMS.
"""

from __future__ import annotations

from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING

from glassq.daemons import check_web, check_worker
from glassq.in_effect import TASK_SERVER, records
from glassq.local_http import get
from glassq.operations.checks.access import barrier
from glassq.operations.checks.base import Check
from glassq.operations.checks.configuration import check_push, secrets_in_use, takes_pings
from glassq.operations.checks.systemctl import leaves_out_intake
from glassq.routes import TASKS
from glassq.startcheck import found

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from glassq.operations import Operations
    from glassq.values import Address, Bind

# The programs answer within this many seconds, or something is wrong with them.
TIMEOUT = 2.0


def handlers(operations: Operations) -> Iterator[Check]:
    """Each handler, and what else glassq-worker refuses at its start, where no other check says it."""
    # Several routes may have one handler.
    asked = check_worker(operations.settings)
    findings = {finding.name: finding for finding in asked if finding.what in ("handler", "start")}
    for name, finding in findings.items():
        if name == TASKS.handler and not finding.problem:
            continue
        # `glassq config check` names the place in the file.
        said = finding.problem.partition(f'handler = "{name.partition(" (queue ")[0]}": ')[2] or finding.problem
        todo = "mend it, or the route; until then glassq-worker does not start" if finding.problem else ""
        yield Check("handler", not finding.problem, ": ".join(filter(None, (name, said))), todo)


def push(operations: Operations) -> Iterator[Check]:
    if operations.settings.push is not None:
        problem = found("push", lambda: check_push(operations.settings)).problem
        yield Check("push", not problem, problem or "its queues are right", "mend that" if problem else "")


def intake(operations: Operations) -> Iterator[Check]:
    bind = operations.settings.intake.bind
    if not takes_pings(operations.settings):
        yield Check("intake", True, "nobody sends pings ([sources] and [[routes]] name nobody), so it is not asked")
    elif leaves_out_intake():
        yield Check("intake", True, "glassq-web is disabled on this machine, so it is not asked")
    elif refused := _refused_by_web(operations):
        yield from refused
    elif bind.place is None:
        yield Check("intake", None, f"listens on {bind}, a socket of systemd's that only it knows: not asked")
    else:
        yield _readiness(bind, bind.place)


def _readiness(bind: Bind, place: tuple[str, int] | str) -> Check:
    try:
        status, said = get(place, "/readyz", timeout=TIMEOUT)
    except (OSError, HTTPException) as error:
        closed = barrier(Path(str(place)), write=True) if isinstance(error, PermissionError) else None
        todo = closed[1] if closed else "start glassq-web, or look at its log"
        return Check("intake", False, f"nobody answers at {bind}: {_words(error)}", todo)
    if status == 200 and said == "ready":
        return Check("intake", True, f"{bind} says: {said}")
    if status == 200 and said.startswith("ready, by the queue"):
        todo = "the queue keeps pings; mend the journal: its directory and its disk, and glassq-web's log says why"
        return Check("intake", False, f"{bind} says: {said}", todo)
    if status == 200 and said.startswith("ready"):
        return Check("intake", False, f"{bind} says: {said}", "pings are safe in the journal; mend the queue")
    if status == 503:
        todo = "pings are not taken: mend queue and journal; its log says what is wrong"
        return Check("intake", False, f"{bind} says that it is not ready", todo)
    return Check("intake", False, f"{bind} answers {status}: that is not glassq-web", "end what listens there")


def tasks(operations: Operations) -> Iterator[Check]:
    """glassq-tasks, where it runs: not every machine has it."""
    settings = operations.settings
    running = records(Path(settings.file)) if settings.file else ()
    if (place := settings.tasks.bind.place) is None or all(record.program != TASK_SERVER for record, _ in running):
        return
    bind, todo = settings.tasks.bind, "its log says what is wrong"
    try:
        status, _ = get(place, "/readyz", timeout=TIMEOUT)
    except (OSError, HTTPException) as error:
        closed = barrier(Path(str(place)), write=True) if isinstance(error, PermissionError) else None
        yield Check("tasks", False, f"nobody answers at {bind}: {_words(error)}", closed[1] if closed else todo)
        return
    ready = status == 200
    yield Check("tasks", ready, f"{bind} {'takes' if ready else 'refuses'} tasks", "" if ready else todo)
    if settings.metrics.tasks is not None:
        yield _metrics("tasks", settings.metrics.tasks, TASK_SERVER)


def metrics(operations: Operations) -> Iterator[Check]:
    addresses = operations.settings.metrics
    named = (("intake", addresses.intake, "glassq-web"), ("pool", addresses.pool, "glassq-worker"))
    for key, address, program in named:
        if address is not None:
            yield _metrics(key, address, program)


def _metrics(key: str, address: Address, program: str) -> Check:
    place = f"[metrics] {key} = {address}"
    try:
        status, said = get(address.parts, "/metrics", timeout=TIMEOUT)
    except (OSError, HTTPException) as error:
        return Check(
            "metrics", False, f"{place}: nobody answers: {_words(error)}", f"start {program}, or look at its log"
        )
    if status == 200 and said.startswith("# HELP glassq_"):
        return Check("metrics", True, f"{place}: answers")
    wrong = f"{place}: answers {status}: that is not {program}"
    return Check("metrics", False, wrong, "end what listens there, or change the address")


def _refused_by_web(operations: Operations) -> list[Check]:
    """What glassq-web refuses at its start, where no other check says it."""
    # A source's secret that cannot be read is a line of its own.
    sources = any(key.startswith("sources.") for key in secrets_in_use(operations.settings))
    elsewhere = {"journal", "sources"} if sources else {"journal"}
    asked = check_web(operations.settings)
    problems = [finding.problem for finding in asked if finding.problem and finding.what not in elsewhere]
    return [Check("intake", False, problem, "mend it; until then glassq-web does not start") for problem in problems]


def _words(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


PROGRAMS: list[Callable[[Operations], Iterator[Check]]] = [handlers, push, intake, tasks, metrics]
