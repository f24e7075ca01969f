"""Bodies that are too large for a job: where they are stored, and how they are found again.

Intake writes a large body while it comes (http/spilling.py), the worker opens it for the handler, and whoever ends the
job retires or deletes it. sweep.py removes what nobody names.
"""

from __future__ import annotations

from glassq.bodies.base import INLINE, BodyInfo, BodyStore, BodyWriter, by_owner, owner
from glassq.bodies.directory import DirectoryBodies
from glassq.bodies.opening import open_bodies
from glassq.bodies.received import ReceivedBody
from glassq.bodies.stored import StoredDelivery, attached, check, with_body
from glassq.bodies.writer import write_all

__all__ = [
    "INLINE",
    "BodyInfo",
    "BodyStore",
    "BodyWriter",
    "DirectoryBodies",
    "ReceivedBody",
    "StoredDelivery",
    "attached",
    "by_owner",
    "check",
    "open_bodies",
    "owner",
    "with_body",
    "write_all",
]
