"""What intake keeps on disk while the queue cannot take it, and putting that into the queue now."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from glassq.errors import GlassqError, SettingsError
from glassq.intake.spool import Spool
from glassq.queues.base import NewJob, Refusal

if TYPE_CHECKING:
    from glassq.operations import Operations
    from glassq.operations.progress import Progress
    from glassq.queues.base import Producer


@dataclass(frozen=True, slots=True)
class Drained:
    """What draining came to: how many deliveries lay in the spool `before`, were put, are left, and are damaged.

    `error` is what ended it early, if anything did.
    """

    before: int
    drained: int
    left: int
    damaged: int
    error: GlassqError | None = None

    def document(self) -> dict[str, int]:
        """The counts for JSON."""
        return {"drained": self.drained, "left": self.left, "damaged": self.damaged}


def open_spool(operations: Operations) -> Spool | None:
    """The spool of the settings; None where there is none, as operators do not make it. Raises SettingsError."""
    settings = operations.settings
    directory = Path(settings.intake.journal)
    try:
        owner = directory.stat()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SettingsError(
            f'{settings.file}: [intake] journal = "{directory}": cannot be read: {error.strerror}'
        ) from None
    if os.geteuid() == 0 and owner.st_uid:
        # Else the lock would be root's, and intake could never drain again.
        with os.fdopen(os.open(directory / ".lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)) as lock:
            os.fchown(lock.fileno(), owner.st_uid, owner.st_gid)
    return Spool(directory, max_size=settings.intake.journal_max, min_free=settings.intake.journal_min_free)


def drain(operations: Operations, progress: Progress) -> Drained:
    """Puts what lies in the spool into the queue, oldest first. A file goes once its delivery is proven durable.

    Raises SettingsError and SpoolError where the spool cannot be read.
    """
    spool = open_spool(operations)
    before = spool.look().count if spool else 0
    if spool is None or not before:
        return Drained(0, 0, 0, spool.look().damaged if spool else 0)
    drainer, error = Drainer(operations, progress, before), None
    with operations.producer() as producer:
        try:
            drainer.drain(spool, producer)
        except GlassqError as raised:
            error = raised
    after = spool.look()
    return Drained(before, drainer.drained, after.count, after.damaged, error)


@dataclass(slots=True)
class Drainer:
    """Puts deliveries one by one, `drained` so far of `total`."""

    operations: Operations
    progress: Progress
    total: int
    drained: int = 0

    def drain(self, spool: Spool, producer: Producer) -> None:
        """Raises Stopped, QueueError and SpoolError; what was put until then is put."""

        def put(delivery_id: str, body: bytes) -> None:
            self.progress.advance(self.drained, self.total, "put into the queue so far")
            [answer] = producer.put([NewJob(delivery_id, body, self.operations.tube)], within=math.inf)
            if isinstance(answer, Refusal):
                raise answer.error
            producer.confirm([answer], within=math.inf)
            self.drained += 1

        spool.drain(put)
