"""The states of all breakers, in shared memory: a row for each route.

A row has two copies of its state. Whoever has the lock of the gates writes the one that is not valid, and then makes it
the valid one by a single store: a death in between changes nothing.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from glassq.worker.gates.breaker import BreakerState

if TYPE_CHECKING:
    import mmap
    from collections.abc import Container, Iterator

# More routes than have ever had a breaker since the pool was started; those beyond have none.
MAX_ROWS = 256
# failures, cause, since, due, probes, why
_STATE = struct.Struct("@qQddq160s")
_VALID = struct.Struct("@q")
_NAME = 40
_ROW = _NAME + _VALID.size + 2 * _STATE.size
ROWS_BYTES = MAX_ROWS * _ROW


class BreakerRows:
    """The rows, by the names of routes."""

    def __init__(self, memory: mmap.mmap, start: int) -> None:
        """They have ROWS_BYTES of the memory, from `start` on."""
        self._memory = memory
        self._start = start

    def row(self, route: str) -> BreakerRow | None:
        """The row of a route, a new one if it has none; None if there is no room. Call under the lock."""
        name = route.encode()
        for at in self._all():
            there = self._memory[at : at + _NAME].rstrip(b"\0")
            if not there:
                self._memory[at : at + _NAME] = name.ljust(_NAME, b"\0")
            if there in (b"", name):
                return BreakerRow(self._memory, at, route)
        return None

    def states(self, routes: Container[str]) -> dict[str, BreakerState]:
        """The states of the breakers of these routes, by route: the rows of routes that are gone stay as they were."""
        found = {}
        for at in self._all():
            name = self._memory[at : at + _NAME].rstrip(b"\0").decode("ascii", "replace")
            if not name:
                break
            if name in routes:
                found[name] = BreakerRow(self._memory, at, name).read()
        return found

    def open(self, routes: Container[str]) -> dict[str, BreakerState]:
        """The states of those of these routes that are open now, by route."""
        return {route: state for route, state in self.states(routes).items() if state.is_open}

    def _all(self) -> Iterator[int]:
        return (self._start + number * _ROW for number in range(MAX_ROWS))


class BreakerRow:
    """The state of one route's breaker."""

    def __init__(self, memory: mmap.mmap, at: int, route: str) -> None:
        """Made by `BreakerRows.row`."""
        self.route = route
        self._memory = memory
        self._at = at + _NAME

    def read(self) -> BreakerState:
        """The state now."""
        failures, cause, since, due, probes, why = _STATE.unpack_from(self._memory, self._copy(self._valid()))
        return BreakerState(failures, cause, since, due, probes, why.rstrip(b"\0").decode("utf-8", "replace"))

    def write(self, state: BreakerState) -> None:
        """Replaces the state. Call under the lock."""
        why = state.why.encode("utf-8", "replace")[:160].decode("utf-8", "ignore").encode()
        other = 1 - self._valid()
        _STATE.pack_into(
            self._memory,
            self._copy(other),
            state.failures,
            state.cause,
            state.since,
            state.due,
            state.probes,
            why,
        )
        self._memory[self._at : self._at + _VALID.size] = _VALID.pack(other)

    def _valid(self) -> int:
        valid: int = _VALID.unpack_from(self._memory, self._at)[0]
        return valid

    def _copy(self, number: int) -> int:
        return self._at + _VALID.size + number * _STATE.size
