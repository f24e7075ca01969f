"""What goes wrong with SWF, by its own codes, and what to do about it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from glassq.errors import JobNotFound, JobTooBig, NoProof, QueueError, QueueRefused, QueueUnavailable, WrongTables
from glassq.queues.aws import troubles
from glassq.queues.aws.troubles import REACH, ServiceWords

if TYPE_CHECKING:
    from glassq.queues.base import Fact

_INIT = "`glassq queue init` makes it"
_UNKNOWN, _OPEN_ALREADY, _LIMIT = "UnknownResourceFault", "WorkflowExecutionAlreadyStartedFault", "LimitExceededFault"
_THERE = frozenset({"DomainAlreadyExistsFault", "TypeAlreadyExistsFault"})
_DEPRECATED = frozenset({"DomainDeprecatedFault", "TypeDeprecatedFault"})
# What the service says of texts that are too long, beside the code of any wrong call.
_LONG = "length less than or equal to"


class AlreadyThere(QueueError):
    """An execution with this id is open, or what was to be made is there."""


def explained(error: QueueError) -> Fact:
    """The error of a call, with what to do about it."""
    return troubles.explained(error, WORDS)


def _meaning(code: str, said: str, about: str) -> QueueError | None:
    if code == _OPEN_ALREADY or code in _THERE:
        return AlreadyThere(said)
    if code == _UNKNOWN:
        if "domain" in said.lower():
            return WrongTables(f"the domain is not at Amazon SWF ({said})", _INIT)
        if "type" in said.lower():
            return WrongTables(f"a type of ours is not at Amazon SWF ({said})", _INIT)
        return JobNotFound(f"another consumer has it by now, or it is gone ({said})")
    if code in _DEPRECATED:
        return WrongTables(f"somebody has deprecated what is ours at Amazon SWF ({said})", _INIT)
    if code == _LIMIT:
        return QueueRefused(f"SWF: a limit of the account is reached ({said})")
    if code == "OperationNotPermittedFault":
        return QueueRefused(f"SWF: {said}")
    if _LONG in said:
        return JobTooBig(said)
    return None


WORDS = ServiceWords(
    "SWF",
    _meaning,
    [
        (WrongTables, "domain", "run `glassq queue init` with rights to register a domain and types"),
        (NoProof, "queue", REACH),
        (QueueRefused, "queue", "look at the rights of this host's role, and at the number of open executions"),
        (JobTooBig, "job size", "make the delivery smaller, or keep its body in the body store ([bodies])"),
        (QueueUnavailable, "queue", REACH),
    ],
)
