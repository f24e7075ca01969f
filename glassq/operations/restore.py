"""Puts archived deliveries back into the queue, buried as they were."""

from __future__ import annotations

import fcntl
import os
import shlex
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from glassq.delivery import decode, encode
from glassq.errors import (
    Conflict,
    DamagedDelivery,
    GlassqError,
    InvalidRequest,
    JobNotFound,
    LedgerError,
    SearchIncomplete,
    SettingsError,
)
from glassq.ledger import Entry
from glassq.operations import archive_file
from glassq.operations.bulk import digest_of, ended_by, packet_results, step_by_step, succeeded
from glassq.operations.find import unworked, walk_all
from glassq.operations.large import fitted
from glassq.operations.pace import packets_of
from glassq.operations.result import Did, Report, Result, not_done
from glassq.queues.base import NewForm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import datetime
    from pathlib import Path

    from glassq.bodies import BodyStore
    from glassq.delivery import Delivery
    from glassq.errors import QueueError
    from glassq.operations import Operations
    from glassq.operations.archive_file import FileItem
    from glassq.operations.progress import Progress
    from glassq.queues.base import Inspector
    from glassq.settings import Settings

# So many mistakes of one file are told.
MAX_MISTAKES = 20
# The reason of a delivery that was buried without one, by another tool for instance, once it is restored.
NO_REASON = "restored from an archive; it said no reason itself"
_CHANGED = "the file was changed since it was checked"


@dataclass(frozen=True, slots=True)
class ArchivedJob:
    """One job of a file, without its bytes: where it stands, and by what it is known again.

    `delivery` is "" where the job is damaged.
    """

    file: Path
    line: int
    tube: str
    digest: bytes
    delivery: str

    def result(self, did: Did, why: str = "", *, job: str | None = None, planned: bool = False) -> Result:
        """What became of it; `job` is the reference of the job that holds it."""
        return Result(f"{self.file}, line {self.line}", job, self.delivery or None, did, why, planned)


@dataclass(frozen=True, slots=True)
class RestorePlan:
    """What is going to be restored, in the order of the puts.

    `results` are the jobs that are left out, and `damage` what is wrong with the files, a line each.
    """

    jobs: tuple[ArchivedJob, ...]
    results: tuple[Result, ...] = ()
    damage: tuple[str, ...] = ()

    def preview(self) -> Report:
        """The report of a dry run."""
        return Report([*self.results, *(job.result(Did.RESTORED, planned=True) for job in self.jobs)])


@contextmanager
def locked(files: Sequence[Path]) -> Iterator[None]:
    """Nobody else restores these files meanwhile, nor others of their directories: one delivery may stand in several.

    Raises Conflict where somebody does, and InvalidRequest.
    """
    with ExitStack() as opened:
        for directory in sorted({file.resolve().parent for file in files}):
            _lock_directory(directory, opened)
        for file in sorted({file.resolve() for file in files}):
            try:
                handle = opened.enter_context(file.open("rb"))
            except OSError as error:
                raise InvalidRequest(f"{file}: cannot be read: {error.strerror}") from None
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise Conflict(f"{file}: somebody restores it right now") from None
        yield


def _lock_directory(directory: Path, opened: ExitStack) -> None:
    try:
        handle = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        # what is wrong with it, the file in it tells
        return
    opened.callback(os.close, handle)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Conflict(f"{directory}: somebody restores files of it right now") from None


def plan(
    operations: Operations,
    queue: Inspector,
    files: Sequence[Path],
    progress: Progress,
    *,
    skip_damaged: bool = False,
    again: bool = False,
) -> RestorePlan:
    """Which jobs of these files are restored: those that the queue does not hold, and that were not worked since.

    With `skip_damaged` the whole jobs of damaged files are restored, with `again` also those that were worked. Raises
    Conflict where a file is damaged otherwise.
    """
    jobs, damage = _checked(files, progress, skip_damaged=skip_damaged)
    tubes = sorted({job.tube for job in jobs})
    for tube in tubes:
        if why := unworked(operations, tube):
            hint = f"`glassq move --from {shlex.quote(tube)} --to {operations.tube}` moves what is restored there"
            progress.warn(f"{why}; {hint}")
    duplicates = Duplicates(operations)
    duplicates.look(queue, tubes, progress)
    if not again:
        duplicates.ask_ledger(jobs)
    left: list[ArchivedJob] = []
    results = []
    for job in jobs:
        if why := duplicates.why(job):
            results.append(job.result(Did.LEFT_OUT, why))
        else:
            left.append(job)
            # The same job may stand in two files.
            duplicates.add(job.digest, job.delivery)
    return RestorePlan(tuple(left), tuple(results), tuple(damage))


