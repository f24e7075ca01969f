"""What waits, what is worked, what lies buried, and whether it is safe on disk."""

from __future__ import annotations

import shlex
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from glassq.errors import GlassqError, LedgerError, NotDurable, QueueError, SettingsError
from glassq.operations import parked, route_tubes, worker_queues
from glassq.operations.checks.in_effect import not_in_effect
from glassq.operations.find import is_ours, unworked
from glassq.operations.hints import Hint
from glassq.operations.journal import GONE_TODO, gone, open_journal
from glassq.operations.missing import Missing, find_missing, may_be_missing
from glassq.operations.pauses import Pausers, pauses
from glassq.operations.words import span

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime

    from glassq.journal import Journaled
    from glassq.operations import Operations
    from glassq.operations.progress import Progress
    from glassq.queues.base import EngineStatus, Fact, Inspector, Job, TubeCounts

# The search for lost deliveries takes at most this long, in seconds.
GLANCE = 0.5
# A delivery that waits in the journal for longer than MOVED_ON shows that the queue may take no jobs: it is tried. One
# that waits for longer than STAYS, though the queue takes jobs, is not moved on; in seconds.
MOVED_ON, STAYS = 5.0, 60.0
# What the ledger is asked about.
RECENT = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class QueueStatus:
    """The queue at `url`. `tubes` are ours, the main one first.

    The others of ours, and the `foreign` ones of other programs, hold jobs. `oldest` is the oldest ready job of ours.
    `files_missing` says which of the engine's files are no longer there ("": none, as far as is known). The engine may
    not tell the oldest job, or who waits (`sees_oldest`, `sees_consumers`), nor count exactly (`exact_counts`).
    `refuses` is why it takes no jobs; that is tried where there are signs of it.
    """

    url: str
    engine: EngineStatus
    tubes: tuple[TubeCounts, ...]
    foreign: tuple[TubeCounts, ...]
    oldest: Job | None
    files_missing: str
    sees_oldest: bool = True
    sees_consumers: bool = True
    exact_counts: bool = True
    refuses: str = ""

    @property
    def on_disk(self) -> bool:
        """Whether jobs are written to disk, and what was written is still there, as far as is known."""
        return self.engine.durable and not self.files_missing and (self.oldest is None or self.oldest.durable)

    @property
    def untold(self) -> str:
        """What this engine does not tell, in a sentence; "" where it tells all."""
        hidden = [("how old the oldest delivery is", self.sees_oldest), ("who waits for work", self.sees_consumers)]
        untold = " nor ".join(words for words, told in hidden if not told)
        found = [f"{self.engine.engine} does not tell {untold}"] if untold else []
        return "; ".join([*found, *([] if self.exact_counts else ["its counts are approximate"])])

    def document(self) -> dict[str, Any]:
        """The status of the queue for JSON; what only this engine has is beside the rest."""
        engine = self.engine
        return {
            "url": self.url,
            "engine": engine.engine,
            "version": engine.version,
            "uptime": engine.uptime,
            "durable": engine.durable,
            "draining": not engine.accepting,
            "refuses": self.refuses,
            "workers": engine.consumers,
            "max_job": engine.max_job,
            **engine.details,
            "files_missing": self.files_missing,
            "tubes": [msgspec.structs.asdict(tube) for tube in (*self.tubes, *self.foreign)],
            "sees_consumers": self.sees_consumers,
            "oldest_ready": {"job": self.oldest.ref, "age": self.oldest.age} if self.oldest else None,
        }


@dataclass(frozen=True, slots=True)
class SystemStatus:
    """Queue, journal and ledger at one moment.

    `states` counts the deliveries of the last RECENT (since `since`) by their state; `note` says why there are none to
    count. `missing` is what the queue has lost; None where nobody can say.
    """

    queue: QueueStatus
    journaled: Journaled | None
    journal_words: str
    states: dict[str, int] | None
    since: datetime
    note: str
    missing: Missing | None
    hints: tuple[Hint, ...]

    def document(self) -> dict[str, Any]:
        """The status for JSON."""
        missing = self.missing
        journaled = asdict(self.journaled) if self.journaled else None
        return {
            "queue": self.queue.document(),
            "ledger": {"states": self.states, "since": self.since, "note": self.note},
            "hints": [str(hint) for hint in self.hints],
            "missing": {"count": len(missing.deliveries), "sure": missing.sure} if missing else None,
            "journal": journaled,
            # the name of the last release, for one more
            "spool": journaled,
        }


