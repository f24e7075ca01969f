"""Which jobs are ours, by our own clock: what is not confirmed in time is over, whatever the service knows."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from glassq.errors import JobNotFound, QueueError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from glassq.queues.base import Reservation


class Leased(Protocol):
    """A job that is ours until a time (monotonic)."""

    until: float

    @property
    def reservation(self) -> Reservation: ...


Held = TypeVar("Held", bound=Leased)


class LeaseBook(Generic[Held]):
    """What one receiver holds, by handle: a job may come twice. The keeper's thread may extend one meanwhile."""

    def __init__(self) -> None:
        self._held: dict[str, Held] = {}

    def __iter__(self) -> Iterator[Held]:
        return iter(list(self._held.values()))

    def add(self, held: Held) -> Reservation:
        """The reservation, which is ours from now on."""
        self._held[held.reservation.handle] = held
        return held.reservation

    def ours(self, reservation: Reservation) -> Held:
        """What is held of it. Raises JobNotFound if it is no longer ours, as far as the clock says."""
        held = self._held.get(reservation.handle)
        if held is None:
            raise JobNotFound("not reserved here, or settled already")
        if time.monotonic() >= held.until:
            self.drop(held)
            raise JobNotFound("its lease has ended: no extension was confirmed in time")
        return held

    def extend(self, reservation: Reservation, ask: Callable[[Held], float]) -> float:
        """Its lease, in seconds. `ask` begins a new one at the service and returns it, or raises QueueError.

        Raises JobNotFound if it is no longer ours.
        """
        held = self.ours(reservation)
        now = time.monotonic()
        try:
            lease = ask(held)
        except JobNotFound:
            self.drop(held)
            raise
        except QueueError as error:
            # not confirmed; it is ours until its lease ends all the same
            left = held.until - time.monotonic()
            if left <= 0:
                self.drop(held)
                raise JobNotFound(f"its lease has ended: no extension was confirmed in time ({error})") from error
            return left
        held.until = now + lease
        return lease

    def soonest(self) -> float:
        """When the first lease ends (monotonic)."""
        return min((held.until for held in self), default=float("inf"))

    def drop(self, held: Held) -> None:
        """It is not ours any more."""
        self._held.pop(held.reservation.handle, None)

    def clear(self) -> None:
        """Nothing is ours any more."""
        self._held.clear()
