"""Which tubes a child reserves from, where deliveries are parked: the common ones, and in turn those.

While the common tubes have jobs, each parking tube that can be served gets one of 24 turns, and all together
get at most half. Once the common tubes are empty, they are watched at no cost beside a parking tube. A child reserves
from a parking tube only with the claim that its delivery needs (doorman.py), so no delivery is moved back and forth.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from glassq.errors import QueueError
from glassq.settings import parking_tube
from glassq.worker.throttle import Admission

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from glassq.delivery import Delivery
    from glassq.queues import Receiver
    from glassq.routes import Destination
    from glassq.settings import ParkingTube
    from glassq.worker.executor import Attempt
    from glassq.worker.gates.doorman import Doorman
    from glassq.worker.gates.parked import TableEntry
    from glassq.worker.gates.rules import GateRules
    from glassq.worker.gates.shared import Gates
    from glassq.worker.shares import QueueLimiter
    from glassq.worker.throttle import TubeLimiter

# One of so many turns is that of a parking tube, for each that can be served; and at most one of MIN_TURNS.
TURNS, MIN_TURNS = 24, 2
# So many entries of the table are looked at for one turn.
MAX_LOOKED = 256
# How long a look at whether a tube is paused holds, in seconds.
PAUSE_LOOK = 1.0


class _Candidate(NamedTuple):
    entry: TableEntry
    tube: ParkingTube


class GatedLimiter:
    """Used as a TubeLimiter is, and single-threaded; `main` limits the common tubes."""

    def __init__(
        self, main: TubeLimiter | QueueLimiter, gates: Gates, doorman: Doorman, rules: GateRules, receiver: Receiver
    ) -> None:
        """`receiver` is asked which parking tubes there are, and whether their origins are paused."""
        self._main = main
        self._gates = gates
        self._doorman = doorman
        self._rules = rules
        self._receiver = receiver
        # the tubes of the last round, and those that were found empty since a job came from one
        self._offered: tuple[str, ...] = ()
        self._empty: frozenset[str] = frozenset()
        # the parking tube that this round is for; and whether the job in hand came out of it
        self._turn: _Candidate | None = None
        self._came: ParkingTube | None = None
        # jobs that were worked since the last turn of a parking tube, and after how many the next one is due
        self._worked, self._due_after = 0, TURNS - 1
        self._cursor = 0
        # tubes that could not be noted; and until when origins were seen to be paused, or not
        self._unnoted: set[str] = set()
        self._paused: dict[str, tuple[float, bool]] = {}

    @property
    def patient(self) -> bool:
        """See `TubeLimiter.patient`."""
        return not self._gates.parked.used and self._main.patient

    @property
    def several(self) -> bool:
        """See `TubeLimiter.several`."""
        return not self._gates.parked.used and self._main.several

    def admit(self, has_next: bool = False) -> Admission:
        """See `TubeLimiter.admit`. Raises QueueError."""
        self._turn = self._came = None
        if not has_next:
            self._look()
        admission = self._main.admit(has_next)
        self._offered = admission.tubes
        if has_next:
            return admission
        if not self._gates.parked.used or not (found := self._candidates()):
            return admission
        self._due_after = max(MIN_TURNS, TURNS // len(found)) - 1
        for candidate in found:
            alone = not self._is_empty(candidate.tube)
            if (alone and self._worked < self._due_after) or not self._doorman.claim(candidate.tube):
                continue
            self._turn, self._cursor = candidate, candidate.entry.number
            return Admission((candidate.entry.tube,) if alone else (*admission.tubes, candidate.entry.tube), 0.0)
        return Admission(admission.tubes, 0.0)

    def ahead(self) -> Sequence[str]:
        """See `TubeLimiter.ahead`; none where the next turn may be that of a parking tube."""
        if self._gates.parked.used and (self._empty or self._worked >= self._due_after):
            return ()
        return self._main.ahead()

    def came_from(self, tube: str) -> str:
        """The tube that a job, which was reserved from `tube`, goes back to: its origin, where that is parking."""
        self._came = parking_tube(self._rules.base, tube)
        if self._came is not None:
            return self._came.origin
        self._empty = frozenset()
        return tube

    def holds_back(self, destination: Destination | None, delivery: Delivery, tube: str) -> str:
        """The parking tube in which the delivery, which came from `tube`, has to wait; "" if it may be worked now."""
        if destination is None:
            return ""
        parked = self._doorman.holds_back(destination.route.name, delivery, tube, self._came)
        return "" if parked is None else parked.name

    def parked(self, tube: str) -> None:
        """A delivery has been put into this parking tube."""
        if not self._gates.note(tube):
            self._unnoted.add(tube)

    def judge(self, destination: Destination | None, attempt: Attempt) -> Attempt:
        """See `Breaker.judge`."""
        return attempt if destination is None else self._doorman.judge(destination.route.name, attempt)

    def take_alone(self, tube: str) -> bool:
        """See `TubeLimiter.take_alone`."""
        return self._main.take_alone(tube)

    def start(self, tube: str) -> None:
        """See `TubeLimiter.start`."""
        self._main.start(tube)
        self._worked = 0 if self._came is not None else self._worked + 1

    def nothing_came(self) -> None:
        """See `TubeLimiter.nothing_came`."""
        turn = self._turn
        if turn is None or self._is_empty(turn.tube):
            self._empty |= frozenset(self._offered)
            self._main.nothing_came()
        if turn is not None:
            with self._gates.locked() as locked:
                if locked:
                    self._gates.parked.remove(turn.entry)

    def release_tokens(self) -> None:
        """See `TubeLimiter.release_tokens`."""
        self._main.release_tokens()

    def finish(self, *, slow_down: bool = False, has_next: bool = False) -> None:
        """See `TubeLimiter.finish`."""
        if self._came is not None and not self._gates.parked.has(self._came.name):
            # another child may have found its tube empty, and the job may have been given back since
            self.parked(self._came.name)
        self._doorman.release()
        self._main.finish(slow_down=slow_down, has_next=has_next)

    def notice(self, tubes: Sequence[str]) -> None:
        """See `TubeLimiter.notice`."""
        self._main.notice([tube for tube in tubes if parking_tube(self._rules.base, tube) is None])

    def _look(self) -> None:
        """Looks for parking tubes that the table does not have, if it is time."""
        self._unnoted = {tube for tube in self._unnoted if not self._gates.note(tube)}
        if self._gates.look_is_due():
            base = self._rules.base
            try:
                named = self._receiver.named(f"{base}.")
            except QueueError:
                self._gates.look_again()
                raise
            for tube in named:
                if parking_tube(base, tube) is not None and not self._gates.parked.has(tube):
                    self.parked(tube)

    def _candidates(self) -> list[_Candidate]:
        """The parking tubes that can be served now, the next in turn first; as many as make a difference."""
        found: list[_Candidate] = []
        keys = self._gates.keys.all()
        for candidate in self._known():
            origin = self._origin(candidate.tube)
            if (
                origin in self._offered
                and self._doorman.may_claim(candidate.tube, keys)
                and not self._is_paused(candidate.tube.origin)
            ):
                found.append(candidate)
                if len(found) == TURNS // MIN_TURNS:
                    break
        if not found:
            # what is due waits for somebody's end, and that child is free then
            self._worked = 0
            self._cursor += MAX_LOOKED
        return found

    def _known(self) -> Iterator[_Candidate]:
        for entry in self._gates.parked.look(self._cursor, MAX_LOOKED):
            tube = parking_tube(self._rules.base, entry.tube)
            if tube is not None:
                yield _Candidate(entry, tube)

    def _origin(self, tube: ParkingTube) -> str:
        """The tube in whose turns it is served: that of a queue that is gone has those of the main one."""
        return tube.origin if tube.origin in self._rules.tubes else self._rules.base

    def _is_empty(self, tube: ParkingTube) -> bool:
        return self._origin(tube) in self._empty

    def _is_paused(self, tube: str) -> bool:
        """Whether an operator has paused the tube: what it has parked waits as well."""
        until, paused = self._paused.get(tube, (0.0, False))
        now = time.monotonic()
        if now >= until:
            paused = self._receiver.is_paused(tube)
            self._paused[tube] = (now + PAUSE_LOOK, paused)
        return paused
