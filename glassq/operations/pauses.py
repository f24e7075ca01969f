"""What is paused: since when, until when, and by whom, as far as the queue and the ledger know.

The queue knows the end of a pause, and beanstalkd its length as well. Who asked for it only the ledger knows, and that
only of glassq's own commands: a pause is somebody's if it ends when theirs was to end.
"""

from __future__ import annotations

import re
import shlex
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from glassq.errors import InvalidRequest, LedgerError, SettingsError
from glassq.operations import activity as activities
from glassq.operations.filters import duration
from glassq.operations.words import PAUSED_FOR_GOOD, moment, until

if TYPE_CHECKING:
    from collections.abc import Sequence

    from glassq.ledger.activity import Activity
    from glassq.operations import Operations
    from glassq.queues.base import TubeCounts

# Pauses that end within so many seconds are one.
TOGETHER = 30.0
# So far the end of a pause may be from that which was asked for, in seconds: clocks of hosts differ, and it takes a
# moment to pause many tubes.
NEAR = 15.0
# So long the ledger is not asked again, in seconds; and so many of the latest pauses are looked through.
_FRESH, _MOST_PAUSES = 5.0, 50
_FOR = re.compile(r"--for[ =](\S+)")


@dataclass(frozen=True, slots=True)
class Pause:
    """A tube that is paused ("": all of them). `words` say for how long, `until` is None where it is for good.

    `who` and `via` are "", and `since` is None, where neither the queue nor the ledger knows.
    """

    tube: str
    words: str
    until: datetime | None = None
    since: datetime | None = None
    who: str = ""
    via: str = ""

    def __str__(self) -> str:
        by = f", by {self.who} ({self.via})" if self.who else ""
        since = f", since {moment(self.since)[:19]}Z" if self.since else ""
        return f"{f'tube {self.tube}' if self.tube else 'everything'} is paused {self.words}{by}{since}"


class Pausers:
    """The pauses that the ledger knows. Any thread may use it."""

    def __init__(self, operations: Operations) -> None:
        self._operations = operations
        self._lock = threading.Lock()
        self._pauses: list[Activity] = []
        self._until = 0.0

    def of(self, tubes: Sequence[TubeCounts], at: datetime) -> Activity | None:
        """The newest pause of these tubes that is to end when theirs does; `at` is when they were looked at.

        None where the ledger knows of none, or is away.
        """
        return next((each for each in self._known() if _explains(each, tubes, at)), None)

    def forget(self) -> None:
        """There is a new one."""
        with self._lock:
            self._until = 0.0

    def _known(self) -> list[Activity]:
        with self._lock:
            if time.monotonic() > self._until:
                try:
                    self._pauses = activities.newest(self._operations, did="pause", limit=_MOST_PAUSES)
                except (LedgerError, SettingsError):
                    self._pauses = []
                self._until = time.monotonic() + _FRESH
            return self._pauses


def pauses(tubes: Sequence[TubeCounts], at: datetime, pausers: Pausers) -> tuple[Pause, ...]:
    """What is paused of all these tubes, as they were then: one by one, or all at once where all ends together."""
    paused = [tube for tube in tubes if tube.paused_for]
    lengths = [tube.paused_for for tube in paused]
    if len(paused) > 1 and len(paused) == len(tubes) and max(lengths) - min(lengths) < TOGETHER:
        return (_pause("", paused, pausers, at),)
    return tuple(_pause(tube.name, (tube,), pausers, at) for tube in paused)


def _pause(name: str, tubes: Sequence[TubeCounts], pausers: Pausers, at: datetime) -> Pause:
    first = min(tubes, key=lambda tube: tube.paused_for)
    lasts = first.paused_for >= PAUSED_FOR_GOOD
    ends = None if lasts else at + timedelta(seconds=first.paused_for)
    words = until(first.paused_for)
    if by := pausers.of(tubes, at):
        return Pause(name, words, ends, by.at, by.actor, by.via)
    return Pause(name, words, ends, _began(first, at))


def _began(tube: TubeCounts, at: datetime) -> datetime | None:
    """When the tube was paused, if the queue knows that."""
    return None if tube.pause is None else at - timedelta(seconds=tube.pause - tube.paused_for)


def _explains(told: Activity, tubes: Sequence[TubeCounts], at: datetime) -> bool:
    """Whether these tubes are paused because of it."""
    named = _names(told.filter)
    if named and not {tube.name for tube in tubes} <= named:
        return False
    return all(_ends_alike(told, tube, at) for tube in tubes)


def _ends_alike(told: Activity, tube: TubeCounts, at: datetime) -> bool:
    length = _length(told.command)
    if length is not None:
        return abs((told.at - at).total_seconds() + length - tube.paused_for) <= NEAR
    began = _began(tube, at)
    # for good: the end is the same for all of them
    return tube.paused_for >= PAUSED_FOR_GOOD and (began is None or abs((told.at - began).total_seconds()) <= NEAR)


def _length(command: str) -> float | None:
    """For how many seconds a command pauses; None: for good."""
    found = _FOR.search(command)
    if found:
        with suppress(InvalidRequest):
            return duration("for", found[1])
    return None


def _names(filter_: str) -> frozenset[str]:
    """The tubes that a pause was for; none: all."""
    try:
        return frozenset(shlex.split(filter_))
    except ValueError:
        # one that was masked, or cut off
        return frozenset(filter_.split())
