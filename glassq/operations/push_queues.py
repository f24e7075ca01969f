"""The push queues as they are now: what queue.yaml says of each, and how many of its tasks wait for what."""

from __future__ import annotations

import difflib
import shlex
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from glassq.errors import Conflict, InvalidRequest, JobNotFound, LedgerError, SettingsError
from glassq.operations.find import ref_of
from glassq.operations.hints import Hint
from glassq.operations.parked import is_parking, waiting
from glassq.push.queue_yaml import load
from glassq.push.request import tube_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from glassq.ledger import Entry
    from glassq.operations import Operations
    from glassq.operations.progress import Progress
    from glassq.push.queue_yaml import PushQueue
    from glassq.queues.base import Inspector, TubeCounts
    from glassq.settings import PushSettings

# Of the deliveries that the ledger has as retrying, so many are looked up in the queue: within a second or two.
MAX_RETRIES = 10_000


@dataclass(frozen=True, slots=True)
class PlannedQueues:
    """The queues of queue.yaml. `mistakes` say why that cannot be used, one a line: then nobody knows its queues."""

    queues: Mapping[str, PushQueue]
    mistakes: str = ""

    @property
    def known(self) -> bool:
        """Whether queue.yaml could be read."""
        return not self.mistakes


@dataclass(frozen=True, slots=True)
class PushQueueRow:
    """One queue, as it is `planned` in queue.yaml (None: it is not there), and as its tube is now.

    `in_queue_yaml` is None where nobody knows. `at_once` is how many of its tasks run at once, at most. `oldest` is the
    age of the job that is reserved next, in seconds. `parked` is how many wait in tubes of their own, for their key's
    turn or for a route that has paused itself. `retrying` says how many of the delayed tasks are tried again, as
    the others were scheduled by their program; None: nobody knows.
    """

    name: str
    planned: PushQueue | None
    in_queue_yaml: bool | None
    at_once: int | None
    tube: TubeCounts
    oldest: int | None
    parked: int
    retrying: int | None

    @property
    def at_once_is_default(self) -> bool | None:
        """Whether queue.yaml sets no max_concurrent_requests; None where it has no such queue."""
        return self.planned.max_concurrent_requests is None if self.planned else None

    @property
    def scheduled(self) -> int | None:
        """How many of the delayed tasks wait for the time that their program chose; None: nobody knows."""
        return None if self.retrying is None else self.tube.delayed - self.retrying

    def document(self) -> dict[str, Any]:
        """The row for JSON."""
        return {
            "queue": self.name,
            "tube": self.tube.name,
            "in_queue_yaml": self.in_queue_yaml,
            "rate": self.planned.rate if self.planned else None,
            "bucket": self.planned.bucket_size if self.planned else None,
            "at_once": self.at_once,
            "at_once_is_default": self.at_once_is_default,
            "in_flight": self.tube.reserved,
            "backlog": self.tube.ready,
            "oldest": self.oldest,
            "parked": self.parked,
            "delayed": self.tube.delayed,
            "retrying": self.retrying,
            "scheduled": self.scheduled,
            "buried": self.tube.buried,
            "paused_for": self.tube.paused_for,
        }


@dataclass(frozen=True, slots=True)
class PushQueueList:
    """All push queues. `default_at_once` is the limit of a queue without max_concurrent_requests.

    `note` says why it is not known what is retrying.
    """

    rows: tuple[PushQueueRow, ...]
    default_at_once: int
    note: str
    hints: tuple[Hint, ...]

    def document(self) -> dict[str, Any]:
        """The list for JSON."""
        queues = [row.document() for row in self.rows]
        return {"queues": queues, "note": self.note, "hints": [str(hint) for hint in self.hints]}


def settings_of(operations: Operations) -> PushSettings:
    """The section [push]. Raises Conflict where there is none: right settings, which have no push queues."""
    push = operations.settings.push
    if push is None:
        raise Conflict(
            f"{operations.settings.file}: there are no push queues without a section [push]: add it, with queue_yaml = "
            '"/etc/glassq/queue.yaml", and [push.targets] with default = "http://127.0.0.1:8082"; then restart '
            "glassq-worker"
        )
    return push


def planned(operations: Operations) -> PlannedQueues:
    """The queues of queue.yaml, or what is wrong with it. Raises Conflict where there are no push queues."""
    push = settings_of(operations)
    try:
        return PlannedQueues(load(push.queue_yaml, push.targets))
    except SettingsError as error:
        return PlannedQueues({}, str(error))


def planned_or_warn(operations: Operations, progress: Progress) -> PlannedQueues:
    """The same, with a warning of what is wrong: a mistake in the file takes no command away."""
    plan = planned(operations)
    for mistake in plan.mistakes.splitlines():
        progress.warn(mistake)
    if not plan.known:
        progress.warn("so these are the queues whose tubes exist now, without what the file says of them")
    return plan


def tubes_of(operations: Operations, queue: Inspector, plan: PlannedQueues) -> dict[str, TubeCounts]:
    """The counts of all queues there are, by name: the planned ones, then those that are not planned and hold jobs.

    Where queue.yaml cannot be used, those whose tubes exist.
    """
    prefix = tube_of(operations.tube, "")
    there = {
        counts.name.removeprefix(prefix): counts
        for counts in queue.counts()
        if counts.name.startswith(prefix) and not is_parking(operations.tube, counts.name)
    }
    absent = [tube_of(operations.tube, name) for name in plan.queues if name not in there]
    there |= {counts.name.removeprefix(prefix): counts for counts in queue.counts(absent)}
    others = [name for name in sorted(there) if name not in plan.queues and (there[name].jobs or not plan.known)]
    return {name: there[name] for name in (*plan.queues, *others)}


