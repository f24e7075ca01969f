"""Where glassq keeps, beside the ledger, what must not get lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from glassq.database.plain import file_of

if TYPE_CHECKING:
    from pathlib import Path

    from glassq.settings import Settings


def beside_ledger(settings: Settings, name: str) -> Path | None:
    """The directory of this name beside the ledger's file; None where the ledger is no file."""
    ledger = file_of(settings.ledger.url)
    return ledger.absolute().parent / name if ledger is not None else None
