"""What the ledger is told when a generation of the pool's children begins: the base of what counts as new."""

from __future__ import annotations

import mmap
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from glassq import __version__, host
from glassq.delivery import new_id
from glassq.ledger.activity import RELOADED, STARTED, Activity

if TYPE_CHECKING:
    from glassq.ledger.sql import SqlLedger


class Beginning:
    """Of one generation. The pool's parent makes it, which writes to no database; its children share it."""

    def __init__(self, *, first: bool) -> None:
        self._did = STARTED if first else RELOADED
        self._id = new_id()
        # anonymous memory is shared with what is forked later
        self._told = mmap.mmap(-1, 1)

    def tell(self, ledger: SqlLedger) -> None:
        """A child is ready to work. Where two are at once, both write, and the ledger keeps one: they share an id."""
        if self._told[0]:
            return
        self._told[0] = 1
        ledger.mark(
            Activity(
                id=self._id,
                at=datetime.now(UTC),
                ended=datetime.now(UTC),
                actor=host.name(),
                via="pool",
                did=self._did,
                note=f"glassq {__version__}",
            )
        )
