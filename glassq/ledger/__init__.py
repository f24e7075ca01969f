"""What happened to each delivery: an SQL record for people. Work never waits for it."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from glassq.ledger.entry import Entry, Ledger

if TYPE_CHECKING:
    from glassq.ledger.sql import open_ledger

__all__ = ["Entry", "Ledger", "open_ledger"]


def __getattr__(name: str) -> Any:
    # imported on first use: commands that only read the ledger do without SQLAlchemy
    if name == "open_ledger":
        return importlib.import_module("glassq.ledger.sql").open_ledger
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
