"""The intake journal: what intake keeps on disk itself, synced, until the queue has proven to keep it."""

from glassq.journal.examine import ExaminedFile
from glassq.journal.identity import journal_id
from glassq.journal.journal import BODIES, DIRECTORIES, Journal, Journaled
from glassq.journal.record import JournalRecord

__all__ = ["BODIES", "DIRECTORIES", "ExaminedFile", "Journal", "JournalRecord", "Journaled", "journal_id"]
