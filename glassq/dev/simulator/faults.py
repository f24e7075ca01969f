"""Faults on demand: what the simulated Glass does wrong next, and how often."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

# answer: this status and body instead of the right ones
# cut off: the right headers, half of the body, then the connection ends
# slow: the right answer, its body spread over `seconds`
# hang up: the connection ends without an answer
Mode = Literal["answer", "cut off", "slow", "hang up"]

# What a load balancer in front of the API says when there is nobody behind it.
HTML = b"<!DOCTYPE html><title>Error 503</title><p>The server encountered a temporary error. Try again in 30 seconds."


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing to go wrong; the fields are those of `SimulatedGlass.fail_next`."""

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
        """Whether this request is one to go wrong. `where` is a path's beginning, or an operation or its group."""
        if self.user is not None and self.user != user:
            return False
        if self.where.startswith("/"):
            return path.startswith(self.where)
        return operation == self.where or operation.startswith(self.where + ".")


class Faults:
    """The faults still to happen, in the order in which they were asked for."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: list[Fault] = []

    def add(self, fault: Fault) -> None:
        """Lets `fault` happen the next `times` times."""
        with self._lock:
            self._waiting.append(fault)

    def clear(self) -> None:
        """Forgets what has not happened yet."""
        with self._lock:
            self._waiting.clear()

    def waiting(self) -> int:
        """How many requests are still to go wrong."""
        with self._lock:
            return sum(fault.times for fault in self._waiting)

    def take(self, operation: str, path: str, user: str | None) -> Fault | None:
        """The fault for this request, used up by it; None where all goes well."""
        with self._lock:
            for index, fault in enumerate(self._waiting):
                if fault.hits(operation, path, user):
                    if fault.times > 1:
                        self._waiting[index] = replace(fault, times=fault.times - 1)
                    else:
                        del self._waiting[index]
                    return fault
            return None
