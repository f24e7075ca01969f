"""`glassq archive`: buried deliveries out of the queue, into a file.

First all of them are in the file, on disk and read back; only then is the first one deleted from the queue. So whatever
happens in between, a delivery is in the queue, or in a whole file, or in both.
"""

from __future__ import annotations

import hashlib
import secrets
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from glassq.cli import archive_file, completion
from glassq.cli.app import App, as_json, dry_run, examples, pass_app, yes
from glassq.cli.archive_file import Item
from glassq.cli.find import is_ours, look
from glassq.cli.jobs import Done, each_found, number, refused, whole
from glassq.cli.output import confirm, each_of, short_words
from glassq.cli.told import either, recorder, told
from glassq.cli.where import Where, filters, lying, nothing
from glassq.database.plain import file_of
from glassq.errors import JobNotFound, QueueError
from glassq.ledger import Entry
from glassq.operations.words import moment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from glassq.cli.find import Found
    from glassq.queues import Queue
    from glassq.queues.beanstalk.protocol import ScanShort

# Beside the ledger's file, where glassq keeps what must not get lost.
DIRECTORY = "archive"


@dataclass(frozen=True, slots=True)
class Wanted:
    """A buried job as it was chosen: the id that named it, its own, and the SHA-256 of its bytes."""

    text: str
    job: int
    digest: bytes


