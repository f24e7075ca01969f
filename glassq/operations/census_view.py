"""What is known of all that lies buried at one moment, and how it is filtered and grouped."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING

import msgspec

from glassq.operations.census_table import BuriedKind, CensusEntry, CensusRows, CensusTable, Choice
from glassq.operations.groups import Grouping
from glassq.operations.listing import BuriedGroups

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from glassq.causes import Cause
    from glassq.operations.filters import Filter
    from glassq.operations.groups import By, Group, Tally

# What a filter can ask of an entry.
CONDITIONS = frozenset({"source", "tube", "handler", "cause", "words", "newer-than", "older-than"})


@dataclass(frozen=True, slots=True)
class CensusView:
    """What lies buried, as far as it was looked at.

    `table` has what is known of each: the rows below `end` are this view's, `known` of them when it was made, and
    those from `mark` on were seen later. `tallies` counts them by what they have in common, the kind of the newest
    first; `groups` are by cause. `counts` says how many are buried in each tube that has any, by the queue. `looked_at`
    is when that was (None: never yet), and new groups are those since `new_since` (novelty.py). `complete`: nothing is
    left to be looked at, but for what is more than can be kept. `short` says why these may not be all, `trouble` why
    nobody can look now ("": no reason).
    """

    table: CensusTable = field(default_factory=CensusTable)
    end: int = 0
    mark: int = 0
    known: int = 0
    tallies: Mapping[BuriedKind, Tally] = field(default_factory=dict)
    groups: tuple[Group, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    new_since: datetime | None = None
    looked_at: datetime | None = None
    complete: bool = False
    short: str = ""
    trouble: str = ""

    @property
    def total(self) -> int:
        """How many are buried in all, by the queue."""
        return sum(self.counts.values())

    def buried_in(self, tube: str | None) -> int:
        """How many are buried in this tube (None: in all of them), by the queue."""
        return self.total if tube is None else self.counts.get(tube, 0)

    @property
    def sources(self) -> tuple[str, ...]:
        """The sources of what lies buried."""
        return tuple(sorted({kind.source for kind in self.tallies if kind.source}))

    @property
    def tubes(self) -> tuple[str, ...]:
        """The tubes in which something lies buried."""
        return tuple(sorted(name for name, count in self.counts.items() if count))

    def matching(self, filter_: Filter, now: datetime) -> CensusRows:
        """The entries that fit, newest first. Raises InvalidRequest for what only a look at the jobs could tell."""
        rows = self.table.rows(self._choice(filter_, now))
        rows.reverse()
        return CensusRows(self.table, rows)

    def beginning(self, prefix: str, limit: int) -> list[CensusEntry]:
        """Those whose deliveries' ids begin so, in lower case; `limit` at most."""
        return [self.table.entry(row) for row in islice(self.table.beginning(prefix, self.end), limit)]

    def newer_than(self, mark: int, filter_: Filter, now: datetime) -> int:
        """How many fit that were not seen yet at the view with this mark. Raises InvalidRequest as `matching` does."""
        return self.table.seen_after(self.table.rows(self._choice(filter_, now)), mark) if self.mark > mark else 0

    def grouped(self, filter_: Filter, by: By, tube: str, now: datetime) -> BuriedGroups:
        """The entries that fit, in groups: the same as `glassq buried --by` shows. `tube` is that of pings.

        Unless their age is asked for, no entry is looked at: the kinds are counted already. Raises InvalidRequest as
        `matching` does.
        """
        since = self.new_since or now
        if _has_age(filter_):
            tallies: Mapping[BuriedKind, Tally] = self.table.tallies(self._choice(filter_, now), now, since)
        else:
            tallies = {kind: self.tallies[kind] for kind in self._fitting(filter_)}
        groups = tuple(grouped(tallies, by, now, since))
        return BuriedGroups(filter_.tube or tube, self.buried_in(filter_.tube), by, groups, self.short)

    def _choice(self, filter_: Filter, now: datetime) -> Choice:
        """The rows that fit."""
        at = now.timestamp()
        after, before = (None if age is None else at - age for age in (filter_.newer, filter_.older))
        return Choice(self.end, self._fitting(filter_), after, before)

    def _fitting(self, filter_: Filter) -> list[BuriedKind]:
        """The kinds that fit, that of the newest entry first; of their age nothing is known."""
        filter_.only(CONDITIONS, "buried")
        timeless = replace(filter_, newer=None, older=None)
        return [kind for kind in self.tallies if timeless.fits(_Subject(kind))]


class _Subject(msgspec.Struct, frozen=True):
    """A BuriedKind as a filter looks at it: nothing is known of what differs from job to job."""

    kind: BuriedKind
    age: float = 0.0
    reason: str = ""
    result: str = ""
    labels: dict[str, str] = {}

    @property
    def source(self) -> str:
        return self.kind.source

    @property
    def tube(self) -> str:
        return self.kind.tube

    @property
    def handler(self) -> str:
        return self.kind.handler

    @property
    def cause(self) -> Cause:
        return self.kind.cause


def _has_age(filter_: Filter) -> bool:
    return filter_.newer is not None or filter_.older is not None


def grouped(tallies: Mapping[BuriedKind, Tally], by: By, now: datetime, since: datetime) -> list[Group]:
    """The groups of these kinds; times are as in Grouping."""
    grouping = Grouping(by, now, since)
    for kind, tally in tallies.items():
        grouping.tally(kind, tally.example).merge(tally)
    return grouping.groups()
