"""Takes buried deliveries out of the queue, into a file.

First all of them are in the file, on disk and read back. Only then is the first one deleted from the queue. So whatever
happens in between, a delivery is in the queue, or in a whole file, or in both. A stored body is in the file as well,
and leaves the store after its job has left the queue.
"""

from __future__ import annotations

import re
import secrets
import shlex
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from glassq.bodies import check
from glassq.errors import BodyDamaged, BodyError, BodyLost, Conflict, GlassqError, InvalidRequest, JobNotFound
from glassq.files import sync_directory
from glassq.ledger import Entry
from glassq.operations import archive_file
from glassq.operations.archive_file import FileItem
from glassq.operations.archived_body import BodyInStore
from glassq.operations.bulk import (
    Plan,
    act_on_packet,
    digest_of,
    ended_by,
    look_again,
    not_ours,
    plan_buried,
    plan_named,
    state_words,
    step_by_step,
)
from glassq.operations.pace import packets_of
from glassq.operations.places import beside_ledger
from glassq.operations.result import Did, Report, not_done
from glassq.operations.words import deliveries, moment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from glassq.delivery import Delivery
    from glassq.errors import QueueError
    from glassq.operations import Operations
    from glassq.operations.bulk import Chosen
    from glassq.operations.filters import Selection
    from glassq.operations.find import Found
    from glassq.operations.progress import Progress
    from glassq.operations.result import Result
    from glassq.queues.base import Inspector

# Beside the ledger's file, where glassq keeps what must not get lost.
DIRECTORY = "archive"
# What is done before anything leaves the queue, as progress tells it.
WRITING = "written so far"
_WAY_BACK = re.compile(r"`glassq restore ([^`]+)`")


@dataclass(slots=True)
class ArchiveReport(Report):
    """See Report. `file` holds what was archived; None where no file was made."""

    file: Path | None = None


def default_directory(operations: Operations) -> Path:
    """Where files are made unless a directory is named. Raises InvalidRequest where the ledger is no file."""
    directory = beside_ledger(operations.settings, DIRECTORY)
    if directory is None:
        raise InvalidRequest(
            "--to: expected a directory for the file, such as /var/lib/glassq, as the ledger is none to put it beside"
        )
    return directory


def plan(operations: Operations, queue: Inspector, selection: Selection, progress: Progress) -> Plan:
    """Which jobs are archived. Of those that fit a filter the oldest come first, and `limit` counts from there."""
    selection.check()
    if selection.ids:

        def refuse(found: Found) -> str:
            why = not_ours(operations, found)
            return why or ("" if found.is_buried else f"it is {state_words(found.job)}, not buried")

        return plan_named(operations, queue, selection.ids, progress, Did.ARCHIVED, refuse)
    newest_first = plan_buried(operations, queue, replace(selection, limit=None), progress, Did.ARCHIVED)
    return replace(newest_first, chosen=newest_first.chosen[::-1][: selection.limit])


def carry_out(
    operations: Operations,
    queue: Inspector,
    plan: Plan,
    progress: Progress,
    directory: Path,
    kept: Callable[[Path], object] = lambda _file: None,
) -> ArchiveReport:
    """Writes one new file in the directory, then deletes from the queue what is in it; `kept` is told it in between.

    Where the file cannot be written, there is none, and the report's error is a Conflict.
    """
    report = ArchiveReport(list(plan.results))
    if not plan.chosen:
        return report
    now = operations.clock()
    file = directory / f"glassq-{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}.jsonl"
    archiver = Archiver(operations, queue, file, report)
    try:
        archiver.write(plan, progress)
        if archiver.written:
            kept(file)
        with operations.recorder(progress) as record:
            archiver.delete(record, progress)
    except GlassqError as error:
        report.error = error
        archiver.tell_left(error)
    if archiver.written:
        report.file = file
        report.words.append(way_back(file))
    return report


def way_back(file: Path) -> str:
    """How what is in this file is put back."""
    return f"`glassq restore {shlex.quote(str(file))}` puts them back, buried as they were."


def file_in(note: str) -> str:
    """The file whose way back a note tells; "" where it tells none."""
    found = _WAY_BACK.search(note)
    if found is None:
        return ""
    try:
        return next(iter(shlex.split(found[1])), "")
    except ValueError:
        # one that was masked, or cut off
        return found[1]


