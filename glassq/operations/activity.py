"""Who did what to the installation: the record that every face writes, and what it says.

A ledger that is not there, or refuses, ends no operation: the log alone has the activity then.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Self

import msgspec

from glassq.delivery import new_id
from glassq.errors import LedgerError, SettingsError, Stopped
from glassq.ledger.activity import NOTE, Activity, State
from glassq.log import fields, logger
from glassq.mask import masked_text
from glassq.operations.result import Did

if TYPE_CHECKING:
    from collections.abc import Iterable

    from glassq.operations import Operations
    from glassq.operations.progress import Progress
    from glassq.operations.result import Report

log = logger("glassq.activity")

# A hundred years: what is asked for beyond that is everything.
MAX_SECONDS = 100 * 365 * 86_400.0
# What was not done with a delivery.
_NOT_DONE = (Did.NOTHING, Did.LEFT_OUT)


@dataclass(frozen=True, slots=True)
class CameTo:
    """What an activity came to, as far as it is known: numbers of deliveries, and words; None stays as it was."""

    state: State = "done"
    done: int | None = None
    failed: int | None = None
    left: int | None = None
    note: str | None = None

    @classmethod
    def of_report(cls, report: Report, chosen: int) -> Self:
        """Of an operation that was carried out on so many deliveries."""
        done = sum(result.did not in _NOT_DONE and not result.planned for result in report.results)
        failed = sum(result.did is Did.NOTHING and not result.general for result in report.results)
        remarks = [result for result in report.results if result.general]
        words = [*report.words, *(each.why if each.id == "--canary" else f"{each.id}: {each.why}" for each in remarks)]
        if report.error is not None and not isinstance(report.error, Stopped):
            words.insert(0, str(report.error))
        stopped = isinstance(report.error, Stopped) or any(remark.id == "--canary" for remark in remarks)
        state: State = "stopped" if stopped else "failed" if report.error else "done"
        return cls(state, done, failed, max(0, chosen - done - failed), "; ".join(words))


DONE = CameTo()


class Activities:
    """What is done from now on by the actor of these operations, and what was done before by anybody.

    Any thread may use it. What cannot be recorded is told `progress` once.
    """

    def __init__(self, operations: Operations, progress: Progress) -> None:
        # loaded by what changes something
        from glassq.ledger.activity_writer import ActivityWriter

        self._operations = operations
        self._progress = progress
        self._writer = ActivityWriter(operations.settings.ledger)
        self._unwritten: set[str] = set()
        self._warned = False

    def begin(self, did: str, *, command: str = "", filter_: str = "", chosen: int = 0, run: str = "") -> str:
        """Something begins; returns its id. See Activity for the rest."""
        return self._add(did, state="running", command=command, filter=filter_, chosen=chosen, run=run)

    def update(self, activity: str, came_to: CameTo) -> None:
        """How far it has come; it goes on."""
        self._change(activity, {**_known(came_to), "state": "running"})

    def end(self, activity: str, came_to: CameTo = DONE) -> None:
        """It is over."""
        known = _known(came_to)
        self._change(activity, {**known, "ended": self._operations.clock()})
        log.info("activity ended %s", fields(id=activity, **known))

    def record(
        self, did: str, came_to: CameTo = DONE, *, command: str = "", filter_: str = "", chosen: int = 0, run: str = ""
    ) -> str:
        """Something that is over already; returns its id."""
        about = {"command": command, "filter": filter_, "chosen": chosen, "run": run}
        return self._add(did, ended=self._operations.clock(), **_known(came_to), **about)

    def note(self, cause: str, words: str) -> str:
        """What the actor wants others to know of a cause; the newest note of a cause counts. Returns its id."""
        return self._add(NOTE, cause=cause, note=words, ended=self._operations.clock())

    def _add(self, did: str, **more: Any) -> str:
        operations = self._operations
        for name in ("command", "filter", "note"):
            more[name] = masked_text(more.get(name) or "")
        made = Activity(id=new_id(), at=operations.clock(), actor=operations.actor, via=operations.via, did=did, **more)
        about = {name: getattr(made, name) for name in ("id", "actor", "via", "did", "command", "chosen", "cause")}
        log.info("activity %s", fields(**{name: value for name, value in about.items() if value}))
        try:
            if absent := self._writer.absent():
                self._cannot(made.id, absent)
            else:
                self._writer.add(made)
        except (LedgerError, SettingsError) as error:
            self._cannot(made.id, str(error))
        return made.id

    def _change(self, activity: str, changes: dict[str, Any]) -> None:
        if activity in self._unwritten:
            return
        if changes.get("note"):
            changes["note"] = masked_text(changes["note"])
        try:
            self._writer.change(activity, changes)
        except (LedgerError, SettingsError) as error:
            self._cannot(activity, str(error))

    def _cannot(self, activity: str, why: str) -> None:
        self._unwritten.add(activity)
        if not self._warned:
            self._warned = True
            self._progress.warn(f"`glassq activity` will not know of this: {why}")


def newest(
    operations: Operations,
    *,
    who: str = "",
    did: str = "",
    state: str = "",
    seconds: float | None = None,
    limit: int | None = None,
) -> list[Activity]:
    """What was done, newest first; with `seconds`, within that time.

    Raises LedgerError and SettingsError where the ledger cannot be read.
    """
    since = None if seconds is None else operations.clock() - timedelta(seconds=min(seconds, MAX_SECONDS))
    with operations.ledger() as ledger:
        return ledger.activities(who=who, did=did, state=state, since=since, limit=limit)


def absent(operations: Operations) -> str:
    """Why there is no ledger, in words; "" if there is one. Raises LedgerError and SettingsError."""
    with operations.ledger() as ledger:
        return ledger.absent


def found(operations: Operations, activity: str) -> Activity | None:
    """The one with this id. Raises LedgerError and SettingsError."""
    with operations.ledger() as ledger:
        return next(iter(ledger.activities(id=activity)), None)


def notes(operations: Operations, causes: Iterable[str] = ()) -> dict[str, Activity]:
    """The newest note of each of these causes, or of all that have one. Raises LedgerError and SettingsError."""
    wanted = frozenset(causes)
    with operations.ledger() as ledger:
        told = ledger.activities(did=NOTE)
    by_cause = {each.cause: each for each in reversed(told) if each.cause in wanted or not wanted}
    # an empty one takes back those before it
    return {cause: each for cause, each in by_cause.items() if each.note}


def document(activities: Iterable[Activity]) -> dict[str, Any]:
    """The activities for JSON."""
    return {"activities": [msgspec.structs.asdict(each) for each in activities]}


def words(activity: Activity) -> str:
    """What came of it, in words: "198 of 200, 2 not done"."""
    if not activity.chosen:
        return "" if activity.state == "done" else activity.state
    said = f"{activity.done} of {activity.chosen}" + (f", {activity.failed} not done" if activity.failed else "")
    return said if activity.state == "done" else f"{activity.state}: {said}"


def _known(came_to: CameTo) -> dict[str, Any]:
    named = {name: getattr(came_to, name) for name in ("state", "done", "failed", "left", "note")}
    return {name: value for name, value in named.items() if value is not None}
