"""Finds records that a power cut left half on disk.

A disk writes 512 bytes at once, in any order, each as they were at some moment. What has not reached it is zeros, as
beanstalkd fills a new file with zeros first. So a torn record has a hole: zeros from the place where one of
beanstalkd's writes, or 512 bytes, began, to the end of these 512 bytes or of the record. beanstalkd sees no hole. Where
it swallows the state of a bury, a kick or a delayed release, that is read as a delete; a copy of a job is emptied.

A record with a hole is torn if it cannot be valid with these zeros. Some may be valid or torn, and what stands before
them decides (`Doubt`). What is damaged and has no hole is left alone: beanstalkd serves it, and it is buried as
damaged.
"""

from __future__ import annotations

import zlib
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from glassq.envelope import HEADER_END, is_intact
from glassq.queues.beanstalk.syncer.records import JobState, layout_of, records

if TYPE_CHECKING:
    from collections.abc import Iterable

    from glassq.queues.beanstalk.syncer.records import Fields, JobRecord, Layout

SECTOR = 512
_NOTHING = bytes(SECTOR)
_END = b"\r\n"
# a job's id, the first of a record's fields, in bytes
_ID = 8
#: A plausible delay or ttr is below this, in seconds: the protocol's limit
_MAX_SECONDS = 1 << 32


class Question(Enum):
    """What decides whether a record with a hole is torn. A torn one is that of a job that is there before it and ..."""

    #: ... nothing else: a delete whose zeros may be its own, or the lost end of another record
    IS_THERE = "is there"
    #: ... was made at another time: part of the id is lost
    IS_OTHER = "is other"
    #: ... has another body: no body ever changes. For bodies of other programs, which have no checksum
    DIFFERS = "differs"


class Doubt(NamedTuple):
    """A record that may be torn: where it starts, and what decides."""

    start: int
    job: int
    question: Question


class Ends(NamedTuple):
    """What one file shows by itself: where its first torn record starts (None: nowhere), and the doubts before it."""

    torn: int | None
    doubts: tuple[Doubt, ...]


class Known(NamedTuple):
    """What earlier records say of a job."""

    created: int
    body: int


def find_ends(data: bytes) -> Ends:
    """Reads one file's content."""
    layout = layout_of(data)
    doubts: list[Doubt] = []
    if layout is None:
        return Ends(None, ())
    length = layout.length.size
    # a short record that ends before the next 512 bytes begin is whole, or it is zeros
    inside = SECTOR - length - layout.fields.size
    for record in records(data, layout):
        start, at, body, end, fields = record
        verdict: Question | bool = False
        if at == start + length:
            if start % SECTOR > inside:
                verdict = _look_at_short(data, record, layout)
        elif not (
            # true of nearly all, and no hole can be in these
            data.endswith(_END, body, end)
            and data[body]
            and at % SECTOR <= SECTOR - _ID
            and 0 not in data[start + length : at]
            and (end - body < SECTOR or data.find(_NOTHING, body, end) < 0)
        ):
            verdict = _look_at_full(data, record, layout)
        if verdict is True:
            return Ends(start, tuple(doubts))
        if verdict:
            doubts.append(Doubt(start, fields[0], verdict))
    return Ends(None, tuple(doubts))


class History:
    """What the files say, in the order in which beanstalkd reads them, of the jobs that are in doubt."""

    def __init__(self, jobs: Iterable[int]) -> None:
        self._jobs = frozenset(jobs)
        self._known: dict[int, Known] = {}

    def decide(self, data: bytes, ends: Ends) -> int | None:
        """Where the next file's first torn record starts, all doubts decided."""
        layout = layout_of(data)
        questions = {doubt.start: doubt.question for doubt in ends.doubts}
        for record in records(data, layout) if layout else ():
            if record.start == ends.torn:
                break
            if record.fields[0] not in self._jobs:
                continue
            if self._is_torn(data, record, questions.get(record.start)):
                return record.start
            self._note(data, record)
        return ends.torn

    def _is_torn(self, data: bytes, record: JobRecord, question: Question | None) -> bool:
        known = self._known.get(record.fields[0])
        if question is None or known is None:
            return False
        if question is Question.IS_THERE:
            return True
        same = record.named().created == known.created
        return not same if question is Question.IS_OTHER else same and known.body != _sum(data, record)

    def _note(self, data: bytes, record: JobRecord) -> None:
        fields = record.named()
        if fields.state == JobState.DELETED:
            self._known.pop(fields.job, None)
        elif record.end > record.body:
            self._known[fields.job] = Known(fields.created, _sum(data, record))


