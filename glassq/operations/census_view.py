"""What is known of all that lies buried, without bodies: an entry of about 230 bytes for each job.

Whatever many jobs have in common stands once, in a BuriedKind. The rest of an entry is packed into one bytes object.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from glassq.operations.bulk import digest_of
from glassq.operations.groups import Grouping
from glassq.operations.listing import BuriedGroups

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from glassq.causes import Cause
    from glassq.operations.filters import Filter
    from glassq.operations.find import Found
    from glassq.operations.groups import By, Group, Tally

# What a filter can ask of an entry.
CONDITIONS = frozenset({"source", "tube", "handler", "cause", "words", "newer-than", "older-than"})
# The digest of the job's body, when the ping was received, and when it failed last: Unix times, NaN for unknown. The
# delivery's id follows: 16 bytes for a UUID, longer for any other text, nothing where the job is damaged.
_PACKED = struct.Struct("<16sdd")
_UUID_BYTES = 16


@dataclass(frozen=True, slots=True, eq=False)
class BuriedKind:
    """What many buried jobs have in common. One object for each, so that it is known by its identity."""

    source: str
    tube: str
    handler: str
    cause: Cause


class CensusEntry(msgspec.Struct, frozen=True, gc=False):
    """One buried job, as it was seen. `packed` is read by the properties."""

    kind: BuriedKind
    ref: str
    packed: bytes

    @property
    def tube(self) -> str:
        """The tube that it is in."""
        return self.kind.tube

    @property
    def source(self) -> str:
        """Who sent the ping; "" where the job is damaged."""
        return self.kind.source

    @property
    def handler(self) -> str:
        """The handler that works it by the settings; "" for none."""
        return self.kind.handler

    @property
    def cause(self) -> Cause:
        """Why it failed last."""
        return self.kind.cause

    @property
    def delivery(self) -> str:
        """The delivery's id; "" where the job is damaged."""
        return _id_text(self.packed[_PACKED.size :])

    @property
    def digest(self) -> bytes:
        """By what the job's body is known again (bulk.digest_of)."""
        return self.packed[:16]

    @property
    def received(self) -> datetime:
        """When the ping was received; of a damaged job, when it was put."""
        return datetime.fromtimestamp(_PACKED.unpack_from(self.packed)[1], UTC)

    @property
    def failed_at(self) -> datetime | None:
        """When it failed last; None where nobody knows."""
        at = self.failed
        return None if at is None else datetime.fromtimestamp(at, UTC)

    @property
    def failed(self) -> float | None:
        """The same as a Unix time."""
        at: float = _PACKED.unpack_from(self.packed)[2]
        return at if at == at else None

    def age(self, now: datetime) -> float:
        """Seconds since the ping was received."""
        received: float = _PACKED.unpack_from(self.packed)[1]
        return max(0.0, now.timestamp() - received)


@dataclass(slots=True)
class BuriedKinds:
    """Makes entries; of jobs that are alike, they share the BuriedKind."""

    _known: dict[tuple[str, str, str, str], BuriedKind] = field(default_factory=dict)

    def entry(self, found: Found, now: float) -> CensusEntry:
        """The entry of a buried job; `now` is the Unix time."""
        cause, handler = found.cause, found.handler
        key = (found.source, found.tube, handler, cause.id)
        kind = self._known.get(key)
        if kind is None:
            kind = self._known[key] = BuriedKind(*key[:3], cause)
        failed = found.failed_at.timestamp() if found.failed_at else float("nan")
        received = found.delivery.received.timestamp() if found.delivery else now - found.age
        packed = _PACKED.pack(digest_of(found.job.body), received, failed)
        return CensusEntry(kind, found.ref, packed + _id_bytes(found.name))

    def keep(self, entries: Iterable[CensusEntry]) -> None:
        """Forgets the kinds of which there is none any more."""
        used = {entry.kind for entry in entries}
        self._known = {key: kind for key, kind in self._known.items() if kind in used}


@dataclass(frozen=True, slots=True)
class Alike:
    """The entries of one kind, newest first, and what was counted of them."""

    entries: list[CensusEntry]
    tally: Tally


