"""How hostile the SWF of tests is, and what its calls say that it refuses."""

from __future__ import annotations

from tests.queues.aws.faults import AwsFaults

MODEL = "com.amazonaws.swf.base.model"


class Faults(AwsFaults, frozen=True):
    """Beside what any service does.

    `poll`: a poll waits so many seconds (really: 60), `decider_poll`: one for a decision (0: as long). `refuse`:
    actions that nobody may do, or not with a parameter ("Action.parameter", "Action.parameter=value"). `stale`: lists,
    counts and histories show what was up to so many seconds ago. `refuse_decisions`: how likely it is that a task, a
    timer or a new run is refused in the history, as too many came. `rates`: the account's rates, as a part of the real
    ones (1.0); 0: none. `open_limit`: so many executions may be open in a domain; `event_limit`: so many events one may
    have.
    """

    poll: float = 60.0
    decider_poll: float = 0.0
    refuse: frozenset[str] = frozenset()
    stale: float = 0.0
    refuse_decisions: float = 0.0
    rates: float = 0.0
    open_limit: int = 100_000
    event_limit: int = 25_000


class SwfFault(Exception):
    """An answer that refuses a call."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind, self.message = kind, message


def fault(name: str, message: str) -> SwfFault:
    """One of those that the API's reference names."""
    return SwfFault(f"{MODEL}#{name}", message)


def invalid(message: str) -> SwfFault:
    """What is said to a call that is not as the reference wants it."""
    return SwfFault("com.amazon.coral.validate#ValidationException", message)