def _sum(data: bytes, record: JobRecord) -> int:
    return zlib.crc32(data[record.body : record.end])


def _look_at_short(data: bytes, record: JobRecord, layout: Layout) -> Question | bool:
    """True: torn; False: whole; or what decides. The next 512 bytes begin within the record."""
    fields = record.named()
    border = _next(record.start)
    if _is_empty(data, record.start, border) and not _is_plausible(fields, layout):
        # the beginning is lost: perhaps a full record's, which is read as a short one then
        return True
    if border <= record.at + layout.state and _is_empty(data, border, record.end):
        if not _is_plausible(fields, layout):
            return True
        # If its end is lost, so is all that follows in these 512 bytes. Nothing is read behind it then, so it costs
        # no other record to take a delete for a torn one; the other way round, it costs the job.
        return Question.IS_THERE if _is_empty(data, border, border + SECTOR) else False
    if record.at < border < record.at + _ID and _is_empty(data, record.start, border):
        return Question.IS_OTHER
    return False


def _look_at_full(data: bytes, record: JobRecord, layout: Layout) -> Question | bool:
    """As `_look_at_short`."""
    start, at, body, end, _ = record
    begins = (start + layout.length.size, at, body)
    if not _has_hole(data, record, begins):
        return False
    name = data[start + layout.length.size : at]
    fields = record.named()
    possible = JobState.READY <= fields.state <= JobState.DELAYED and _is_plausible(fields, layout)
    if not possible or 0 in name or end > len(data) or not data.endswith(_END, body, end):
        return True
    intact = is_intact(data[body : end - len(_END)])
    if intact is False:
        return True
    if at % SECTOR > SECTOR - _ID and _is_empty(data, at, _next(at)):
        return Question.IS_OTHER
    if intact:
        return False
    # What marks a job as ours may be lost, and the end of its header not. In doubt it is not cut: if it is a whole body
    # of another program, that costs what stands behind it; if it is a torn put, that was never proven.
    border = _next(body)
    return (_is_empty(data, body, border) and HEADER_END in data[border:end]) or Question.DIFFERS


def _is_plausible(fields: Fields, layout: Layout) -> bool:
    """Whether beanstalkd can have written these fields."""
    longest = _MAX_SECONDS * layout.second
    return (
        fields.state <= JobState.DELAYED
        and fields.body_size >= len(_END)
        and 0 < fields.ttr < longest
        and 0 <= fields.delay < longest
        and not (fields.ttr % layout.second or fields.delay % layout.second)
        and fields.created > 0
        and fields.deadline >= 0
    )


def _has_hole(data: bytes, record: JobRecord, begins: tuple[int, ...]) -> bool:
    """Whether the record has zeros from the beginning of a write, or of 512 bytes, to the end of these or its own."""
    end = min(record.end, len(data))
    if record.end > len(data) and len(data) % SECTOR == 0:
        # the file ends before the record: of its growth, too, only a part has reached the disk
        return True
    borders = range(_next(record.start), end, SECTOR)
    return any(_is_empty(data, place, min(_next(place), end)) for place in (*begins, *borders) if place < end)


def _next(place: int) -> int:
    """Where the next 512 bytes begin."""
    return (place // SECTOR + 1) * SECTOR


def _is_empty(data: bytes, start: int, end: int) -> bool:
    part = data[start:end]
    return not part.strip(b"\0")
