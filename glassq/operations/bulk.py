"""What operations on chosen jobs share: a plan is a fixed list; each job is looked at again before it is touched.

Jobs are changed in packets, whose new forms share one proof. A signal is obeyed between two packets.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from glassq.errors import (
    Ambiguous,
    BodyError,
    GlassqError,
    JobNotFound,
    JobTooBig,
    NoProof,
    NotFound,
    QueueError,
    QueueRefused,
    Stopped,
)
from glassq.operations.find import Finder, Search, buried_matching, found_in, is_ours
from glassq.operations.result import Did, Report, Result, not_done, remark
from glassq.operations.words import span

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from glassq.operations import Operations
    from glassq.operations.filters import Selection
    from glassq.operations.find import Found
    from glassq.operations.progress import Progress
    from glassq.queues.base import Change, Inspector, Job

T = TypeVar("T")

AT_WORK = "a consumer works it right now: try again when that is over"


@dataclass(frozen=True, slots=True)
class Chosen:
    """A job as it was when it was chosen. `text` is what the operator named it by: its reference where a filter did.

    `body` is the size of the body in it, in bytes.
    """

    text: str
    ref: str
    delivery: str | None
    tube: str
    state: str
    age: float
    digest: bytes
    body: int = 0

    def result(self, did: Did, why: str = "", *, job: str | None = None, planned: bool = False) -> Result:
        """What became of it; `job` holds the delivery from now on, where that is another one."""
        return Result(self.text, job or self.ref, self.delivery, did, why, planned)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is going to be done: `did` says what, to which jobs. `results` are the parts that cannot be done."""

    did: Did
    chosen: Sequence[Chosen]
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
    body = len(found.delivery.body) if found.delivery is not None else 0
    return Chosen(text, job.ref, found.name or None, job.tube, job.state, job.age, digest_of(job.body), body)


def named(finder: Finder, ids: Iterable[str]) -> tuple[list[tuple[str, Found]], list[Result]]:
    """The jobs of these ids, each once, and a result for every id that has none. Raises InvalidRequest."""
    found: dict[str, tuple[str, Found]] = {}
    missing = []
    for text in ids:
        try:
            each = finder.find(text)
        except Ambiguous as error:
            missing.append(not_done(text, f"{error}: {', '.join(error.candidates)}"))
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
    return plan_found(Search(buried_matching(operations, queue, selection.filter, progress), selection.limit), did)


def plan_found(search: Search, did: Did) -> Plan:
    """The plan for what a search finds; where that may not be all, a result says so."""
    taken = tuple(chosen(found.ref, found) for found in search)
    return Plan(did, taken, (remark("--all", search.short),) if search.short else ())


def not_ours(operations: Operations, found: Found) -> str:
    """Why a job of a foreign tube is not touched; "" for one of ours."""
    return "" if is_ours(operations.tube, found.tube) else f"it is in tube {found.tube}, which is not ours"


def look_again(
    operations: Operations, queue: Inspector, packet: Sequence[Chosen]
) -> list[tuple[Chosen, Found | JobNotFound]]:
    """Each job, if it is still as it was chosen; else why not, in words for its result. Raises QueueError."""
    seen = queue.get_all([each.ref for each in packet])
    return [(each, _as_chosen(operations, each, job)) for each, job in zip(packet, seen, strict=True)]


def _as_chosen(operations: Operations, each: Chosen, job: Job | QueueError) -> Found | JobNotFound:
    if isinstance(job, JobNotFound):
        return JobNotFound("it was worked or removed meanwhile")
    if isinstance(job, QueueError):
        raise job
    if digest_of(job.body) != each.digest:
        return JobNotFound("this job id now belongs to another delivery")
    if job.state == "reserved":
        return JobNotFound(AT_WORK)
    found = found_in(operations, job)
    if found.is_buried != (each.state == "buried") or found.tube != each.tube:
        return JobNotFound(f"it is {state_words(job)} by now")
    return found


def change_packet(
    operations: Operations,
    queue: Inspector,
    packet: Sequence[Chosen],
    change: Callable[[Found], Change],
    done: Callable[[Chosen, Found, str], Result],
) -> Iterator[Result]:
    """What becomes of these jobs, which are changed together: nothing where one is not as it was planned any more.

    `done` makes the result of a job that was changed; it gets the job's new reference. Raises QueueError after the last
    result.
    """

    def act(found: Sequence[Found]) -> list[str | QueueError]:
        changes = [change(each) for each in found]
        for each, made in zip(found, changes, strict=True):
            for key in each.delivery.stored_keys if made.body is not None and each.delivery is not None else ():
                # its job moves
                with suppress(BodyError):
                    operations.bodies.touch(key)
        return queue.change_all(changes)

    return act_on_packet(operations, queue, packet, act, done)