@dataclass(frozen=True, slots=True)
class CensusView:
    """What lies buried, as far as it was looked at.

    `entries` are newest first, `groups` are by cause; `kinds` has the same entries by what they have in common.
    `counts` says how many are buried in each tube that has any, by the queue. `looked_at` is when that was (None: never
    yet), and new groups are those since `new_since` (novelty.py). `complete`: nothing is left to be looked at, but for
    what is more than can be kept. `short` says why these may not be all, `trouble` why nobody can look now ("": no
    reason).
    """

    entries: tuple[CensusEntry, ...] = ()
    kinds: Mapping[BuriedKind, Alike] = field(default_factory=dict)
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
        return tuple(sorted({kind.source for kind in self.kinds if kind.source}))

    @property
    def tubes(self) -> tuple[str, ...]:
        """The tubes in which something lies buried."""
        return tuple(sorted(name for name, count in self.counts.items() if count))

    def matching(self, filter_: Filter, now: datetime) -> list[CensusEntry]:
        """The entries that fit, newest first. Raises InvalidRequest for what only a look at the jobs could tell."""
        kinds = self._fitting(filter_)
        if len(kinds) == len(self.kinds):
            found = list(self.entries)
        elif len(kinds) == 1:
            found = list(self.kinds[kinds[0]].entries)
        else:
            wanted = frozenset(kinds)
            found = [entry for entry in self.entries if entry.kind in wanted]
        return [entry for entry in found if _of_age(entry, filter_, now)] if _has_age(filter_) else found

    def grouped(self, filter_: Filter, by: By, tube: str, now: datetime) -> BuriedGroups:
        """The entries that fit, in groups: the same as `glassq buried --by` shows. `tube` is that of pings.

        Unless their age is asked for, no entry is looked at: the kinds are counted already. Raises InvalidRequest as
        `matching` does.
        """
        kinds, grouping = self._fitting(filter_), Grouping(by, now, self.new_since or now)
        for kind in kinds:
            alike = self.kinds[kind]
            if not _has_age(filter_):
                grouping.tally(kind, alike.tally.example).merge(alike.tally)
                continue
            for entry in alike.entries:
                if _of_age(entry, filter_, now):
                    grouping.tally(kind, entry.delivery or entry.ref).add(entry.failed)
        return BuriedGroups(
            filter_.tube or tube, self.buried_in(filter_.tube), by, tuple(grouping.groups()), self.short
        )

    def _fitting(self, filter_: Filter) -> list[BuriedKind]:
        """The kinds that fit, that of the newest entry first; of their age nothing is known."""
        filter_.only(CONDITIONS, "buried")
        timeless = replace(filter_, newer=None, older=None)
        return [kind for kind in self.kinds if timeless.fits(_Subject(kind))]


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


def _of_age(entry: CensusEntry, filter_: Filter, now: datetime) -> bool:
    age = entry.age(now)
    return (filter_.newer is None or age < filter_.newer) and (filter_.older is None or age > filter_.older)


def by_kind(entries: Iterable[CensusEntry], now: datetime, since: datetime) -> dict[BuriedKind, Alike]:
    """The entries by their kinds, counted; they are newest first, and so are the kinds by their newest."""
    grouping = Grouping("reason", now, since)
    found: dict[BuriedKind, Alike] = {}
    for entry in entries:
        alike = found.get(entry.kind)
        if alike is None:
            alike = found[entry.kind] = Alike([], grouping.alone(entry.kind, entry.delivery or entry.ref))
        alike.entries.append(entry)
        alike.tally.add(entry.failed)
    return found


def grouped(kinds: Mapping[BuriedKind, Alike], now: datetime, since: datetime) -> list[Group]:
    """The groups of all, by cause."""
    grouping = Grouping("reason", now, since)
    for kind, alike in kinds.items():
        grouping.tally(kind, alike.tally.example).merge(alike.tally)
    return grouping.groups()


def _id_bytes(text: str) -> bytes:
    """A delivery's id as bytes, of a UUID half as many."""
    try:
        packed = bytes.fromhex(text.replace("-", ""))
    except ValueError:
        packed = b""
    if len(packed) == _UUID_BYTES and _id_text(packed) == text:
        return packed
    # longer than a UUID's, so that it is known again
    return b"\0" * (_UUID_BYTES + 1) + text.encode("utf-8", "surrogatepass") if text else b""


def _id_text(packed: bytes) -> str:
    if len(packed) > _UUID_BYTES:
        return packed[_UUID_BYTES + 1 :].decode("utf-8", "surrogatepass")
    text = packed.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}" if text else ""