def _checked(files: Sequence[Path], progress: Progress, *, skip_damaged: bool) -> tuple[list[ArchivedJob], list[str]]:
    """What the files hold, and what is wrong with them, which is warned of. Raises Conflict where nothing may be."""
    jobs: list[ArchivedJob] = []
    wrong: list[str] = []
    for file in dict.fromkeys(files):
        mistakes: list[str] = []
        try:
            jobs += [
                ArchivedJob(file, item.line, item.tube, digest_of(item.data), _name(item))
                for item in archive_file.read(file, mistakes)
            ]
        except OSError as error:
            mistakes.append(f"cannot be read: {error.strerror}")
        wrong += [f"{file}: {mistake}" for mistake in mistakes[:MAX_MISTAKES]]
        if len(mistakes) > MAX_MISTAKES:
            wrong.append(f"{file}: and {len(mistakes) - MAX_MISTAKES} more")
    for words in wrong:
        progress.warn(f"left out: {words}" if skip_damaged else words)
    if wrong and not skip_damaged:
        raise Conflict("nothing was restored; --skip-damaged restores the jobs that are whole")
    return jobs, wrong


def _name(item: FileItem) -> str:
    """The id of its delivery; "" where that is damaged."""
    delivery = _delivery(item)
    return delivery.id if delivery else ""


def _delivery(item: FileItem) -> Delivery | None:
    try:
        return decode(item.data)
    except DamagedDelivery:
        return None


@dataclass(slots=True)
class Duplicates:
    """What must not be put once more: what the queue holds, by bytes and ids, and what was worked since."""

    operations: Operations
    _digests: set[bytes] = field(default_factory=set)
    _names: set[str] = field(default_factory=set)
    _worked: dict[str, str] = field(default_factory=dict)

    def look(self, queue: Inspector, tubes: Sequence[str], progress: Progress) -> None:
        """Looks at all jobs of all tubes: what was restored before may have been moved aside since."""
        everywhere = {self.operations.tube, *queue.tubes(), *tubes}
        try:
            for found in walk_all(self.operations, queue, sorted(everywhere), progress):
                self.add(digest_of(found.job.body), found.name)
        except SearchIncomplete as error:
            progress.warn(str(error))

    def add(self, digest: bytes, name: str) -> None:
        """The queue holds this job, or is going to."""
        self._digests.add(digest)
        if name:
            self._names.add(name)

    def ask_ledger(self, jobs: Sequence[ArchivedJob]) -> None:
        """Finds out which deliveries were worked; a ledger that cannot be read knows of none."""
        with suppress(LedgerError, SettingsError), self.operations.ledger() as ledger:
            for job in jobs:
                entry = ledger.exactly(job.delivery) if job.delivery else None
                if entry and entry.state in ("done", "dropped"):
                    self._worked[job.delivery] = entry.state

    def why(self, job: ArchivedJob) -> str:
        """Why it is left out; "" where it is not."""
        if job.digest in self._digests or job.delivery in self._names:
            return "the queue holds it already"
        worked = self._worked.get(job.delivery, "")
        return f"the ledger has it as {worked} (--again restores it all the same)" if worked else ""


