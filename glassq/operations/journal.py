"""What the intake journal keeps on disk until the queue has it: a look, moving it on now, and a check of its files."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glassq.bodies import check as check_body
from glassq.bodies import open_bodies
from glassq.bodies.waiting import WaitingBodies
from glassq.delivery import decode
from glassq.errors import BodyDamaged, BodyLost, DamagedDelivery, GlassqError, SettingsError
from glassq.intake.tubes import PingTubes
from glassq.journal import Journal
from glassq.local_http import get
from glassq.operations.put import PROOF_WITHIN
from glassq.queues.packets import PacketMover

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from glassq.errors import QueueError
    from glassq.journal import ExaminedFile, JournalRecord
    from glassq.operations import Operations
    from glassq.operations.progress import Progress
    from glassq.queues.base import Producer

# Intake answers within this many seconds, or nobody knows whether it runs.
TIMEOUT = 2.0
GONE_TODO = "glassq-web makes it anew once it can: its log says what keeps it from that; if it was moved, move it back"


@dataclass(frozen=True, slots=True)
class MovedOn:
    """What moving on came to: the numbers of deliveries `before`, that were put, that are left, and set aside.

    `error` is what ended it early, if anything did.
    """

    before: int
    moved: int
    left: int
    damaged: int
    refused: int
    error: GlassqError | None = None

    def document(self) -> dict[str, int]:
        """The counts for JSON; `drained` is the name of `moved` in the last release, for one more."""
        counts = {"moved": self.moved, "left": self.left, "damaged": self.damaged, "refused": self.refused}
        return {**counts, "drained": self.moved}


@dataclass(frozen=True, slots=True)
class JournalCheck:
    """What is in each file of the journal. `bodiless` says which large bodies of its deliveries are lost or damaged."""

    files: tuple[ExaminedFile, ...]
    bodiless: tuple[str, ...] = ()

    @property
    def damaged(self) -> int:
        """How many files are damaged."""
        return sum(1 for file in self.files if file.damage)

    def document(self) -> dict[str, Any]:
        """The files for JSON."""
        return {
            "damaged": self.damaged,
            "files": [asdict(file) for file in self.files],
            "bodiless": list(self.bodiless),
        }


def open_journal(operations: Operations) -> Journal | None:
    """The journal of the settings; None where there is none, as operators do not make it. Raises SettingsError."""
    settings = operations.settings
    directory = Path(settings.intake.journal)
    try:
        directory.stat()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SettingsError(
            f'{settings.file}: [intake] journal = "{directory}": cannot be read: {error.strerror}'
        ) from None
    return Journal(directory, max_size=settings.intake.journal_max, min_free=settings.intake.journal_min_free)


def gone(operations: Operations) -> str:
    """Says that the journal's directory is missing although intake runs, which makes it at its start; else ""."""
    directory, bind = Path(operations.settings.intake.journal), operations.settings.intake.bind
    if directory.exists() or bind.place is None:
        return ""
    try:
        status, said = get(bind.place, "/readyz", timeout=TIMEOUT)
    except (OSError, HTTPException):
        return ""
    # asked, it has looked at its journal, and perhaps made it anew
    runs = (said.startswith("ready") or status == 503) and not directory.exists()
    return f"the journal's directory {directory} is gone" if runs else ""


def move_on(operations: Operations, progress: Progress) -> MovedOn:
    """Puts what is in the journal into the queue, oldest first. It goes from the journal once that has proven it.

    Raises SettingsError, and JournalError where the journal cannot be read.
    """
    journal = open_journal(operations)
    if journal is None:
        return MovedOn(0, 0, 0, 0, 0)
    before = journal.look()
    if not before.count:
        return MovedOn(0, 0, 0, before.damaged, before.refused)
    mover, error = _Mover(operations, progress, before.count), None
    with operations.producer() as producer:
        try:
            mover.move_on(journal, producer)
            if not mover.moved and journal.look().count:
                # perhaps nothing could be tried, as glassq-web holds it back while the queue takes nothing
                producer.check(within=PROOF_WITHIN)
        except GlassqError as raised:
            error = raised
    after = journal.look()
    return MovedOn(before.count, mover.moved, after.count, after.damaged, after.refused, error)


def check(operations: Operations, progress: Progress) -> JournalCheck:
    """Reads each file of the journal, and the large bodies that its deliveries name; changes nothing.

    Raises SettingsError, JournalError, Stopped, and BodyError where the bodies cannot be read now.
    """
    if (journal := open_journal(operations)) is None:
        return JournalCheck(())
    return JournalCheck(tuple(journal.examine()), tuple(_bodiless(operations, journal, progress)))


def _bodiless(operations: Operations, journal: Journal, progress: Progress) -> Iterator[str]:
    bodies = WaitingBodies.of(operations.settings, journal) or open_bodies(operations.settings)
    total = journal.look().count
    for number, record in enumerate(journal.waiting()):
        progress.advance(number, max(number, total), "deliveries looked at so far")
        try:
            delivery = decode(record.body)
            if delivery.stored is not None:
                check_body(bodies, delivery.id, delivery.stored)
        except DamagedDelivery:
            # a file that lost some bytes is told by itself
            continue
        except (BodyLost, BodyDamaged) as error:
            yield str(error)


@dataclass(slots=True)
class _Mover:
    """Puts packets; so far `moved` of `total` deliveries."""

    operations: Operations
    progress: Progress
    total: int
    moved: int = 0

    def move_on(self, journal: Journal, producer: Producer) -> None:
        """Raises Stopped, QueueError and JournalError; what was put until then is put."""

        def put(packet: Sequence[JournalRecord]) -> Mapping[str, QueueError]:
            self.progress.advance(self.moved, self.total, "put into the queue so far")
            jobs = tubes.jobs(packet)
            left = mover.put(jobs)
            self.moved += len(jobs) - len(left)
            return left

        tubes = PingTubes.of(self.operations.settings)
        mover = PacketMover(producer, within=math.inf, proof=PROOF_WITHIN)
        bodies = WaitingBodies.of(self.operations.settings, journal)
        try:
            journal.move_on(put if bodies is None else bodies.first(put))
        finally:
            # it is still in the journal
            mover.withdraw()