def act_on_packet(
    operations: Operations,
    queue: Inspector,
    packet: Sequence[Chosen],
    act: Callable[[Sequence[Found]], Sequence[T | QueueError]],
    done: Callable[[Chosen, Found, T], Result],
) -> Iterator[Result]:
    """The same for any act on the jobs that are still as they were planned."""
    looked = look_again(operations, queue, packet)
    acted = iter(act([found for _, found in looked if not isinstance(found, JobNotFound)]))
    answers = [(each, found, found if isinstance(found, JobNotFound) else next(acted)) for each, found in looked]
    return packet_results(
        answers,
        lambda answer: done(answer[0], succeeded(answer[1]), succeeded(answer[2])),
        lambda answer, error: answer[0].result(Did.NOTHING, str(error)),
    )


def packet_results(
    answers: Iterable[T], done: Callable[[T], Result], refused: Callable[[T, QueueError], Result]
) -> Iterator[Result]:
    """The results of a packet, by the queue's answers: `done` makes one, or raises the error in the answer.

    `refused` makes the result where that error is about one job alone. Any other error is raised after the last result.
    """
    fatal: QueueError | None = None
    for answer in answers:
        try:
            result = done(answer)
        except (JobNotFound, JobTooBig) as error:
            result = refused(answer, error)
        except QueueError as error:
            fatal = fatal or error
            continue
        yield result
    if fatal is not None:
        raise fatal


def succeeded(answer: T | QueueError) -> T:
    """What the queue answered for one job of a packet. Raises it where it is an error."""
    if isinstance(answer, QueueError):
        raise answer
    return answer


def run(
    report: Report,
    plan: Plan,
    packets: Iterable[Sequence[Chosen]],
    act: Callable[[Sequence[Chosen]], Iterable[Result]],
    progress: Progress,
    *,
    in_doubt: str = "",
) -> None:
    """Acts on these jobs of the plan, packet by packet, and adds the results to the report.

    What ends it early is in the report as well. `in_doubt` says what may be with the packet at which the queue failed.
    """
    total = len(plan.chosen)
    try:
        step_by_step(report, packets, act, progress, f"{plan.did} so far", total, start=len(plan.results))
    except GlassqError as error:
        end_early(report, plan, error, in_doubt)


def end_early(report: Report, plan: Plan, error: GlassqError, in_doubt: str = "") -> None:
    """Notes in the report what ended the plan before its end, and how far it came."""
    report.error = error
    done = f"{report.count(plan.did)} of {len(plan.chosen)}"
    if isinstance(error, Stopped):
        report.results.append(remark("interrupted", f"{done} were {plan.did}"))
        return
    doubt = "" if isinstance(error, QueueRefused | NoProof) or not in_doubt else f"; {in_doubt}"
    report.words.append(f"until then {done} were {plan.did}{doubt}")


def step_by_step(
    report: Report,
    packets: Iterable[Sequence[T]],
    act: Callable[[Sequence[T]], Iterable[Result]],
    progress: Progress,
    words: str,
    total: int,
    *,
    start: int,
) -> None:
    """Takes one packet after the other, each whole before a signal is obeyed, and adds the results to the report.

    `words` say what is counted of `total`, and `start` is how many results there were before the first step. Raises
    Stopped, and what `act` raises after its last result.
    """
    for packet in packets:
        progress.advance(len(report.results) - start, total, words)
        with progress.defer_signals():
            for result in act(packet):
                report.results.append(result)


def ended_by(error: GlassqError) -> str:
    """What ended an operation early, in words."""
    return "interrupted" if isinstance(error, Stopped) else str(error)


def refused(text: str, found: Found, why: str) -> Result:
    """The result where a job was found and is not acted on."""
    return not_done(text, why, job=found.ref, delivery=found.name or None)


def state_words(job: Job) -> str:
    """The job's state in words."""
    return f"delayed for {span(job.time_left)} more" if job.state == "delayed" else job.state


def digest_of(body: bytes) -> bytes:
    """By what a job's body is known again."""
    return hashlib.blake2b(body, digest_size=16).digest()
