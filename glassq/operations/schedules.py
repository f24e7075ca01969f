"""The schedules as they are now: when each is due, and how its last delivery went; pausing one, and running it now."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from glassq import delivery as envelope
from glassq.database.sqlite_file import plain_file_of
from glassq.errors import Conflict, LedgerError, NotFound
from glassq.operations import following
from glassq.operations.hints import Hint
from glassq.operations.put import PutPlan
from glassq.operations.put import carry_out as put
from glassq.schedules.opening import schedules_of
from glassq.schedules.scheduler import STALE
from glassq.schedules.state import states_in

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from glassq.delivery import Delivery
    from glassq.ledger import Entry
    from glassq.operations import Operations
    from glassq.operations.progress import Progress
    from glassq.schedules.scheduler import Schedule
    from glassq.schedules.state import ScheduleState


@dataclass(frozen=True, slots=True)
class ScheduleRow:
    """One schedule. Times are in UTC.

    `next` is when it is due next, None while it is paused and where nobody knows. `last` is the time that was put last,
    `delivery` that delivery, and `outcome` its state in the ledger: "" if it has none yet, or if there never was one.
    """

    name: str
    said: str
    zone: str
    next: datetime | None
    last: datetime | None
    delivery: str
    outcome: str
    paused: datetime | None

    def document(self) -> dict[str, Any]:
        """The row for JSON."""
        moments = {"next": self.next, "last": self.last, "paused": self.paused}
        return {
            "schedule": self.name,
            "when": self.said,
            "zone": self.zone,
            **{name: moment and moment.isoformat() for name, moment in moments.items()},
            "delivery": self.delivery or None,
            "outcome": self.outcome or None,
        }


@dataclass(frozen=True, slots=True)
class ScheduleList:
    """All schedules. `note` says why nobody knows what was put."""

    rows: tuple[ScheduleRow, ...]
    note: str
    hints: tuple[Hint, ...]

    def document(self) -> dict[str, Any]:
        """The list for JSON."""
        rows = [row.document() for row in self.rows]
        return {"schedules": rows, "note": self.note, "hints": [str(hint) for hint in self.hints]}


def snapshot(operations: Operations) -> ScheduleList:
    """The schedules of the settings. Raises SettingsError if cron.yaml cannot be used."""
    schedules, note = schedules_of(operations.settings), ""
    states: Mapping[str, ScheduleState] = {}
    outcomes: dict[str, str] = {}
    try:
        states = _states(operations.settings.ledger.url) if schedules else {}
        outcomes = _outcomes(operations, [state.delivery for state in states.values() if state.delivery])
    except LedgerError as error:
        note = str(error)
    now = operations.clock()
    rows = [_row(schedule, states.get(schedule.name), outcomes, now, known=not note) for schedule in schedules]
    return ScheduleList(tuple(rows), note, tuple(_hints(schedules, states, now, known=not note)))


def _states(url: str) -> Mapping[str, ScheduleState]:
    if (plain := plain_file_of(url)) is not None:
        return states_in(plain)
    from glassq.schedules.table import read_states

    return read_states(url)


def _outcomes(operations: Operations, deliveries: Sequence[str]) -> dict[str, str]:
    with operations.ledger() as ledger:
        found = {delivery: ledger.get(delivery) for delivery in deliveries}
    return {delivery: entry.state for delivery, entry in found.items() if entry is not None}


def _row(
    schedule: Schedule, state: ScheduleState | None, outcomes: Mapping[str, str], now: datetime, *, known: bool
) -> ScheduleRow:
    paused = state.paused if state else None
    following = None if paused or not known else schedule.times.after(max(state.last, now) if state else now)
    # a new schedule's `last` is when it was seen first: nothing was put for that
    delivery = state.delivery if state else ""
    last = state.last if state and delivery else None
    outcome = outcomes.get(delivery, "")
    return ScheduleRow(schedule.name, schedule.said, schedule.zone, following, last, delivery, outcome, paused)


def _hints(
    schedules: Sequence[Schedule], states: Mapping[str, ScheduleState], now: datetime, *, known: bool
) -> list[Hint]:
    if not known:
        return []
    for schedule in schedules:
        state = states.get(schedule.name)
        since = None if state is None or state.paused else schedule.times.after(state.last)
        if state is None or (since is not None and (now - since).total_seconds() > STALE):
            late = "has not been seen by a pool yet" if state is None else "is late"
            return [Hint(f"{schedule.name} {late}: a running glassq-worker puts what is due", "doctor")]
    return []


def run_now(operations: Operations, name: str, progress: Progress) -> Delivery:
    """Puts a delivery of this schedule now, whatever its times are and even if it is paused. Returns it.

    Raises NotFound, and QueueError if it is not in the queue.
    """
    schedule = _named(operations, name)
    delivery = schedule.make(envelope.new_id(), operations.clock())
    put(operations, PutPlan(delivery, delivery.tube, 0), progress)
    return delivery


def follow(operations: Operations, delivery: Delivery, progress: Progress) -> Entry | None:
    """What became of a delivery that was put just now, if the ledger says so soon. Raises Stopped."""

    def look() -> Entry | None:
        with operations.ledger() as ledger:
            return ledger.exactly(delivery.id)

    return following.follow(operations, look, progress)


def pause(operations: Operations, names: Sequence[str]) -> None:
    """Nothing is put for these schedules, on any host, until they are resumed. Raises NotFound and LedgerError."""
    _change(operations, names, paused=True)


def resume(operations: Operations, names: Sequence[str]) -> None:
    """These schedules go on. What was due meanwhile is passed over. Raises NotFound and LedgerError."""
    _change(operations, names, paused=False)


def _change(operations: Operations, names: Sequence[str], *, paused: bool) -> None:
    from glassq.schedules.table import ScheduleTable

    found = [_named(operations, name) for name in names]
    table, now = ScheduleTable(operations.settings.ledger.url), operations.clock()
    try:
        for schedule in found:
            (table.pause if paused else table.resume)(schedule.name, now)
    finally:
        table.close()


def _named(operations: Operations, name: str) -> Schedule:
    schedules = schedules_of(operations.settings)
    if not schedules:
        raise Conflict(f"{operations.settings.file}: there are no schedules: add [[schedule]] with name and cron")
    known = {schedule.name: schedule for schedule in schedules}
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(sorted(known))}"
        raise NotFound(f"no schedule {name}; {hint}")
    return known[name]
