"""What happened to each delivery: an SQL record for people, never in the way of the work."""

from glassq.ledger.entry import Entry, Ledger
from glassq.ledger.sql import open_ledger

__all__ = ["Entry", "Ledger", "open_ledger"]
