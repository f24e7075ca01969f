"""What is set aside for an operator, and never deleted: damaged deliveries, and those that the queue refuses for good.

DIR/damaged/    segments and deliveries that are damaged, as they are
DIR/refused/    deliveries that are too big for the queue: ID.job, as an older version's spool had them. One that is
                moved back into DIR is put into the queue again
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from glassq.files import make_directory, sync_directory, write_durably
from glassq.log import fields, logger

if TYPE_CHECKING:
    from pathlib import Path

    from glassq.journal.record import JournalRecord

log = logger("glassq.intake")

DAMAGED = "damaged"
REFUSED = "refused"


class SetAside:
    """The directories of what is set aside."""

    def __init__(self, directory: Path) -> None:
        """Makes them if they are missing, durably. Raises OSError."""
        self.damaged = directory / DAMAGED
        self.refused = directory / REFUSED
        for place in (self.damaged, self.refused):
            make_directory(place)
        owner = directory.stat()
        #: whose the journal is, where an operator acts in it as root
        self.owner = (owner.st_uid, owner.st_gid) if os.geteuid() == 0 and owner.st_uid else None
        if self.owner:
            for place in (self.damaged, self.refused):
                os.chown(place, *self.owner, follow_symlinks=False)

    def damaged_file(self, path: Path, why: str) -> None:
        """Moves a damaged segment or delivery, as it is. Raises OSError."""
        place = self.damaged / path.name
        make_directory(self.damaged)
        log.error("damaged file in the journal set aside %s", fields(file=place, why=why))
        path.rename(place)
        sync_directory(place.parent)

    def refused_delivery(self, record: JournalRecord, why: object) -> None:
        """Writes a delivery that the queue refuses. Raises OSError."""
        make_directory(self.refused)
        place = self.refused / f"{record.key}.job"
        log.error("the queue refuses a delivery, set aside %s", fields(delivery=record.key, file=place, why=why))
        aside = place.with_name(f".{place.name}.new")
        # left by a process that was killed
        aside.unlink(missing_ok=True)
        write_durably(place, record.body, aside=aside)
        if self.owner:
            os.chown(place, *self.owner, follow_symlinks=False)

    def remove_refused(self, key: str) -> None:
        """Removes a refused delivery, durably, if it is still there. Raises OSError."""
        (self.refused / f"{key}.job").unlink(missing_ok=True)
        sync_directory(self.refused)

    def counts(self) -> tuple[int, int]:
        """How many files are damaged, and how many were refused."""
        return _files(self.damaged), _files(self.refused)


def _files(directory: Path) -> int:
    with suppress(FileNotFoundError):
        return sum(1 for path in directory.iterdir() if path.name[0] != ".")
    return 0
