"""Buried deliveries in groups: by the cause of their failure (causes.py), by handler or by source."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, Protocol

from glassq.operations.hints import Hint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from glassq.causes import Cause

By = Literal["reason", "handler", "source"]
# A trend has so many hours, the present one last.
HOURS = 24


class Blamed(Protocol):
    """What decides into which group a buried job belongs."""

    @property
    def source(self) -> str: ...
    @property
    def handler(self) -> str: ...
    @property
    def cause(self) -> Cause: ...


class Failed(Blamed, Protocol):
    """What is put into groups: a buried job, as find.Found is one."""

    @property
    def ref(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def failed_at(self) -> datetime | None: ...


@dataclass(frozen=True, slots=True)
class Group:
    """Deliveries of one cause, handler or source; `condition` is the filter that selects them.

    `first` and `last` say when the first and the last of them failed (None: nobody knows). `example` is a delivery's
    id, or the reference of a job that is damaged; `cause` is that one's. `trend` is how many failed in each of the last
    HOURS. `new` is as novelty.py has it.
    """

    id: str
    words: str
    count: int
    first: datetime | None
    last: datetime | None
    example: str
    condition: str
    new: bool
    trend: tuple[int, ...]
    cause: Cause

    def document(self) -> dict[str, Any]:
        """The group for JSON."""
        fields: dict[str, Any] = {name: getattr(self, name) for name in self.__slots__ if name != "cause"}
        return {**fields, "trend": list(self.trend)}


@dataclass(slots=True)
class Tally:
    """A group while it is counted. Times are Unix times; `now` is the end of the trend, and new is from `since` on."""

    id: str
    words: str
    condition: str
    example: str
    cause: Cause
    now: float
    since: float
    count: int = 0
    first: float | None = None
    last: float | None = None
    hours: list[int] = field(default_factory=lambda: [0] * HOURS)

    def add(self, at: float | None) -> None:
        """One more, which failed then."""
        self.count += 1
        if at is None:
            return
        if self.first is None or at < self.first:
            self.first = at
        if self.last is None or at > self.last:
            self.last = at
        # clocks of hosts differ: a failure of the future is one of now
        hour = max(0, int((self.now - at) // 3_600))
        if hour < HOURS:
            self.hours[HOURS - 1 - hour] += 1

    def add_all(self, times: Sequence[float]) -> None:
        """Many more, which failed then (NaN: nobody knows when)."""
        # without a step for each, as there may be very many; most are in order already
        known = sorted(times if (total := sum(times)) == total else [at for at in times if at == at])
        self.count += len(times)
        if not known:
            return
        self.first = known[0] if self.first is None else min(self.first, known[0])
        self.last = known[-1] if self.last is None else max(self.last, known[-1])
        # clocks of hosts differ: a failure of the future is one of now
        end = len(known)
        for hour in range(HOURS):
            begin = bisect_right(known, self.now - 3_600 * (hour + 1))
            self.hours[HOURS - 1 - hour] += end - begin
            end = begin

    def merge(self, other: Tally) -> None:
        """All that another one has counted, at about the same time."""
        self.count += other.count
        self.first = min((at for at in (self.first, other.first) if at is not None), default=None)
        self.last = max((at for at in (self.last, other.last) if at is not None), default=None)
        self.hours = [own + more for own, more in zip(self.hours, other.hours, strict=True)]

    def group(self) -> Group:
        """What was counted."""
        new = self.first is not None and self.first >= self.since
        first, last, trend = _moment(self.first), _moment(self.last), tuple(self.hours)
        words = (self.id, self.words, self.count, first, last, self.example, self.condition)
        return Group(*words, new, trend, self.cause)


class Grouping:
    """Puts failures into groups, newest first: the first of a group is its example."""

    def __init__(self, by: By, now: datetime, since: datetime) -> None:
        """`now` is in UTC; groups are new whose first failure came at `since` or later."""
        self._key = _KEYS[by]
        self._now, self._since = now.timestamp(), since.timestamp()
        self._tallies: dict[str, Tally] = {}

    def tally(self, blamed: Blamed, example: str) -> Tally:
        """Where failures like this one are counted."""
        found = self._tallies.get(self._key(blamed)[0])
        if found is None:
            found = self.alone(blamed, example)
            self._tallies[found.id] = found
        return found

    def alone(self, blamed: Blamed, example: str) -> Tally:
        """The same for failures that are counted by themselves."""
        return Tally(*self._key(blamed), example, blamed.cause, self._now, self._since)

    def groups(self) -> list[Group]:
        """The groups: the new ones first, and of these the largest."""
        groups = (tally.group() for tally in self._tallies.values())
        return sorted(groups, key=lambda each: (not each.new, -each.count, each.id))


def group(jobs: Iterable[Failed], by: By, now: datetime, since: datetime) -> list[Group]:
    """The jobs in groups, as `Grouping.groups` orders them. `now` and `since` are as in Grouping."""
    grouping = Grouping(by, now, since)
    for found in jobs:
        at = found.failed_at
        grouping.tally(found, found.name or found.ref).add(at.timestamp() if at else None)
    return grouping.groups()


def _moment(at: float | None) -> datetime | None:
    return None if at is None else datetime.fromtimestamp(at, UTC)


def _by_cause(found: Blamed) -> tuple[str, str, str]:
    cause = found.cause
    return cause.id, cause.words, f"cause={cause.id}"


def _by_handler(found: Blamed) -> tuple[str, str, str]:
    handler = found.handler
    return handler, found.cause.words, f"handler={handler}"


def _by_source(found: Blamed) -> tuple[str, str, str]:
    source = found.source
    return source, found.cause.words, f"source={source}"


_KEYS: dict[By, Callable[[Blamed], tuple[str, str, str]]] = {
    "reason": _by_cause,
    "handler": _by_handler,
    "source": _by_source,
}


def summary(buried: int) -> Hint | None:
    """Where to go on from a status that shows so many buried deliveries; None for a single one or none.

    It costs nothing: naming the causes would need a look at every buried job.
    """
    return (
        Hint(f"{buried} deliveries are buried; for their causes", "buried --by reason", "buried")
        if buried > 1
        else None
    )
