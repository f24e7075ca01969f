"""Removes all that is kept of the deliveries with some labels: from queue, journal, ledger, bodies and archives.

A delivery's row in the ledger goes first, as a row may have no labels: then its job, or its archived line, is what it
is found by when this is run again. A stored body goes after its job, as a job without it would fail. What only waits in
the journal is put into the queue, and removed there; a body that waits beside the journal is erased first, and stored
nowhere.
"""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glassq.bodies import by_owner, open_bodies, owner
from glassq.bodies.waiting import WaitingBodies
from glassq.delivery import decode
from glassq.errors import DamagedDelivery, GlassqError, InvalidRequest, SearchIncomplete
from glassq.operations import archive, archive_file, journal, restore
from glassq.operations.bulk import AT_WORK, Plan, act_on_packet, chosen, end_early, step_by_step
from glassq.operations.filters import Filter, parse
from glassq.operations.find import our_tubes, walk_all
from glassq.operations.pace import packets_of
from glassq.operations.result import Did, Report, remark

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from glassq.bodies import BodyStore
    from glassq.errors import QueueError
    from glassq.journal import Journal, JournalRecord
    from glassq.ledger.corrections import Corrections
    from glassq.operations import Operations
    from glassq.operations.archive_file import FileItem
    from glassq.operations.bulk import Chosen
    from glassq.operations.find import Found
    from glassq.operations.progress import Progress
    from glassq.operations.result import Result
    from glassq.queues.base import Inspector

# What no operation can remove, for whoever has to answer that everything is gone.
BEYOND = (
    "backups, and copies of the queue's or the ledger's files",
    "log lines, which have ids and reasons but no bodies",
    "what handlers, and the targets of push queues, have made of it",
    "archives that are not in the directories above, unless --archive names them",
    "rows of the ledger without labels ([ledger] keep_bodies = false), which go after [ledger] retention",
    "deleted jobs in the queue's own files, until the queue writes over or removes them",
    "what has left the intake journal, until its file there is removed, which happens once all of it has left",
)

# What a result is about where not all jobs could be looked at.
QUEUE = "queue"
CAME_BACK = "it was worked meanwhile, and is in the queue again: run this again"
UNREADABLE = "has parts that cannot be read, so nobody knows whose they are: remove it once you need it no more"


@dataclass(slots=True)
class Places:
    """How many deliveries are, or were, in which place."""

    queue: int = 0
    journal: int = 0
    ledger: int = 0
    bodies: int = 0
    archives: dict[Path, int] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """How many there are in all places; a delivery may be in several."""
        return self.queue + self.journal + self.ledger + self.bodies + sum(self.archives.values())

    def document(self) -> dict[str, Any]:
        """The counts for JSON."""
        counts = {"queue": self.queue, "journal": self.journal, "ledger": self.ledger, "bodies": self.bodies}
        return {**counts, "archives": {str(path): count for path, count in self.archives.items()}}


@dataclass(frozen=True, slots=True)
class ForgetPlan(Plan):
    """The jobs, the ids of `rows` in the ledger, the `files` that hold some, and how many deliveries are where."""

    wanted: Filter = field(default_factory=Filter)
    rows: frozenset[str] = frozenset()
    files: tuple[Path, ...] = ()
    places: Places = field(default_factory=Places)


@dataclass(slots=True)
class ForgetReport(Report):
    """See Report. `places` are where something was removed."""

    places: Places = field(default_factory=Places)


def wanted(conditions: Sequence[str], source: str | None) -> Filter:
    """Which deliveries are meant: those with all these labels, of this source. Raises InvalidRequest."""
    other = next((words for words in conditions if not words.startswith(("label.", "source="))), "")
    made = parse(() if other else conditions, Filter(source=source))
    if other or not made.labels:
        found = f"condition {other}: " if other else ""
        raise InvalidRequest(f"{found}expected label.NAME=VALUE, once or several times, and source=NAME if you like")
    if len({name for name, _ in made.labels}) < len(made.labels):
        raise InvalidRequest("a label has one value: expected each name once")
    return made


