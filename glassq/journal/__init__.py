"""The intake journal: what intake keeps on disk itself, synced, until the queue has proven to keep it."""

from glassq.journal.journal import Journal, Journaled
from glassq.journal.record import JournalRecord

__all__ = ["Journal", "JournalRecord", "Journaled"]
