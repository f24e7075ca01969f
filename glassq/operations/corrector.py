"""How operations note in the ledger what they did to deliveries that the pool recorded there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from glassq.errors import LedgerError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable

    from glassq.delivery import Delivery
    from glassq.ledger.corrections import Corrections
    from glassq.operations.progress import Progress


class Corrector:
    """Notes in the ledger what an operator did. Where it cannot be written, it warns once and notes nothing more."""

    def __init__(self, corrections: Corrections | None, progress: Progress) -> None:
        self._corrections = corrections
        self._progress = progress

    def deleted(self, delivery: Delivery | None, why: str) -> None:
        """The delivery is removed for good."""
        if delivery is not None:
            self.forgotten(delivery.id, why)

    def forgotten(self, delivery_id: str, why: str) -> None:
        """The same of a delivery that the queue did not hold any more."""
        self._note(lambda corrections: corrections.deleted(delivery_id, why))

    def held(self, delivery: Delivery | None, ref: str, tube: str) -> None:
        """Another job holds the delivery from now on."""
        if delivery is not None:
            self._note(lambda corrections: corrections.held(delivery.id, ref, tube))

    def _note(self, change: Callable[[Corrections], None]) -> None:
        if self._corrections is None:
            return
        try:
            change(self._corrections)
        except (LedgerError, SettingsError) as error:
            self._corrections = None
            self._progress.warn(
                f"could not update the ledger, so `glassq doctor` may report this delivery as lost: {error}"
            )