def journal_state(operations: Operations) -> tuple[Journaled | None, str]:
    """What is in the intake journal, and that in words."""
    try:
        opened = open_journal(operations)
        found = opened.look() if opened else None
    except GlassqError as error:
        return None, str(error)
    if found is None and (words := gone(operations)):
        return None, words
    if found is None or not found.count:
        return found, "empty"
    many = "1 delivery waits" if found.count == 1 else f"{found.count} deliveries wait"
    return found, f"{many} for the queue, the oldest for {span(found.oldest)}"


def snapshot(
    operations: Operations, queue: Inspector, progress: Progress, before: SystemStatus | None = None
) -> SystemStatus:
    """The system as it is now; what only a look through the ledger tells is as it was `before`, if that is given.

    Raises QueueError, and Stopped.
    """
    seen, facts = _queue(operations, queue)
    missing = before.missing if before else _missing(operations, queue, seen, progress)
    journaled, words = journal_state(operations)
    if refusal := _refusal(queue, seen, journaled):
        seen = replace(seen, refuses=refusal.said)
        facts = [refusal, *(fact for fact in facts if fact.said != refusal.said)]
    since = before.since if before else operations.clock() - RECENT
    states, note = (before.states, before.note) if before else _states(operations, since)
    hints = (
        *_settings_hints(operations),
        *_disk_hints(operations),
        *_queue_hints(operations, seen, facts),
        *_loss_hints(seen, journaled, words, missing),
    )
    return SystemStatus(seen, journaled, words, states, since, note, missing, hints)


def _queue(operations: Operations, queue: Inspector) -> tuple[QueueStatus, list[Fact]]:
    """The queue, and what is wrong with its engine."""
    there = [name for name in queue.tubes() if name != operations.tube]
    main, *rest = queue.counts([operations.tube, *there])
    others = [counts for counts in rest if counts.jobs]
    others.sort(key=lambda counts: counts.name)
    ours = (main, *(counts for counts in others if is_ours(main.name, counts.name)))
    foreign = tuple(counts for counts in others if not is_ours(main.name, counts.name))
    facts = list(queue.facts([counts.name for counts in ours]))
    files_missing = next((fact.said for fact in facts if fact.files_lost), "")
    url, oldest = operations.settings.queue.url, _oldest(queue, ours)
    can = queue.capabilities
    seen = QueueStatus(
        url, queue.status(), ours, foreign, oldest, files_missing, can.oldest, can.sees_consumers, can.exact_counts
    )
    return seen, [*facts, *_in_memory(queue, seen)]


def _refusal(queue: Inspector, seen: QueueStatus, journaled: Journaled | None) -> Fact | None:
    """Why the queue takes no jobs, tried where pings wait in the journal, or nobody takes what is ready; else None."""
    waits = journaled is not None and journaled.count > 0 and journaled.oldest > MOVED_ON
    pauses = bool(seen.engine.consumers) and _nobody_takes(seen)
    if seen.engine.behind or not (waits or pauses):
        return None
    try:
        queue.check()
    except QueueError as error:
        return queue.explain(error)
    return None


def _oldest(queue: Inspector, tubes: Iterable[TubeCounts]) -> Job | None:
    if not queue.capabilities.oldest:
        return None
    ready = (queue.first("ready", tube.name) for tube in tubes if tube.ready)
    return max(filter(None, ready), key=lambda job: job.age, default=None)


def _states(operations: Operations, since: datetime) -> tuple[dict[str, int] | None, str]:
    """Deliveries by state since then, and why there are none to count."""
    try:
        with operations.ledger() as ledger:
            return (None, ledger.absent) if ledger.absent else (ledger.counts(since), "")
    except (LedgerError, SettingsError) as error:
        # The queue's state is worth showing without it.
        return None, str(error)


