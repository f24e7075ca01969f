"""What happened to each delivery: an SQL record for people, never in the way of the work."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from glassq.ledger.entry import Entry, Ledger

if TYPE_CHECKING:
    from glassq.ledger.sql import open_ledger

__all__ = ["Entry", "Ledger", "open_ledger"]


def __getattr__(name: str) -> Any:
    # not before it is asked for: commands that read the ledger have no use for the SQL library
    if name == "open_ledger":
        return importlib.import_module("glassq.ledger.sql").open_ledger
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
