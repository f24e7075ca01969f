"""How operations note in the ledger what they did to deliveries that the pool recorded there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from glassq.errors import LedgerError, SettingsError
from glassq.operations.pace import PACKET

if TYPE_CHECKING:
    from glassq.delivery import Delivery
    from glassq.ledger.corrections import Corrections
    from glassq.operations.progress import Progress


class Corrector:
    """Notes in the ledger what an operator did, a packet in one transaction, and the rest at the end of the context.

    Where the ledger cannot be written, it warns once and notes nothing more.
    """

    def __init__(self, corrections: Corrections | None, progress: Progress) -> None:
        self._corrections = corrections
        self._progress = progress
        self._deleted: list[tuple[str, str]] = []
        self._held: list[tuple[str, str, str]] = []

    def deleted(self, delivery: Delivery | None, why: str) -> None:
        """The delivery is removed for good."""
        if delivery is not None:
            self.forgotten(delivery.id, why)

    def forgotten(self, delivery_id: str, why: str) -> None:
        """The same of a delivery that the queue did not hold any more."""
        self._deleted.append((delivery_id, why))
        if len(self._deleted) >= PACKET:
            self.write()

    def held(self, delivery: Delivery | None, ref: str, tube: str) -> None:
        """Another job holds the delivery from now on."""
        if delivery is not None:
            self._held.append((delivery.id, ref, tube))
            if len(self._held) >= PACKET:
                self.write()

    def write(self) -> None:
        """Writes what is not written yet."""
        deleted, held, self._deleted, self._held = self._deleted, self._held, [], []
        if self._corrections is None:
            return
        try:
            if deleted:
                self._corrections.deleted(deleted)
            if held:
                self._corrections.held(held)
        except (LedgerError, SettingsError) as error:
            self._corrections = None
            self._progress.warn(
                f"could not update the ledger, so `glassq doctor` may report this delivery as lost: {error}"
            )
