"""What `glassq replay` writes into the ledger: which deliveries were put again, so that none is twice by mistake."""

from __future__ import annotations

import sqlalchemy as sa

from glassq.ledger.corrections import Corrections
from glassq.ledger.schema import deliveries

_MARK = (
    deliveries.update()
    .where(deliveries.c.delivery == sa.bindparam("old"), deliveries.c.replayed == sa.bindparam("before"))
    .values(replayed=sa.bindparam("again"))
)


class Replays(Corrections):
    """A connection of its own to a ledger that is there; for one thread. Opening and marking raise SettingsError."""

    def mark(self, delivery: str, again: str, before: str) -> bool:
        """The delivery was put again as `again`; on return that is written.

        False where it is not marked `before` any more: somebody else has replayed it meanwhile.
        """
        return self._change(_MARK, old=delivery, again=again, before=before)
