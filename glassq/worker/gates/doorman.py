"""Decides for one child whether a delivery may be worked now, and by which parking tube it waits if not."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Protocol

from glassq.settings import ParkingTube
from glassq.worker.gates.breaking import Breaker
from glassq.worker.gates.claims import count

if TYPE_CHECKING:
    from glassq.delivery import Delivery
    from glassq.worker.executor import Attempt
    from glassq.worker.gates.rules import GateRules
    from glassq.worker.gates.shared import Gates


# How long a key that another host works is not asked for again, in seconds: nobody tells us when it is free.
ELSEWHERE = 0.1


class KeysOverHosts(Protocol):
    """Who works which key, over all hosts that share the queue. A child holds one at most."""

    def take(self, key: str, most: int) -> bool:
        """Holds the key, unless so many others do."""

    def free(self) -> None:
        """Others may have what is held."""


class Doorman:
    """The gates of one child: what it claims for the delivery in its hands. Single-threaded."""

    def __init__(self, gates: Gates, slot: int, rules: GateRules, hosts: KeysOverHosts | None = None) -> None:
        """`hosts` knows which keys other hosts work (None: there are no others)."""
        self._hosts = hosts
        # keys that other hosts had, and until when they are not asked for again
        self._elsewhere: dict[str, float] = {}
        self._gates = gates
        self._slot = slot
        self._rules = rules
        self._breakers: dict[str, Breaker] = {}
        with gates.locked() as locked:
            for route, rule in rules.breakers.items():
                row = gates.breakers.row(route) if locked else None
                if row is not None:
                    self._breakers[route] = Breaker(gates, row, rule, slot)

    def claim(self, parked: ParkingTube) -> bool:
        """Claims what a delivery out of this parking tube needs to be worked, before one is reserved."""
        breaker = self._breakers.get(parked.route)
        if breaker is not None and not breaker.admit():
            return False
        if parked.key and not self._take(parked, waited=True):
            self.release()
            return False
        return True

    def may_claim(self, parked: ParkingTube, keys: bytes) -> bool:
        """Whether `claim` can succeed, where these are the keys that all slots work."""
        breaker = self._breakers.get(parked.route)
        if breaker is not None and breaker.shut:
            return False
        if not parked.key:
            return True
        if self._elsewhere.get(parked.key, 0.0) > self._gates.clock():
            return False
        return count(keys, int(parked.key, 16)) < self._most(parked.route)

    def holds_back(self, route: str, delivery: Delivery, origin: str, came: ParkingTube | None) -> ParkingTube | None:
        """Where the delivery has to wait; None: it is worked now, until `release`.

        `origin` is its tube, and `came` the parking tube that it has been claimed for, if it came out of one.
        """
        breaker, rule = self._breakers.get(route), self._rules.keys.get(route)
        if breaker is not None and not breaker.admit():
            return ParkingTube(origin, route)
        key = rule.key(delivery) if rule is not None else ""
        wanted = ParkingTube(origin, route, key)
        if key and wanted != came and not self._take(wanted, waited=False):
            return wanted
        if breaker is not None:
            breaker.begin()
        return None

    def judge(self, route: str, attempt: Attempt) -> Attempt:
        """Takes note of how an attempt ended; see `Breaker.judge`."""
        breaker = self._breakers.get(route)
        return attempt if breaker is None else breaker.judge(attempt)

    def release(self) -> None:
        """What is claimed is free for others."""
        for words in (self._gates.keys, self._gates.probes):
            if words.of(self._slot):
                words.clear(self._slot)
        if self._hosts is not None:
            self._hosts.free()

    def _take(self, parked: ParkingTube, *, waited: bool) -> bool:
        """Claims the key; not before those that wait already, unless this one has `waited`."""
        with self._gates.locked() as locked:
            if not locked or not (waited or not self._gates.parked.has(parked.name)):
                return False
            taken = self._gates.keys.take(self._slot, int(parked.key, 16), self._most(parked.route))
        return taken and self._is_free_elsewhere(parked)

    def _is_free_elsewhere(self, parked: ParkingTube) -> bool:
        """Takes the key over all hosts, where it is taken on this one."""
        hosts = self._hosts if parked.route in self._rules.keys else None
        if hosts is None or hosts.take(parked.key, self._most(parked.route)):
            self._elsewhere.pop(parked.key, None)
            return True
        now = self._gates.clock()
        self._elsewhere = {key: until for key, until in self._elsewhere.items() if until > now}
        self._elsewhere[parked.key] = now + ELSEWHERE
        self._gates.keys.clear(self._slot)
        return False

    def _most(self, route: str) -> int:
        # a route that is gone has no limit
        rule = self._rules.keys.get(route)
        return sys.maxsize if rule is None else rule.most