def plan(
    operations: Operations, queue: Inspector, asked: Filter, progress: Progress, extra: Sequence[Path] = ()
) -> ForgetPlan:
    """Looks at every place, and changes nothing. `extra` are archives, or directories of them, beside the usual one.

    Raises Unsupported where the engine cannot show its jobs, QueueError, LedgerError, SettingsError, JournalError and
    InvalidRequest.
    """
    jobs, results = _jobs(operations, queue, asked, progress)
    with operations.ledger() as ledger:
        rows = frozenset(ledger.labelled(dict(asked.labels), asked.source))
        unsettled = rows & {each.delivery for each in ledger.open_ones()}
        files = _archives(operations, extra, (entry.reason for entry in ledger.recent(100_000, "archived")))
    if unsettled - {job.delivery for job in jobs} - {result.delivery for result in results}:
        # lost, or given back while we looked: then it has a new place, where we had been already
        jobs, results = _jobs(operations, queue, asked, progress)
    incomplete = any(result.general for result in results)
    archived, damaged = _look_into(files, asked, progress)
    kept = journal.open_journal(operations)
    waiting, unreadable = _in_journal(kept, asked) if kept else (0, [])
    # what is worked now needs its body, and will be written into the ledger once more; so may what was not found
    rows = frozenset() if incomplete else rows - {result.delivery for result in results}
    ids = rows | {job.delivery for job in jobs}
    bodies = sum(owner(body.key) in ids for body in open_bodies(operations.settings).list())
    in_queue = len(jobs) + sum(not result.general for result in results)
    places = Places(in_queue, waiting, len(rows), bodies, archived)
    return ForgetPlan(
        Did.FORGOTTEN, tuple(jobs), (*results, *damaged, *unreadable), asked, rows, tuple(archived), places
    )


def carry_out(operations: Operations, queue: Inspector, plan: ForgetPlan, progress: Progress) -> ForgetReport:
    """Removes what is still as it was planned; what ended it early is in the report."""
    report = ForgetReport(list(plan.results))
    bodies = open_bodies(operations.settings)
    forgetter = Forgetter(operations, queue, report, bodies, by_owner(bodies))
    try:
        with ExitStack() as opened:
            forgetter.open(opened)
            forgetter.commands(plan.wanted)
            jobs = frozenset(job.delivery for job in plan.chosen if job.delivery)
            forgetter.rows(plan.rows, jobs, progress)
            forgetter.jobs(plan.chosen, progress)
            if plan.places.journal:
                forgetter.journal(plan.wanted, progress)
            for path in plan.files:
                forgetter.archive(path, plan.wanted, progress)
            forgetter.look_again(plan.wanted, progress)
    except GlassqError as error:
        end_early(report, plan, error, "what was not removed is found again by the same command")
    return report


