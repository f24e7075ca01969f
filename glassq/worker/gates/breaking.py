"""The breaker of one route, for one child: reads and writes the shared state (breaker.py says what it means)."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import msgspec

from glassq.causes import cause_of
from glassq.errors import Bury
from glassq.log import fields, logger
from glassq.worker.gates.breaker import CLOSED, after_failure, after_probe_began
from glassq.worker.gates.claims import word_of
from glassq.worker.outcome import Kind

if TYPE_CHECKING:
    from glassq.worker.executor import Attempt
    from glassq.worker.gates.breaker import BreakerRule
    from glassq.worker.gates.rows import BreakerRow
    from glassq.worker.gates.shared import Gates

log = logger("glassq.worker")

# What a probe that failed waits longer than until the next probe, in seconds, so that it can be that one.
_BEHIND = 0.5


class Breaker:
    """One route's breaker. Single-threaded."""

    def __init__(self, gates: Gates, row: BreakerRow, rule: BreakerRule, slot: int) -> None:
        self._gates = gates
        self._row = row
        self._rule = rule
        self._slot = slot
        self._word = word_of(row.route)

    @property
    def shut(self) -> bool:
        """Whether no delivery may be worked now: it is open, and no probe is due, or another child has that."""
        state = self._row.read()
        return state.is_open and not (self._probes or self._may_probe(state.due))

    def admit(self) -> bool:
        """Whether a delivery may be worked now; perhaps as the probe, which others do not have then."""
        if not self._row.read().is_open:
            return True
        if self._probes:
            return True
        if self.shut:
            return False
        with self._gates.locked() as locked:
            due = locked and self._may_probe(self._row.read().due)
            return due and self._gates.probes.take(self._slot, self._word, 1)

    def begin(self) -> None:
        """An attempt begins at a delivery that was admitted."""
        if self._probes:
            with self._gates.locked() as locked:
                if locked and (state := self._row.read()).is_open:
                    self._row.write(after_probe_began(state, self._rule, self._gates.clock()))

    def judge(self, attempt: Attempt) -> Attempt:
        """Takes note of an attempt. Returns it; a probe that failed as one that does not count."""
        kind = attempt.outcome.kind
        if kind in (Kind.DONE, Kind.DROPPED):
            self._succeeded()
        elif _failed(attempt):
            return self._noted(attempt)
        return attempt

    @property
    def _probes(self) -> bool:
        return self._gates.probes.of(self._slot) == self._word

    def _may_probe(self, due: float) -> bool:
        return self._gates.clock() >= due and not self._gates.probes.taken(self._word)

    def _succeeded(self) -> None:
        if not self._row.read().failures:
            return
        with self._gates.locked() as locked:
            if not locked:
                return
            before = self._row.read()
            self._row.write(CLOSED)
        if before.is_open:
            seconds = max(0.0, time.time() - before.since)
            log.warning("route goes on: a delivery was worked %s", fields(route=self._row.route, seconds=seconds))

    def _noted(self, attempt: Attempt) -> Attempt:
        cause, now = cause_of(attempt.following), self._gates.clock()
        with self._gates.locked() as locked:
            if not locked:
                return attempt
            before = self._row.read()
            after = after_failure(
                before, word_of(cause.id), cause.words, self._rule, now=now, wall=time.time(), probe=self._probes
            )
            self._row.write(after)
        if after.is_open and not before.is_open:
            known = {"route": self._row.route, "failures": after.failures, "cause": after.why}
            log.error("route pauses itself: its deliveries wait %s", fields(**known, probe_in=self._rule.backoff))
        if not (before.is_open and self._probes):
            return attempt
        outcome = attempt.outcome
        delay = max(0.0, after.due - now) + _BEHIND
        waits = msgspec.structs.replace(outcome, kind=Kind.RETRY, counts=False, delay=delay)
        return msgspec.structs.replace(attempt, outcome=waits)


def _failed(attempt: Attempt) -> bool:
    """Whether the handler has failed, and not decided."""
    outcome = attempt.outcome
    if outcome.kind is Kind.RETRY:
        return outcome.counts
    return outcome.kind is Kind.BURY and attempt.error is not None and not issubclass(type(attempt.error), Bury)
