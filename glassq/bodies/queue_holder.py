"""A queue whose jobs may name bodies of a store, as a holder (holders.py)."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from glassq.bodies.base import BodyStore
    from glassq.values import QueueUrl


def queue_id(url: QueueUrl) -> str:
    """The key of a queue as a holder. Whoever writes its URL in another way takes it for another queue."""
    text = url.replace("postgresql://", "postgres://", 1)
    return f"queue-{sha256(text.encode()).hexdigest()[:16]}"


def hold_queue(store: BodyStore, url: QueueUrl) -> None:
    """Says that jobs of this queue may name any body of the store. Raises BodyError."""
    store.hold(queue_id(url), None, f"queue {url}")