def _missing(operations: Operations, queue: Inspector, seen: QueueStatus, progress: Progress) -> Missing | None:
    """What the queue has lost, looked for only where the counts leave room for it; None where nobody can say."""
    if seen.engine.behind:
        return None
    try:
        if may_be_missing(operations, seen.tubes):
            return find_missing(operations, queue, GLANCE, progress)
    except (LedgerError, SettingsError):
        # The ledger's note says why it cannot be read.
        return None
    return Missing((), 0, 0, sure=True)


# -- hints -------------------------------------------------------------------------------------------------------------


def _settings_hints(operations: Operations) -> Iterator[Hint]:
    yield from map(Hint, operations.settings.ignored)
    yield from (Hint(str(check)) for check in not_in_effect(Path(operations.settings.file)))


def _disk_hints(operations: Operations) -> Iterator[Hint]:
    """A full disk is behind much that is wrong, and nothing else here shows it."""
    from glassq.operations.checks.system import disks

    with suppress(OSError, SettingsError):
        yield from (Hint(str(check)) for check in disks(operations) if check.ok is False)


def _queue_hints(operations: Operations, seen: QueueStatus, facts: Iterable[Fact]) -> Iterator[Hint]:
    buried = sum(tube.buried for tube in seen.tubes)
    if buried:
        # its many patterns take a while to compile
        from glassq.operations.groups import summary

        yield summary(buried) or Hint("1 delivery is buried", "buried", "buried")
    yield from (Hint(str(fact)) for fact in facts)
    pausers, now = Pausers(operations), operations.clock()
    for tube in seen.tubes:
        for pause in pauses((tube,), now, pausers):
            yield Hint(f"{pause}; to let it go on", f"resume {shlex.quote(tube.name)}", "paused")
    yield from worker_queues.hints(operations, seen.tubes)
    yield from parked.hints(operations, seen.tubes)
    yield from route_tubes.hints(operations, seen.tubes)
    for tube in seen.tubes:
        if tube.ready and (why := unworked(operations, tube.name)):
            yield Hint(f"{tube.ready} ready: {why}")
    if _nobody_takes(seen):
        yield Hint(f"jobs are ready and nobody takes them: {_why_nobody(seen)}")


def _loss_hints(seen: QueueStatus, journaled: Journaled | None, words: str, missing: Missing | None) -> Iterator[Hint]:
    if journaled is None and words.endswith(" is gone"):
        yield Hint(f"{words}: {GONE_TODO}")
    if journaled is not None and journaled.oldest > STAYS and not seen.refuses:
        yield Hint("pings stay in the journal, though the queue takes jobs now: is glassq-web running? `glassq doctor`")
    if journaled is not None and journaled.damaged:
        yield Hint(f"{journaled.damaged} damaged in the journal", "journal check")
    if journaled is not None and journaled.refused:
        yield Hint(f"{journaled.refused} in the journal are too big for the queue", "journal")
    # else they were on their way: doctor looks through the whole queue
    if missing is not None and missing.deliveries and missing.sure:
        yield Hint(f"{missing.words()}: `glassq doctor` says what to do")


def _in_memory(queue: Inspector, seen: QueueStatus) -> Iterator[Fact]:
    """Whether a job that waits was not written, though the engine writes jobs to disk."""
    if seen.engine.durable and seen.oldest is not None and not seen.oldest.durable:
        words = f"{queue.engine} stopped writing to disk (the oldest ready job is in memory only)"
        yield queue.explain(NotDurable(words))


def _nobody_takes(seen: QueueStatus) -> bool:
    if not seen.sees_consumers or any(tube.waiting or tube.reserved for tube in seen.tubes):
        return False
    main, *pushed = [tube.ready > 0 and not tube.paused_for for tube in seen.tubes]
    # A child that waits for the rate of a push queue does not always wait in the queue's server.
    return main or (any(pushed) and not seen.engine.consumers)


def _why_nobody(seen: QueueStatus) -> str:
    if seen.engine.consumers:
        return "glassq-worker is connected, but pauses (as it does while the queue takes no jobs): look at its log"
    return "is glassq-worker running?"
