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
    from collections.abc import Iterable, Iterator, Mapping

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
class CensusView:
    """What lies buried, as far as it was looked at.

    `entries` are newest first, `groups` are by cause. `counts` says how many are buried in each tube that has any, by
    the queue. `looked_at` is when that was (None: never yet). `complete`: nothing is left to be looked at, but for what
    is more than can be kept. `short` says why these may not be all, `trouble` why nobody can look now ("": no reason).
    """

    entries: tuple[CensusEntry, ...] = ()
    groups: tuple[Group, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    looked_at: datetime | None = None
    complete: bool = False
    short: str = ""
    trouble: str = ""

    @property
    def total(self) -> int:
        """How many are buried in all, by the queue."""
        return sum(self.counts.values())

    @property
    def sources(self) -> tuple[str, ...]:
        """The sources of what lies buried."""
        return tuple(sorted({group.cause.origin for group in self.groups if group.cause.origin}))

    @property
    def tubes(self) -> tuple[str, ...]:
        """The tubes in which something lies buried."""
        return tuple(sorted(name for name, count in self.counts.items() if count))

    def matching(self, filter_: Filter, now: datetime) -> list[CensusEntry]:
        """The entries that fit, newest first. Raises InvalidRequest for what only a look at the jobs could tell."""
        return list(self._fitting(filter_, now))

    def grouped(self, filter_: Filter, by: By, tube: str, now: datetime) -> BuriedGroups:
        """The entries that fit, in groups: the same as `glassq buried --by` shows. `tube` is that of pings.

        Raises InvalidRequest as `matching` does.
        """
        total = self.total if filter_.tube is None else self.counts.get(filter_.tube, 0)
        groups = tuple(grouped(self._fitting(filter_, now), by, now))
        return BuriedGroups(filter_.tube or tube, total, by, groups, self.short)

    def _fitting(self, filter_: Filter, now: datetime) -> Iterable[CensusEntry]:
        filter_.only(CONDITIONS, "buried")
        if not filter_:
            return self.entries
        timeless, ages = replace(filter_, newer=None, older=None), (filter_.newer, filter_.older)
        fits: dict[BuriedKind, bool] = {}
        return _filtered(self.entries, timeless, ages, fits, now)


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


def _filtered(
    entries: Iterable[CensusEntry],
    timeless: Filter,
    ages: tuple[float | None, float | None],
    fits: dict[BuriedKind, bool],
    now: datetime,
) -> Iterator[CensusEntry]:
    """The entries whose kind fits, and whose age is within the `ages`."""
    newer, older = ages
    for entry in entries:
        fit = fits.get(entry.kind)
        if fit is None:
            fit = fits[entry.kind] = timeless.fits(_Subject(entry.kind))
        if fit and (newer is None or entry.age(now) < newer) and (older is None or entry.age(now) > older):
            yield entry


def grouped(entries: Iterable[CensusEntry], by: By, now: datetime) -> list[Group]:
    """The entries in groups; they are newest first."""
    grouping = Grouping(by, now)
    tallies: dict[BuriedKind, Tally] = {}
    for entry in entries:
        tally = tallies.get(entry.kind)
        if tally is None:
            tally = tallies[entry.kind] = grouping.tally(entry.kind, entry.delivery or entry.ref)
        tally.add(entry.failed)
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