@click.command(
    epilog=examples(
        ("what lies buried for weeks, so that the binlog gets smaller", "glassq archive --older-than 14d"),
        ("back again, buried as they were", "glassq restore FILE"),
    )
)
@click.argument("ids", metavar="[ID]...", nargs=-1, shell_complete=completion.buried_ids)
@click.option("--all", "everything", is_flag=True, help="Every buried delivery, those of push queues too.")
@filters
@click.option("--limit", metavar="N", type=click.IntRange(1), help="At most so many of those that fit, the oldest.")
@click.option(
    "--to",
    "directory",
    metavar="DIR",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Where the file is made (else in archive/ beside the ledger's file).",
)
@dry_run
@yes
@as_json
@pass_app
def archive(
    app: App,
    ids: tuple[str, ...],
    everything: bool,
    where: Where,
    limit: int | None,
    directory: Path | None,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> int:
    """Take buried deliveries out of the queue, into a file that `glassq restore` puts back.

    A buried job keeps beanstalkd's binlog files from being removed, those of others too. Each run makes one file, with
    checksums; a job leaves the queue only once it is in there and on disk.
    """
    either(ids, everything or bool(where), "buried ones", bool(limit))
    directory = directory.absolute() if directory else _directory(app)
    with app.queue() as queue:
        done: list[Done] = []
        if ids:
            wanted = _named(queue, app, ids, done)
        else:
            wanted = _fitting(app, queue, where, limit, done)
            confirm(
                f"archive {number(len(wanted))} into a file in {directory}?",
                needed=bool(wanted) and not (yes or dry_run),
            )
        if dry_run or not wanted:
            done += [Done(each.text, each.job, None, "would be archived") for each in wanted]
            words = f"{number(len(wanted))} would go into a file in {directory}" if wanted else nothing(where)
            return told(done, as_json, words, every=True, file=None)
        file = directory / f"glassq-{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}.jsonl"
        run = Run(queue, file, done)
        try:
            run.write(wanted)
            with recorder(app) as record:
                run.delete(record)
        except (QueueError, KeyboardInterrupt) as error:
            if run.written:
                run.stopped(error)
                _tell(app, run, as_json, every=bool(ids))
            raise
        return _tell(app, run, as_json, every=bool(ids))


def _directory(app: App) -> Path:
    """The default one, which is made when a file is. Raises click.UsageError where the ledger is no file."""
    ledger = file_of(app.settings.ledger.url)
    if ledger is None:
        raise click.UsageError("--to: expected a directory for the file, as the ledger is no file to put it beside")
    return ledger.absolute().parent / DIRECTORY


def _named(queue: Queue, app: App, ids: Sequence[str], done: list[Done]) -> list[Wanted]:
    found, missing = each_found(queue, app, ids)
    unfit = [refused(text, each, why) for text, each in found if (why := _unfit(queue, each))]
    done += [*missing, *unfit]
    return [_wanted(text, each) for text, each in found if not _unfit(queue, each)]


def _fitting(app: App, queue: Queue, where: Where, limit: int | None, done: list[Done]) -> list[Wanted]:
    """Those that fit, the oldest first."""
    short: list[ScanShort] = []
    # they come newest first
    last = deque((_wanted(str(found.job.id), found) for found in lying(app, queue, where, short.append)), limit)
    done += [Done("--all", None, None, "nothing", short_words(each)) for each in short]
    return list(reversed(last))


def _wanted(text: str, found: Found) -> Wanted:
    return Wanted(text, found.job.id, _digest(found))


def _unfit(queue: Queue, found: Found) -> str:
    """Why it is not archived; "" where it is."""
    if not is_ours(queue.tube, found.stats.tube):
        return f"it is in tube {found.stats.tube}, which is not ours"
    return "" if found.stats.state == "buried" else f"it is {found.stats.state}, not buried"


def _digest(found: Found) -> bytes:
    return hashlib.sha256(found.job.body).digest()


@dataclass(slots=True)
class Run:
    """One file: writing it, and deleting from the queue what is in it. `done` is what came of each job."""

    queue: Queue
    file: Path
    done: list[Done]
    written: list[Wanted] = field(default_factory=list)
    archived: int = 0

    def write(self, wanted: Sequence[Wanted]) -> None:
        """On return the file is on disk, and what can be read there is what is in the queue.

        Raises click.ClickException where it cannot be written, and what the queue raises; then there is no file.
        """
        try:
            if self.file.parent.name == DIRECTORY:
                self.file.parent.mkdir(mode=0o700, exist_ok=True)
            archive_file.write(self.file, self.queue.tube, self._items(wanted))
            if self.written:
                self._read_back()
        except BaseException as error:
            self.written.clear()
            with suppress(OSError):
                self.file.unlink()
            if isinstance(error, OSError):
                why = f"{self.file}: cannot be written: {error.strerror}"
                raise click.ClickException(f"{why}; nothing was archived, the queue is as it was") from None
            raise

    def delete(self, record: Callable[[Entry], None]) -> None:
        """Deletes each job that is in the file, if it is still the same and buried."""
        for each in each_of(self.written, "archived so far", len(self.written)):
            # no interrupt between the two: the ledger would not know where it is
            with whole():
                found = self._same(each, "; a copy of it is in the file")
                if found is None:
                    continue
                try:
                    self.queue.delete(each.job)
                except JobNotFound:
                    self.done.append(refused(each.text, found, "it was worked or removed meanwhile"))
                    continue
                self.archived += 1
                self.done.append(Done(each.text, each.job, found.name or None, "archived"))
                if found.delivery is not None:
                    record(_entry(found, self.file))

    def stopped(self, error: BaseException) -> None:
        """Says what an error or an interrupt has left undone."""
        why = "interrupted" if isinstance(error, KeyboardInterrupt) else str(error)
        left = len(self.written) - self.archived
        words = f"{why}: {number(left)} in the file are not deleted from the queue; the same command archives them anew"
        self.done.append(Done(str(self.file), None, None, "nothing", words))

    def _items(self, wanted: Sequence[Wanted]) -> Iterator[Item]:
        for each in each_of(wanted, "written so far", len(wanted)):
            found = self._same(each)
            if found is not None:
                self.written.append(each)
                yield Item(found.stats.tube, found.job.body, _told(found))

    def _same(self, wanted: Wanted, more: str = "") -> Found | None:
        """The job, if it is what was chosen; else it says what it is not."""
        try:
            found = look(self.queue, wanted.job)
        except JobNotFound:
            self.done.append(
                Done(wanted.text, wanted.job, None, "nothing", f"it was worked or removed meanwhile{more}")
            )
            return None
        why = _unfit(self.queue, found)
        if not why and _digest(found) != wanted.digest:
            why = "it is another delivery's job by now"
        if why:
            self.done.append(refused(wanted.text, found, why + more))
        return None if why else found

    def _read_back(self) -> None:
        """Raises OSError where the file does not hold what was written."""
        mistakes: list[str] = []
        read = [hashlib.sha256(item.data).digest() for item in archive_file.read(self.file, mistakes)]
        if mistakes or read != [each.digest for each in self.written]:
            raise OSError(5, f"what is read back is not what was written ({'; '.join(mistakes[:3]) or 'other jobs'})")


def _told(found: Found) -> dict[str, Any]:
    """What the line in the file says of a job, for people."""
    delivery = found.delivery
    about: dict[str, Any] = {"delivery": None, "source": None, "received": None}
    if delivery is not None:
        about = {"delivery": delivery.id, "source": delivery.source, "received": moment(delivery.received)}
    return {**about, "reason": found.reason, "job": found.job.id}


def _entry(found: Found, file: Path) -> Entry:
    delivery = found.delivery
    assert delivery is not None
    return Entry(
        delivery.id,
        delivery.source,
        delivery.received,
        "archived",
        delivery.attempt,
        datetime.now(UTC),
        0.0,
        reason=str(file),
        tube=found.stats.tube,
    )


def _tell(app: App, run: Run, as_json: bool, *, every: bool) -> int:
    if not run.written:
        return told(run.done, as_json, "nothing was archived", every=every, file=None)
    words = f"{number(run.archived)} archived in {run.file}"
    back = f"{app.command(f'restore {run.file}')} puts them back, buried as they were."
    return told(run.done, as_json, words, back, every=every, file=str(run.file))