@dataclass(slots=True)
class Archiver:
    """Writes one file, and deletes from the queue the jobs that are `written` there.

    `bodiless` are deliveries whose stored bodies are lost or damaged, and not in the file.
    """

    operations: Operations
    queue: Inspector
    file: Path
    report: ArchiveReport
    written: list[Chosen] = field(default_factory=list)
    bodiless: set[str] = field(default_factory=set)

    def write(self, plan: Plan, progress: Progress) -> None:
        """On return the file is on disk, and it reads as what the queue holds.

        Raises Conflict where it cannot be written, Stopped, and QueueError; then there is no file.
        """
        try:
            if self.file.parent.name == DIRECTORY:
                self.file.parent.mkdir(mode=0o700, exist_ok=True)
                sync_directory(self.file.parent.parent)
            archive_file.write(self.file, self.operations.tube, self._items(plan, progress))
            if self.written:
                self._read_back()
        except BaseException as error:
            self.written.clear()
            with suppress(OSError):
                self.file.unlink()
            if isinstance(error, OSError):
                why = f"{self.file}: cannot be written: {error.strerror}"
                raise Conflict(f"{why}; nothing was archived, the queue is as it was") from None
            raise

    def delete(self, record: Callable[[Entry], None], progress: Progress) -> None:
        """Deletes each job that is in the file, if it is still the same and buried. Raises Stopped and QueueError."""

        def act(packet: Sequence[Chosen]) -> Iterator[Result]:
            for result in act_on_packet(self.operations, self.queue, packet, self._delete, deleted):
                lost = result.did is Did.NOTHING
                yield replace(result, why=f"{result.why}; a copy of it is in the file") if lost else result

        def deleted(job: Chosen, found: Found, _answer: None) -> Result:
            if found.delivery is not None:
                record(self._entry(found))
                self._remove_body(found.delivery)
            return job.result(Did.ARCHIVED)

        start, packets = len(self.report.results), packets_of(self.written)
        step_by_step(self.report, packets, act, progress, "archived so far", len(self.written), start=start)

    def tell_left(self, error: GlassqError) -> None:
        """Adds to the report what an error has left undone."""
        left = deliveries(len(self.written) - self.report.count(Did.ARCHIVED))
        again = "the same command archives them anew"
        if self.written:
            words = f"{ended_by(error)}: {left} in the file are not deleted from the queue; {again}"
            self.report.results.append(not_done(str(self.file), words))

    def _items(self, plan: Plan, progress: Progress) -> Iterator[FileItem]:
        done = 0
        for packet in packets_of(plan.chosen):
            progress.advance(done, len(plan.chosen), WRITING)
            done += len(packet)
            for job, found in look_again(self.operations, self.queue, packet):
                if isinstance(found, JobNotFound):
                    self.report.results.append(job.result(Did.NOTHING, str(found)))
                    continue
                self.written.append(job)
                body = self._body(found.delivery, progress)
                yield FileItem(found.tube, found.job.body, _told(found), body=body)

    def _body(self, delivery: Delivery | None, progress: Progress) -> BodyInStore | None:
        """The stored body, if there is one. Raises BodyError where it cannot be read now."""
        if delivery is None or delivery.stored is None:
            return None
        try:
            check(self.operations.bodies, delivery.id, delivery.stored)
        except (BodyLost, BodyDamaged) as error:
            progress.warn(f"archived without its body: {error}")
            self.bodiless.add(delivery.id)
            return None
        return BodyInStore(self.operations.bodies, delivery.id, delivery.stored)

    def _remove_body(self, delivery: Delivery) -> None:
        for key in delivery.stored_keys:
            # what cannot be removed is swept in time
            with suppress(BodyError):
                # a file holds bodies alone: of results, which can be made again, the store keeps what it has
                if key == delivery.id and key not in self.bodiless:
                    self.operations.bodies.delete(key)
                else:
                    self.operations.bodies.retire(key)

    def _delete(self, found: Sequence[Found]) -> list[QueueError | None]:
        return self.queue.delete_all([each.job for each in found])

    def _read_back(self) -> None:
        """Raises OSError where the file does not hold what was written."""
        mistakes: list[str] = []
        read = [digest_of(item.data) for item in archive_file.read(self.file, mistakes)]
        if mistakes or read != [job.digest for job in self.written]:
            raise OSError(5, f"what is read back is not what was written ({'; '.join(mistakes[:3]) or 'other jobs'})")

    def _entry(self, found: Found) -> Entry:
        delivery = found.delivery
        assert delivery is not None
        return Entry(
            delivery.id,
            delivery.source,
            delivery.received,
            "archived",
            delivery.attempt,
            self.operations.clock(),
            0.0,
            reason=str(self.file),
            tube=found.tube,
            story=delivery.evidence,
        )


def _told(found: Found) -> dict[str, Any]:
    """What the line in the file says of a job, for people."""
    delivery = found.delivery
    about: dict[str, Any] = {"delivery": None, "source": None, "received": None}
    if delivery is not None:
        about = {"delivery": delivery.id, "source": delivery.source, "received": moment(delivery.received)}
    return {**about, "reason": found.reason, "job": found.ref}
