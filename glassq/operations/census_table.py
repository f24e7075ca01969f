"""What is known of each buried job, in columns of 64 bytes in all. What many have in common stands once, in a kind."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import chain, compress
from operator import and_, itemgetter
from typing import TYPE_CHECKING, overload

import msgspec

from glassq.operations.bulk import digest_of
from glassq.operations.groups import Grouping

if TYPE_CHECKING:
    from glassq.causes import Cause
    from glassq.operations.find import Found
    from glassq.operations.groups import Tally

# The sizes of what is packed, in bytes: a digest (bulk.digest_of), and a UUID.
_DIGEST, _UUID = 16, 16
# Added to the kind's number of a row that is gone.
_GONE = 1 << 31
_UINT64 = (1 << 64) - 1
# A table with more rows than this, of which most are gone, is made anew.
MIN_ROWS = 1_000


@dataclass(frozen=True, slots=True, eq=False)
class BuriedKind:
    """What many buried jobs have in common. One object for each, so that it is known by its identity."""

    source: str
    tube: str
    handler: str
    cause: Cause


class CensusEntry(msgspec.Struct, frozen=True):
    """One buried job, as it was seen.

    `delivery` is the delivery's id, "" where the job is damaged. By `digest` the job's body is known again. `received`
    is when the ping was received, of a damaged job when it was put, and `failed` when it failed last: Unix times, NaN
    for unknown.
    """

    kind: BuriedKind
    ref: str
    delivery: str
    digest: bytes
    received: float
    failed: float

    @property
    def tube(self) -> str:
        """The tube that it is in."""
        return self.kind.tube

    @property
    def source(self) -> str:
        """Who sent the ping; "" where the job is damaged."""
        return self.kind.source

    @property
    def cause(self) -> Cause:
        """Why it failed last."""
        return self.kind.cause

    @property
    def failed_at(self) -> datetime | None:
        """When it failed last; None where nobody knows."""
        return datetime.fromtimestamp(self.failed, UTC) if self.failed == self.failed else None

    def age(self, now: datetime) -> float:
        """Seconds since the ping was received."""
        return max(0.0, now.timestamp() - self.received)


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
        return CensusEntry(kind, found.ref, found.name, digest_of(found.job.body), received, failed)

    def keep(self, kinds: Iterable[BuriedKind]) -> None:
        """Forgets all kinds but these."""
        used = set(kinds)
        self._known = {key: kind for key, kind in self._known.items() if kind in used}


@dataclass(frozen=True, slots=True)
class Choice:
    """Which rows of a table, of those that are not gone.

    Those below `end` that are of these `kinds`, and that were received later than `after` and earlier than `before`, as
    Unix times. None: all.
    """

    end: int | None = None
    kinds: Collection[BuriedKind] | None = None
    after: float | None = None
    before: float | None = None


class CensusTable:
    """Rows by their numbers, the oldest first. A number stays that of its row; a row that is gone is marked.

    One thread writes. Others may read the rows that were there when they were told of them.
    """

    def __init__(self, room: int = 0) -> None:
        """`room` is for so many rows that are found newest first, by `put_before`."""
        #: the first row
        self.begin = room
        #: how many rows are not gone
        self.count = 0
        self._kinds: list[BuriedKind] = []
        self._numbers: dict[BuriedKind, int] = {}
        self._kind = array("I", bytes(4 * room))
        # the number that a reference is, or its hash: then the text is beside it
        self._refs = array("Q", bytes(8 * room))
        self._other_refs: dict[int, str] = {}
        self._received, self._failed = array("d", bytes(8 * room)), array("d", bytes(8 * room))
        self._seen = array("I", bytes(4 * room))
        self._digests = bytearray(_DIGEST * room)
        self._ids = bytearray(_UUID * room)
        # ids that are no UUIDs; damaged jobs have none
        self._other_ids: dict[int, str] = {}

    def __len__(self) -> int:
        """The number after that of the newest row."""
        return len(self._kind)

    @property
    def kinds(self) -> Sequence[BuriedKind]:
        """Those that its rows have, or had."""
        return self._kinds

    # -- what is written ---------------------------------------------------------------------------------------------

    def put_before(self, entry: CensusEntry, seen: int) -> None:
        """A row before all others, which the table has room for. `seen` grows with each that is seen anew."""
        row = self.begin - 1
        packed = self._packed(entry, row)
        self._refs[row], self._seen[row] = self._ref_number(entry.ref, row), seen
        self._received[row], self._failed[row] = entry.received, entry.failed
        self._digests[_DIGEST * row : _DIGEST * (row + 1)] = entry.digest
        self._ids[_UUID * row : _UUID * (row + 1)] = packed
        self._kind[row] = self._number(entry.kind)
        # others may read it from now on
        self.begin = row
        self.count += 1

    def append(self, entry: CensusEntry, seen: int) -> None:
        """A row after all others."""
        row = len(self)
        packed = self._packed(entry, row)
        self._refs.append(self._ref_number(entry.ref, row))
        self._seen.append(seen)
        self._received.append(entry.received)
        self._failed.append(entry.failed)
        self._digests += entry.digest
        self._ids += packed
        self._kind.append(self._number(entry.kind))
        self.count += 1

    def forget(self, row: int) -> BuriedKind:
        """The row is gone from now on; its kind."""
        kind = self.kind(row)
        self._kind[row] |= _GONE
        self.count -= 1
        return kind

    def tidied(self) -> CensusTable:
        """This table, or another one with the same rows if most of these are gone."""
        if len(self) - self.begin < max(MIN_ROWS, 2 * self.count):
            return self
        made = CensusTable()
        for row in self.rows():
            made.append(self.entry(row), self._seen[row])
        return made

    def _number(self, kind: BuriedKind) -> int:
        number = self._numbers.get(kind)
        if number is None:
            number = self._numbers[kind] = len(self._kinds)
            self._kinds.append(kind)
        return number

    def _ref_number(self, ref: str, row: int) -> int:
        number, exact = _numbered(ref)
        if not exact:
            self._other_refs[row] = ref
        return number

    def _packed(self, entry: CensusEntry, row: int) -> bytes:
        """The delivery's id; of one that is no UUID, the text stays beside the columns."""
        packed = _uuid_bytes(entry.delivery)
        if not packed and entry.delivery:
            self._other_ids[row] = entry.delivery
        return packed or bytes(_UUID)

    # -- one row -----------------------------------------------------------------------------------------------------

    def entry(self, row: int) -> CensusEntry:
        """The row as a value, also where it is gone."""
        return CensusEntry(
            self.kind(row),
            self.ref(row),
            self.delivery(row),
            self.digest(row),
            self._received[row],
            self._failed[row],
        )

    def kind(self, row: int) -> BuriedKind:
        """What it has in common with others."""
        return self._kinds[self._kind[row] & ~_GONE]

    def ref(self, row: int) -> str:
        """The job's reference."""
        return self._other_refs.get(row) or str(self._refs[row])

    def delivery(self, row: int) -> str:
        """The delivery's id; "" where the job is damaged."""
        if (other := self._other_ids.get(row)) is not None:
            return other
        packed = self._ids[_UUID * row : _UUID * (row + 1)]
        return _uuid_text(packed) if any(packed) else ""

    def digest(self, row: int) -> bytes:
        """By what the job's body is known again."""
        return bytes(self._digests[_DIGEST * row : _DIGEST * (row + 1)])

    def is_there(self, row: int) -> bool:
        """Whether it is a row that is not gone."""
        return row >= self.begin and self._kind[row] < _GONE

    def ref_number(self, row: int) -> int:
        """A number that rows with the same reference share, and few others."""
        return self._refs[row]

    def seen(self, row: int) -> int:
        """See `put_before`."""
        return self._seen[row]

    # -- many rows ---------------------------------------------------------------------------------------------------

    def rows(self, which: Choice | None = None) -> array[int]:
        """The rows that are chosen, oldest first; None: all that are not gone."""
        which = which or Choice()
        begin, end = self.begin, len(self) if which.end is None else which.end
        return array("I", compress(range(begin, end), self._fit(which, begin, end)))

    def _fit(self, which: Choice, begin: int, end: int) -> Iterator[bool]:
        """For each of these rows, whether it is chosen: without a step for each, as there may be very many."""
        named = self._kinds if which.kinds is None else which.kinds
        wanted = frozenset(self._numbers[kind] for kind in named if kind in self._numbers)
        fits = map(wanted.__contains__, self._kind[begin:end])
        if which.after is not None:
            fits = map(and_, fits, map(which.after.__lt__, self._received[begin:end]))
        if which.before is not None:
            fits = map(and_, fits, map(which.before.__gt__, self._received[begin:end]))
        return fits

    def seen_after(self, rows: Iterable[int], mark: int) -> int:
        """How many of these rows were seen anew after the one with this mark."""
        return sum(map(mark.__lt__, map(self._seen.__getitem__, rows)))

    def rows_of(self, refs: Iterable[str]) -> dict[str, int]:
        """The rows of these references, as far as they are there and not gone."""
        named = {ref: _numbered(ref)[0] for ref in refs}
        if not named:
            return {}
        numbers = frozenset(named.values())
        rows = compress(range(self.begin, len(self)), map(numbers.__contains__, self._refs[self.begin :]))
        found = {self.ref(row): row for row in rows if self.is_there(row)}
        return {ref: row for ref, row in found.items() if ref in named}

    def beginning(self, prefix: str, end: int) -> Iterator[int]:
        """The rows below `end` that are not gone, and whose deliveries' ids begin so: newest first, UUIDs first."""
        for row in chain(self._uuids_beginning(prefix, end), sorted(self._other_ids, reverse=True)):
            if row < end and self.is_there(row) and self.delivery(row).startswith(prefix):
                yield row

    def _uuids_beginning(self, prefix: str, end: int) -> Iterator[int]:
        """The same, and perhaps others."""
        digits = prefix.replace("-", "")
        whole, at = _hex_bytes(digits[: len(digits) // 2 * 2]), _UUID * end
        while whole and (at := self._ids.rfind(whole, 0, at + len(whole) - 1)) >= 0:
            row, rest = divmod(at, _UUID)
            if not rest:
                yield row

    def tallies(self, which: Choice, now: datetime, since: datetime) -> dict[BuriedKind, Tally]:
        """The rows that are chosen, counted by their kinds: first the kind of the newest. Times as in Grouping."""
        begin, end = self.begin, len(self) if which.end is None else which.end
        failed: dict[int, array[float]] = {}
        newest: dict[int, int] = {}
        rows = zip(self._kind[begin:end], self._failed[begin:end], range(begin, end), strict=True)
        for number, at, row in compress(rows, self._fit(which, begin, end)):
            if number not in failed:
                failed[number] = array("d")
            failed[number].append(at)
            newest[number] = row
        grouping, found = Grouping("reason", now, since), {}
        for number, row in sorted(newest.items(), key=itemgetter(1), reverse=True):
            kind = self._kinds[number]
            tally = found[kind] = grouping.alone(kind, self.delivery(row) or self.ref(row))
            tally.add_all(failed[number])
        return found


class RefIndex:
    """Finds rows of a table by references, very many times; in four bytes for each row that it has now."""

    def __init__(self, table: CensusTable) -> None:
        self._table = table
        self._rows = array("I", sorted(table.rows(), key=table.ref_number))

    def row(self, ref: str) -> int | None:
        """The row with this reference; None where there is none."""
        number, _ = _numbered(ref)
        at = bisect_left(self._rows, number, key=self._table.ref_number)
        while at < len(self._rows) and self._table.ref_number(row := self._rows[at]) == number:
            if self._table.ref(row) == ref:
                return row
            at += 1
        return None


class CensusRows(Sequence[CensusEntry]):
    """Some rows of a table as entries, each made when it is asked for: `rows` are numbers, in the order of this one."""

    def __init__(self, table: CensusTable, rows: array[int]) -> None:
        self.table = table
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> CensusEntry: ...
    @overload
    def __getitem__(self, index: slice) -> CensusRows: ...
    def __getitem__(self, index: int | slice) -> CensusEntry | CensusRows:
        if isinstance(index, slice):
            return CensusRows(self.table, self.rows[index])
        return self.table.entry(self.rows[index])

    @property
    def tubes(self) -> tuple[str, ...]:
        """Those of its rows, in order."""
        return tuple(sorted({kind.tube for kind in set(map(self.table.kind, self.rows))}))

    def elsewhere(self, tube: str) -> CensusRows:
        """Those that are not in this tube."""
        return CensusRows(self.table, array("I", [row for row in self.rows if self.table.kind(row).tube != tube]))


def _numbered(ref: str) -> tuple[int, bool]:
    """A number for a reference, and whether the reference is that number."""
    if ref.isdecimal() and ref.isascii() and ref[0] != "0" and (number := int(ref)) <= _UINT64:
        return number, True
    return hash(ref) & _UINT64, False


def _hex_bytes(digits: str) -> bytes:
    """Nothing for what is not hexadecimal."""
    try:
        return bytes.fromhex(digits)
    except ValueError:
        return b""


def _uuid_bytes(text: str) -> bytes:
    """A UUID's bytes; nothing for any other text."""
    packed = _hex_bytes(text.replace("-", ""))
    return packed if len(packed) == _UUID and any(packed) and _uuid_text(packed) == text else b""


def _uuid_text(packed: bytes | bytearray) -> str:
    text = packed.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