@dataclass(slots=True)
class Forgetter:
    """Removes deliveries from one place after the other, and counts them in the report.

    `stored` are the keys in the store, by the delivery that they belong to.
    """

    operations: Operations
    queue: Inspector
    report: ForgetReport
    store: BodyStore
    stored: Mapping[str, Sequence[str]]
    _ledger: Corrections | None = None

    def open(self, opened: ExitStack) -> None:
        """Opens the ledger, where there is one. Raises LedgerError and SettingsError."""
        from glassq.ledger.corrections import Corrections

        with self.operations.ledger() as ledger:
            if not ledger.absent:
                self._ledger = opened.enter_context(Corrections(self.operations.settings.ledger))

    def commands(self, asked: Filter) -> None:
        """What was done for these labels before, in the ledger. Raises LedgerError."""
        if self._ledger is not None:
            self._ledger.unnamed(asked.labels)

    def rows(self, ids: Iterable[str], jobs: frozenset[str], progress: Progress) -> None:
        """From the ledger, with the bodies of those that have no job any more. Raises LedgerError and Stopped."""
        for packet in packets_of(sorted(ids)):
            progress.advance(self.report.places.ledger, 0, "removed from the ledger so far")
            # the row is what a body is found by
            self.bodies(set(packet) - jobs)
            self._erase(packet)

    def jobs(self, jobs: Sequence[Chosen], progress: Progress) -> None:
        """From the queue, if nobody works them now. Raises QueueError, LedgerError and Stopped."""

        def act(packet: Sequence[Chosen]) -> Iterator[Result]:
            return act_on_packet(self.operations, self.queue, packet, delete, forgotten)

        def delete(found: Sequence[Found]) -> list[QueueError | None]:
            self._erase([each.name for each in found])
            return self.queue.delete_all([each.job for each in found])

        def forgotten(each: Chosen, found: Found, _answer: None) -> Result:
            self.report.places.queue += 1
            self.bodies([found.name])
            return each.result(Did.FORGOTTEN)

        start = len(self.report.results)
        step_by_step(self.report, packets_of(jobs), act, progress, "forgotten so far", len(jobs), start=start)

    def journal(self, asked: Filter, progress: Progress) -> None:
        """By way of the queue. Raises JournalError, and what `jobs` raises."""
        kept = journal.open_journal(self.operations)
        if kept is None:
            return
        self._waiting_bodies(kept, asked)
        for record in kept.refused():
            if _fits(record.body, asked):
                self._erase([record.key])
                kept.forget_refused(record.key)
                self.bodies([record.key])
                self.report.places.journal += 1
        moved = journal.move_on(self.operations, progress)
        if moved.moved:
            # glassq-web may have moved some on as well, with their bodies
            self.stored = by_owner(self.store)
            jobs, results = _jobs(self.operations, self.queue, asked, progress)
            self.report.results += results
            self.jobs(jobs, progress)
        if left := _count(kept.waiting(), asked):
            why = str(moved.error) if moved.error else "glassq-web is about to move them on itself: run this again"
            self.report.results.append(remark("journal", f"{left} are still in it: {why}"))
        # last, as what has moved on may have left a damaged file
        self._damaged(kept, asked)

    def _waiting_bodies(self, kept: Journal, asked: Filter) -> None:
        """What waits beside the journal, as the store does not take it. Raises JournalError, and BodyError."""
        if (beside := WaitingBodies.of(self.operations.settings, kept)) is not None:
            everywhere = (
                *kept.waiting(),
                *kept.refused(),
                *(each.bare for file in kept.damaged() for each in file.records),
            )
            keys = [record.key for record in everywhere if _fits(record.body, asked)]
            self.report.places.bodies += sum(map(beside.erase, keys))

    def _damaged(self, kept: Journal, asked: Filter) -> None:
        """Copies of what has moved on; rows and bodies of those that have no job any more. Raises JournalError."""
        worked = {result.delivery for result in self.report.results if result.why == AT_WORK}
        known = {result.id for result in self.report.results}
        for file in kept.damaged():
            if file.unreadable and str(file.path) not in known:
                self.report.results.append(remark(str(file.path), UNREADABLE))
            if gone := [record for record in file.records if _fits(record.body, asked)]:
                free = [record.key for record in gone if record.key not in worked and QUEUE not in known]
                self._erase(free)
                kept.erase_damaged(file.path, gone)
                self.bodies(free)
                self.report.places.journal += len(gone)

    def archive(self, path: Path, asked: Filter, progress: Progress) -> None:
        """Writes the file anew without them. Raises Conflict where somebody restores it now, and LedgerError."""
        gone: list[str] = []

        def keep(item: FileItem) -> bool:
            fits = _fits(item.data, asked)
            if fits:
                gone.append(decode(item.data).id)
            return not fits

        progress.advance(len(self.report.places.archives), 0, f"rewriting {path}")
        with restore.locked([path]), progress.defer_signals():
            # the ledger's rows go first: see above
            for item in archive_file.read(path, []):
                keep(item)
            self._erase(gone)
            gone.clear()
            try:
                archive_file.rewrite(path, keep)
            except (OSError, ValueError) as error:
                why = error.strerror if isinstance(error, OSError) else error
                self.report.results.append(remark(str(path), f"is as it was: {why}"))
                return
        self.report.places.archives[path] = len(gone)
        self.bodies(gone)

    def look_again(self, asked: Filter, progress: Progress) -> None:
        """Names what came back to the queue meanwhile. Raises QueueError and Stopped."""
        left, worked = _jobs(self.operations, self.queue, asked, progress)
        told = {result.delivery for result in self.report.results if result.did is Did.NOTHING}
        found = [*(job.result(Did.NOTHING, CAME_BACK) for job in left), *(each for each in worked if not each.general)]
        self.report.results += [result for result in found if result.delivery not in told]

    def bodies(self, ids: Iterable[str]) -> None:
        """From the store, once nothing names them any more. Raises BodyError."""
        for key in (key for name in ids for key in self.stored.get(name, ())):
            self.store.delete(key)
            self.report.places.bodies += 1

    def _erase(self, ids: Sequence[str]) -> None:
        """From the ledger. Raises LedgerError."""
        names = [name for name in ids if name]
        if self._ledger is not None:
            self.report.places.ledger += self._ledger.forgotten(names)


