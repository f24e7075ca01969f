"""Faults on demand: which requests to the simulated Glass fail next, how, and how often."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

# answer: this status and body instead of the correct ones
# cut off: the correct headers, half of the body, then the connection ends
# slow: the correct response, its body spread over `seconds`
# hang up: the connection ends without a response
Mode = Literal["answer", "cut off", "slow", "hang up"]

# The page of a load balancer that has no server behind it.
HTML = b"<!DOCTYPE html><title>Error 503</title><p>The server encountered a temporary error. Try again in 30 seconds."


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault; the fields are the parameters of `SimulatedGlass.fail_next`."""

    where: str
    status: int = 503
    reason: str = "backendError"
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    mode: Mode = "answer"
    seconds: float = 0.0
    user: str | None = None
    times: int = 1

    def hits(self, operation: str, path: str, user: str | None) -> bool:
        """Whether the fault applies to this request. `where` is a path prefix, an operation or a group of them."""
        if self.user is not None and self.user != user:
            return False
        if self.where.startswith("/"):
            return path.startswith(self.where)
        return operation == self.where or operation.startswith(self.where + ".")


class Faults:
    """The faults that have not happened yet, in the order of `add`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: list[Fault] = []

    def add(self, fault: Fault) -> None:
        """Schedules the fault for its next `times` requests."""
        with self._lock:
            self._waiting.append(fault)

    def clear(self) -> None:
        """Removes the faults that have not happened yet."""
        with self._lock:
            self._waiting.clear()

    def waiting(self) -> int:
        """The number of requests that will still fail."""
        with self._lock:
            return sum(fault.times for fault in self._waiting)

    def take(self, operation: str, path: str, user: str | None) -> Fault | None:
        """Takes and returns the fault for this request; None if there is none."""
        with self._lock:
            for index, fault in enumerate(self._waiting):
                if fault.hits(operation, path, user):
                    if fault.times > 1:
                        self._waiting[index] = replace(fault, times=fault.times - 1)
                    else:
                        del self._waiting[index]
                    return fault
            return None
