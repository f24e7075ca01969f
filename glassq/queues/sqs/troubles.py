"""What goes wrong with SQS, by its own codes, and what to do about it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from glassq.errors import (
    JobNotFound,
    JobTooBig,
    NoProof,
    NotDurable,
    QueueError,
    QueueRefused,
    QueueUnavailable,
    WrongTables,
)
from glassq.queues.aws import troubles
from glassq.queues.aws.troubles import REACH, ServiceWords, bare

if TYPE_CHECKING:
    from glassq.queues.base import Fact

MISSING = frozenset({"QueueDoesNotExist", "NonExistentQueue", "QueueDeletedRecently"})
_STALE = frozenset({"MessageNotInflight", "ReceiptHandleIsInvalid", "InvalidIdFormat"})
_SIZES = frozenset({"BatchRequestTooLong", "MessageTooLong", "InvalidMessageContents"})


def is_stale(code: str) -> bool:
    """Whether the service says by this code that a receipt handle is good for nothing any more."""
    return bare(code) in _STALE


def explained(error: QueueError) -> Fact:
    """The error of a call, with what to do about it."""
    return troubles.explained(error, WORDS)


def _meaning(code: str, said: str, queue: str) -> QueueError | None:
    if code in MISSING:
        return WrongTables(f"there is no queue {queue} at Amazon SQS", "`glassq queue init` makes it")
    if code in _STALE or "receipt handle" in said.lower():
        return JobNotFound(f"another consumer has it by now, or its lease has ended ({said})")
    if code == "OverLimit":
        return QueueRefused(f"{WORDS.place(queue)}: too many jobs are reserved at once ({said})")
    if code in _SIZES or "must be shorter than" in said:
        return JobTooBig(said)
    return None


WORDS = ServiceWords(
    "SQS",
    _meaning,
    [
        (WrongTables, "queues", "run `glassq queue init` with rights to create queues"),
        (NoProof, "queue", REACH),
        (NotDurable, "durability", "make sure that the shelf's database syncs its disk"),
        (QueueRefused, "queue", "look at the queue's policy, at its key, and at the shelf's database ([ledger] url)"),
        (JobTooBig, "job size", "make the delivery smaller"),
        (QueueUnavailable, "queue", REACH),
    ],
)