def _jobs(
    operations: Operations, queue: Inspector, asked: Filter, progress: Progress
) -> tuple[list[Chosen], list[Result]]:
    """The jobs of our tubes that fit, and a result for each that is being worked."""
    jobs, results = [], []
    tubes = our_tubes(operations, queue)
    try:
        for found in filter(asked.fits, walk_all(operations, queue, tubes, progress)):
            each = chosen(found.ref, found)
            if found.job.state == "reserved":
                results.append(each.result(Did.NOTHING, AT_WORK))
            else:
                jobs.append(each)
    except SearchIncomplete as error:
        results.append(remark(QUEUE, f"{error}; what the ledger has of them is left until then: run this again"))
    return jobs, results


def _archives(operations: Operations, extra: Sequence[Path], recorded: Iterable[str]) -> list[Path]:
    """The archives that are known: in the usual directory, where the ledger says, and those that are named."""
    places = [*extra, *map(Path, recorded)]
    with suppress(InvalidRequest):
        # where the ledger is a file
        places.append(archive.default_directory(operations))
    found: dict[Path, None] = {}
    for place in places:
        files = sorted(place.glob("*.jsonl")) if place.is_dir() else [place]
        found.update(dict.fromkeys(path.resolve() for path in files if path.is_file()))
    return list(found)


def _look_into(files: Sequence[Path], asked: Filter, progress: Progress) -> tuple[dict[Path, int], list[Result]]:
    """How many deliveries each file has that fit, and a result for each file that cannot be looked through."""
    counts: Counter[Path] = Counter()
    results = []
    for done, path in enumerate(files):
        progress.advance(done, len(files), "looking into archives")
        mistakes: list[str] = []
        try:
            fitting = sum(_fits(item.data, asked) for item in archive_file.read(path, mistakes))
        except OSError as error:
            mistakes, fitting = [f"cannot be read: {error.strerror}"], 0
        if mistakes:
            results.append(remark(str(path), f"is left as it is: {mistakes[0]}"))
        elif fitting:
            counts[path] = fitting
    return dict(counts), results


def _in_journal(kept: Journal, asked: Filter) -> tuple[int, list[Result]]:
    """How many deliveries in the journal fit, and a result for each file of which nobody can tell."""
    number, results = _count(kept.waiting(), asked) + _count(kept.refused(), asked), []
    for file in kept.damaged():
        number += _count((record.bare for record in file.records), asked)
        if file.unreadable:
            results.append(remark(str(file.path), UNREADABLE))
    return number, results


def _count(records: Iterable[JournalRecord], asked: Filter) -> int:
    return sum(_fits(record.body, asked) for record in records)


def _fits(job: bytes, asked: Filter) -> bool:
    """Whether a job's bytes are a delivery that is meant."""
    try:
        delivery = decode(job)
    except DamagedDelivery:
        return False
    named = all(delivery.labels.get(name) == value for name, value in asked.labels)
    return named and asked.source in (None, delivery.source)
