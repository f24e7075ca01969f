"""What operations on chosen jobs share: a plan is a fixed list; each job is looked at again before it is touched."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from glassq.errors import Ambiguous, GlassqError, JobNotFound, NotFound, Stopped
from glassq.operations.find import Finder, as_far_as_found, buried_matching, is_ours, look
from glassq.operations.result import Did, Report, Result, not_done
from glassq.operations.words import deliveries, span

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from glassq.operations import Operations
    from glassq.operations.filters import Selection
    from glassq.operations.find import Found
    from glassq.operations.progress import Progress
    from glassq.queues.base import Inspector, Job


@dataclass(frozen=True, slots=True)
class Chosen:
    """A job as it was when it was chosen. `text` is what the operator named it by: its reference where a filter did."""

    text: str
    ref: str
    delivery: str | None
    tube: str
    state: str
    age: float
    digest: bytes

    def result(self, did: Did, why: str = "", *, job: str | None = None, planned: bool = False) -> Result:
        """What became of it; `job` holds the delivery from now on, where that is another one."""
        return Result(self.text, job or self.ref, self.delivery, did, why, planned)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is going to be done: `did` says what, to which jobs. `results` are the parts that cannot be done."""

    did: Did
    chosen: tuple[Chosen, ...]
    results: tuple[Result, ...] = ()

    @property
    def tubes(self) -> frozenset[str]:
        """The tubes of the chosen jobs."""
        return frozenset(each.tube for each in self.chosen)

    def preview(self) -> Report:
        """The report of a dry run."""
        return Report([*(each.result(self.did, planned=True) for each in self.chosen), *self.results])


def chosen(text: str, found: Found) -> Chosen:
    """The job as it is chosen now."""
    job = found.job
    return Chosen(text, job.ref, found.name or None, job.tube, job.state, job.age, _digest(job))


def named(finder: Finder, ids: Iterable[str]) -> tuple[list[tuple[str, Found]], list[Result]]:
    """The jobs of these ids, each once, and a result for every id that has none. Raises InvalidRequest."""
    found: dict[str, tuple[str, Found]] = {}
    missing = []
    for text in ids:
        try:
            each = finder.find(text)
        except Ambiguous as error:
            missing.append(not_done(text, "; ".join([str(error), *error.candidates])))
        except NotFound as error:
            missing.append(not_done(text, str(error)))
        else:
            found.setdefault(each.ref, (text, each))
    return list(found.values()), missing


def plan_named(
    operations: Operations,
    queue: Inspector,
    ids: Iterable[str],
    progress: Progress,
    did: Did,
    refuse: Callable[[Found], str],
) -> Plan:
    """The plan for these ids; `refuse` says why a job cannot be acted on ("": it can)."""
    found, results = named(Finder(operations, queue, progress), ids)
    taken = []
    for text, each in found:
        if why := refuse(each):
            results.append(refused(text, each, why))
        else:
            taken.append(chosen(text, each))
    return Plan(did, tuple(taken), tuple(results))


def plan_buried(operations: Operations, queue: Inspector, selection: Selection, progress: Progress, did: Did) -> Plan:
    """The plan for all buried jobs that fit. Raises InvalidRequest, Unsupported and QueueError."""
    found, short = as_far_as_found(buried_matching(operations, queue, selection.filter, progress), selection.limit)
    results = (not_done("--all", short),) if short else ()
    return Plan(did, tuple(chosen(each.ref, each) for each in found), results)


def not_ours(operations: Operations, found: Found) -> str:
    """Why a job of a foreign tube is not touched; "" for one of ours."""
    return "" if is_ours(operations.tube, found.tube) else f"it is in tube {found.tube}, which is not ours"


def look_again(operations: Operations, queue: Inspector, each: Chosen) -> Found:
    """The job, if it is still as it was chosen. Raises JobNotFound, in words for its result."""
    try:
        found = look(operations, queue, each.ref)
    except JobNotFound:
        raise JobNotFound("it was worked or removed meanwhile") from None
    if _digest(found.job) != each.digest:
        raise JobNotFound("this job id now belongs to another delivery")
    if (found.job.state, found.tube) != (each.state, each.tube):
        raise JobNotFound(f"it is {state_words(found.job)} by now")
    return found


def carry_out(
    operations: Operations,
    queue: Inspector,
    plan: Plan,
    progress: Progress,
    act: Callable[[Chosen, Found], Result],
    jobs: Iterable[Chosen] | None = None,
) -> Report:
    """Acts on each job that is still as it was planned; `jobs` yields them in time, where there is a pace.

    The report tells what was done whatever ends it: Stopped and errors of the queue are in it.
    """
    report = Report(list(plan.results))
    run(
        report,
        plan.chosen if jobs is None else jobs,
        len(plan.chosen),
        plan.did,
        progress,
        lambda each: one(operations, queue, each, act),
    )
    return report


def one(operations: Operations, queue: Inspector, each: Chosen, act: Callable[[Chosen, Found], Result]) -> Result:
    """What becomes of one job; nothing where it is not as it was planned any more."""
    try:
        return act(each, look_again(operations, queue, each))
    except JobNotFound as error:
        return each.result(Did.NOTHING, str(error))


def run(
    report: Report,
    things: Iterable[Chosen],
    total: int,
    did: Did,
    progress: Progress,
    act: Callable[[Chosen], Result],
) -> None:
    """Acts on one after the other, and adds the results to the report; so it does with what ends it early."""
    before = len(report.results)
    try:
        for number, each in enumerate(things):
            progress.advance(number, total, f"{did} so far")
            with progress.defer_signals():
                report.results.append(act(each))
    except Stopped as error:
        report.error = error
        done = sum(result.did is did for result in report.results[before:])
        report.results.append(not_done("the rest", f"interrupted: {done} of {total} are {did}"))
    except GlassqError as error:
        report.error = error
        done = sum(result.did is did for result in report.results[before:])
        report.words.append(f"until then {done} of {total} were {did}")


def refused(text: str, found: Found, why: str) -> Result:
    """The result where a job was found and is not acted on."""
    return not_done(text, why, job=found.ref, delivery=found.name or None)


def state_words(job: Job) -> str:
    """The job's state in words."""
    return f"delayed for {span(job.time_left)} more" if job.state == "delayed" else job.state


def question(verb: str, plan: Plan, more: str = "") -> str:
    """What to ask before a plan is carried out."""
    return f"{verb} {deliveries(len(plan.chosen))}{more}?"


def _digest(job: Job) -> bytes:
    return hashlib.blake2b(job.body, digest_size=16).digest()


def refs(results: Sequence[Result], did: Did) -> list[str]:
    """The jobs with which this was done."""
    return [result.job for result in results if result.job and result.did is did]