def carry_out(operations: Operations, queue: Inspector, plan: RestorePlan, progress: Progress) -> Report:
    """Puts the jobs back, file by file, in the order of their lines.

    Call it, and `plan` before, within `locked(files)`: else two operators may restore the same job twice.
    """
    report, total = Report(list(plan.results)), len(plan.jobs)
    wanted = {(job.file, job.line): job for job in plan.jobs}
    files = dict.fromkeys(job.file for job in plan.jobs)
    items = ((file, item) for file in files for item in _items(file))
    with operations.recorder(progress) as record:
        restorer = Restorer(queue, operations.bodies, record, operations.clock, operations.settings)

        try:
            steps = ((job, item) for file, item in items if (job := wanted.pop((file, item.line), None)))
            packets = packets_of(steps)
            step_by_step(report, packets, restorer.restore, progress, "restored so far", total, start=len(plan.results))
            report.results += [job.result(Did.NOTHING, _CHANGED) for job in wanted.values()]
        except GlassqError as error:
            report.error = error
            so_far = f"{report.count(Did.RESTORED)} of {total} are restored"
            again = "the same command goes on with the rest"
            report.results.append(not_done("the rest", f"{ended_by(error)}: {so_far}; {again}"))
    return report


def _items(file: Path) -> Iterator[FileItem]:
    """The jobs of a file that was checked. Raises Conflict where it cannot be read any more."""
    try:
        yield from archive_file.read(file, [])
    except OSError as error:
        raise Conflict(f"{file}: cannot be read: {error.strerror}") from None


@dataclass(frozen=True, slots=True)
class Restorer:
    """Puts jobs back, their stored bodies before them, and records in the ledger that they are buried.

    `settings` say what fits into a job.
    """

    queue: Inspector
    bodies: BodyStore
    record: Callable[[Entry], None]
    clock: Callable[[], datetime]
    settings: Settings

    def restore(self, packet: Sequence[tuple[ArchivedJob, FileItem]]) -> Iterator[Result]:
        """What became of these jobs, whose bytes are in their items. Raises QueueError after the last result."""
        left = []
        for job, item in packet:
            if digest_of(item.data) == job.digest and self._store_body(item, job.delivery):
                left.append((job, item, self._restored(item)))
            else:
                yield job.result(Did.NOTHING, _CHANGED)
        refs = self.queue.insert_all([NewForm(body, item.tube, "buried") for _, item, (_, body) in left])

        def done(answer: tuple[ArchivedJob, FileItem, Delivery | None, str | QueueError]) -> Result:
            job, item, delivery, ref = answer
            ref = succeeded(ref)
            if delivery is not None:
                self.record(_entry(delivery, ref, item.tube, self.clock()))
            return job.result(Did.RESTORED, job=ref)

        answers = [(job, item, delivery, ref) for (job, item, (delivery, _)), ref in zip(left, refs, strict=True)]
        yield from packet_results(answers, done, lambda answer, error: answer[0].result(Did.NOTHING, _why(error)))

    def _store_body(self, item: FileItem, key: str) -> bool:
        """Puts a stored body back; whether it still is as it was checked. Raises BodyError."""
        if item.body is None:
            return True
        self.bodies.prepare()
        # should an earlier try have left one
        self.bodies.delete(key)
        writer = self.bodies.begin(key, item.body.stored.size)
        try:
            for part in item.body.parts():
                writer.write(part)
            return writer.finish() == item.body.stored
        except (ValueError, OSError):
            return False
        finally:
            writer.discard()

    def _restored(self, item: FileItem) -> tuple[Delivery | None, bytes]:
        """The delivery of an item, if it is whole, and the bytes of its job; if possible those of the file.

        Raises SettingsError and BodyError if its body must be stored, and cannot be.
        """
        delivery = _delivery(item)
        if delivery is None:
            return None, item.data
        fit = fitted(self.settings, self.bodies, delivery)
        if fit is delivery and delivery.buried and delivery.tube in ("", item.tube):
            return delivery, item.data
        # Should we die before the job is buried, the pool buries it: the delivery itself says so.
        fit = msgspec.structs.replace(fit, buried=delivery.buried or NO_REASON, tube=item.tube)
        return fit, encode(fit, self.settings.queue.url.largest)


def _why(error: QueueError) -> str:
    taken = "it is in the queue, but not buried: a consumer took it meanwhile"
    return taken if isinstance(error, JobNotFound) else str(error)


def _entry(delivery: Delivery, ref: str, tube: str, now: datetime) -> Entry:
    return Entry(
        delivery.id,
        delivery.source,
        delivery.received,
        "buried",
        delivery.attempt,
        now,
        0.0,
        job=ref,
        reason=delivery.buried,
        tube=tube,
        story=delivery.evidence,
    )
