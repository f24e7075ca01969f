"""What intake keeps on disk while the queue cannot take it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from glassq.errors import SettingsError
from glassq.intake.spool import Spool

if TYPE_CHECKING:
    from glassq.operations import Operations


def open_spool(operations: Operations) -> Spool | None:
    """The spool of the settings; None where there is none, as operators do not make it. Raises SettingsError."""
    settings = operations.settings
    directory = Path(settings.intake.spool)
    try:
        owner = directory.stat()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SettingsError(
            f'{settings.file}: [intake] spool = "{directory}": cannot be read: {error.strerror}'
        ) from None
    if os.geteuid() == 0 and owner.st_uid:
        # Else the lock would be root's, and intake could never drain again.
        with os.fdopen(os.open(directory / ".lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)) as lock:
            os.fchown(lock.fileno(), owner.st_uid, owner.st_gid)
    return Spool(directory, max_size=settings.intake.spool_max, min_free=settings.intake.spool_min_free)