def chosen(operations: Operations, queue: Inspector, plan: PlannedQueues, names: Sequence[str]) -> dict[str, str]:
    """The tubes of the queues named, by name. Raises InvalidRequest where there is no such queue."""
    known = tubes_of(operations, queue, plan)
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"there are: {', '.join(known) or 'none'}"
            raise InvalidRequest(f"there is no queue {name}; {hint}")
    return {name: known[name].name for name in names}


def snapshot(operations: Operations, queue: Inspector, plan: PlannedQueues) -> PushQueueList:
    """What the queues of the plan, and the others that there are, hold now. Raises Conflict (no [push]), QueueError."""
    tubes = tubes_of(operations, queue, plan)
    retrying, note = _retrying(operations, queue, tubes.values())
    # What glassq-worker allows a queue without max_concurrent_requests: one child is left for the others.
    default = operations.settings.worker.most_of_a_queue
    parked = waiting(operations.tube, queue.counts())
    rows = tuple(
        PushQueueRow(
            name=name,
            planned=(limits := plan.queues.get(name)),
            in_queue_yaml=limits is not None if plan.known else None,
            at_once=(limits.max_concurrent_requests or default) if limits else None,
            tube=tube,
            oldest=_oldest(queue, tube),
            parked=parked.get(tube.name, 0),
            retrying=retrying.get(tube.name),
        )
        for name, tube in tubes.items()
    )
    return PushQueueList(rows, default, note, tuple(_all_hints(operations, queue, plan, tubes)))


def _oldest(queue: Inspector, tube: TubeCounts) -> int | None:
    found = queue.first("ready", tube.name) if tube.ready and queue.capabilities.oldest else None
    return round(found.age) if found else None


# -- what is tried again -----------------------------------------------------------------------------------------------


def _retrying(operations: Operations, queue: Inspector, tubes: Iterable[TubeCounts]) -> tuple[dict[str, int], str]:
    """How many of each tube's delayed jobs are tried again, as far as that is known; and why it is not."""
    delayed = {tube.name: tube.delayed for tube in tubes}
    if not any(delayed.values()):
        return dict.fromkeys(delayed, 0), ""
    none = {tube: 0 for tube, count in delayed.items() if not count}
    try:
        with operations.ledger() as ledger:
            entries = ledger.recent(MAX_RETRIES, "retrying")
            if ledger.absent:
                return none, ledger.absent
    except (LedgerError, SettingsError) as error:
        return none, str(error)
    found: Counter[str] = Counter()
    for entry in entries:
        if found[entry.tube] < delayed.get(entry.tube, 0):
            found[entry.tube] += _is_delayed(queue, entry)
    all_seen = len(entries) < MAX_RETRIES
    return {tube: found[tube] for tube, count in delayed.items() if all_seen or found[tube] == count}, ""


def _is_delayed(queue: Inspector, entry: Entry) -> bool:
    """Whether it still waits: its job may be ready by now, or an operator may have deleted it."""
    ref = ref_of(entry)
    try:
        job = queue.get(ref) if ref else None
    except JobNotFound:
        return False
    return job is not None and job.state == "delayed" and job.tube == entry.tube


# -- hints -------------------------------------------------------------------------------------------------------------


def hints(operations: Operations, queue: Inspector, plan: PlannedQueues) -> list[Hint]:
    """What an operator should know or do about single queues. Raises Conflict without push queues, and QueueError."""
    tubes = tubes_of(operations, queue, plan)
    return list(_single_hints(operations, queue, plan, tubes, queue.status().consumers))


def _all_hints(
    operations: Operations, queue: Inspector, plan: PlannedQueues, tubes: Mapping[str, TubeCounts]
) -> Iterator[Hint]:
    engine = queue.status()
    if not engine.accepting:
        yield from (Hint(str(fact)) for fact in queue.facts([tube.name for tube in tubes.values()]))
    yield from _single_hints(operations, queue, plan, tubes, engine.consumers)
    # Said though a consumer may wait for other tubes.
    if not engine.consumers and any(tube.ready for tube in tubes.values()):
        yield Hint("tasks are ready and nobody takes them: is glassq-worker running?")


def _single_hints(
    operations: Operations, queue: Inspector, plan: PlannedQueues, tubes: Mapping[str, TubeCounts], children: int
) -> Iterator[Hint]:
    file = settings_of(operations).queue_yaml or "any queue.yaml ([push] queue_yaml is not set)"
    (main,) = queue.counts([operations.tube])
    for name, tube in tubes.items():
        limits = plan.queues.get(name)
        if limits is None and plan.known:
            remedy = "add it and reload glassq-worker, or delete its tasks"
            yield Hint(f"queue {name} is not in {file}: nobody works it; {remedy}", f"queues purge {shlex.quote(name)}")
        elif limits and not limits.rate and (tube.ready or tube.delayed):
            yield Hint(f"queue {name} is not worked: its rate is 0 in {file}")
        if tube.paused_for:
            yield Hint(f"queue {name} is paused; to let it go on", f"queues resume {shlex.quote(name)}")
        others = [main, *(other for each, other in tubes.items() if each != name and _may_be_worked(plan, each))]
        if 1 < children <= tube.reserved and any(other.ready and not other.paused_for for other in others):
            yield Hint(
                f"queue {name} has all {tube.reserved} children at work, and others wait: set its "
                f"max_concurrent_requests in {file}, or more [worker] processes"
            )


def _may_be_worked(plan: PlannedQueues, name: str) -> bool:
    """Whether its rate is not 0, as far as is known."""
    limits = plan.queues.get(name)
    return limits is None or bool(limits.rate)
