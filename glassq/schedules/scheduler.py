"""Puts what is due, for ever. One scheduler runs beside each pool; the table decides which of several puts a time.

A scheduler takes a time in the table, puts its delivery, and records that it is put. If its host dies in between,
another one puts the same delivery, under the same id, after STALE seconds: perhaps twice, never not at all.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import msgspec

from glassq.delivery import id_of
from glassq.errors import LedgerError, QueueError, SettingsError
from glassq.log import fields, logger

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from glassq.delivery import Delivery
    from glassq.due import DueTimes
    from glassq.schedules.state import ScheduleState
    from glassq.schedules.table import ScheduleTable

log = logger("glassq.schedules")

# A time that is put within this many seconds was put in time. One that is put later fell due while no pool ran.
IN_TIME = 60.0
# Another host's claim is taken over when it is so old, in seconds.
STALE = 60.0
# The pause after a failure, in seconds.
AGAIN = 5.0
# How often the table is read while nothing is due, in seconds: a pause, a claim of a dead host and a step of the clock
# are noticed then.
LOOK = 20.0
# A last time so far in the future was written by a wrong clock, in seconds.
AHEAD = 3600.0


@dataclass(frozen=True, slots=True)
class Schedule:
    """One schedule: when it is due, and what is put then.

    `said` is its expression as it was written, `zone` the time zone in which it is read. `catch_up`: if times passed
    while no pool ran, one delivery is put for all of them. `make` makes the delivery with this id, for a time.
    """

    name: str
    said: str
    zone: str
    times: DueTimes
    catch_up: bool
    make: Callable[[str, datetime], Delivery]


def delivery_id(name: str, due: datetime) -> str:
    """The id of the delivery of a schedule and a time: the same on every host."""
    bits = int.from_bytes(hashlib.sha256(f"{name}\0{due.timestamp()}".encode()).digest()[:10])
    return id_of(int(due.timestamp() * 1000), bits)


class Scheduler:
    """Puts what is due; call `step` again and again."""

    def __init__(
        self,
        schedules: Sequence[Schedule],
        table: ScheduleTable,
        put: Callable[[Delivery], None],
        host: str,
        now: Callable[[], datetime],
    ) -> None:
        """`put` returns once the delivery is durable, or raises QueueError.

        `host` is our name in the table, which no other scheduler that runs has: a claim in this name is finished at
        once.
        """
        self._schedules = schedules
        self._table = table
        self._put = put
        self._host = host
        self._now = now
        self._failing = False

    def step(self) -> float:
        """Puts what is due now. Returns how long nothing is going to be due, in seconds, at most LOOK."""
        try:
            known = self._table.enter([schedule.name for schedule in self._schedules], self._now())
            wait = self._tend_all(known)
        except (LedgerError, QueueError, SettingsError) as error:
            # one error line, not one for each try
            level = logging.DEBUG if self._failing else logging.ERROR
            log.log(level, "schedules are late: trying again %s", fields(why=error))
            self._failing = True
            return AGAIN
        if self._failing:
            log.warning("schedules go on")
        self._failing = False
        return wait

    def _tend_all(self, known: Mapping[str, ScheduleState]) -> float:
        """Puts what each schedule owes, even if another one's cannot be put. Raises the first error."""
        wait, failed = LOOK, None
        for schedule in self._schedules:
            try:
                wait = min(wait, self._tend(schedule, known[schedule.name]))
            except (LedgerError, QueueError) as error:
                failed = failed or error
        if failed is not None:
            raise failed
        return wait

    def _tend(self, schedule: Schedule, state: ScheduleState) -> float:
        """Puts what this schedule owes. Returns how long it owes nothing, in seconds."""
        now = self._now()
        if state.state == "claimed":
            age = (now - (state.claimed or now)).total_seconds()
            if state.host != self._host and 0 <= age < STALE:
                return min(LOOK, STALE - age)
            self._finish(schedule, state)
            return 0.0
        if state.paused is not None:
            return LOOK
        if (state.last - now).total_seconds() > AHEAD:
            where = fields(schedule=schedule.name, last=state.last)
            log.error("a schedule's last time is in the future: it goes on from now %s", where)
            self._table.pass_over(state, now)
            return 0.0
        due = schedule.times.latest(state.last, now)
        if due is None:
            following = schedule.times.after(max(state.last, now))
            return LOOK if following is None else (following - now).total_seconds()
        self._begin(schedule, state, due, now)
        return 0.0

    def _begin(self, schedule: Schedule, state: ScheduleState, due: datetime, now: datetime) -> None:
        """Takes this time and puts its delivery, or passes it over if it comes too late."""
        late = now - due
        passed = late > timedelta(seconds=IN_TIME)
        if passed:
            how = "caught up" if schedule.catch_up else "skipped"
            log.warning(f"a schedule's time has passed: {how} %s", fields(schedule=schedule.name, due=due, late=late))
        if passed and not schedule.catch_up:
            self._table.pass_over(state, due)
            return
        claim = msgspec.structs.replace(
            state, last=due, state="claimed", delivery=delivery_id(schedule.name, due), claimed=now, host=self._host
        )
        # False: another host was quicker
        if self._table.claim(state, claim):
            self._finish(schedule, claim)

    def _finish(self, schedule: Schedule, claim: ScheduleState) -> None:
        """Puts the delivery of a claim, and records that."""
        self._put(schedule.make(claim.delivery, claim.last))
        self._table.confirm(claim)
        log.info("scheduled %s", fields(schedule=schedule.name, due=claim.last, delivery=claim.delivery))
