"""Reads the files that beanstalkd 1.12 writes, record by record, exactly as it reads them itself when it starts.

A file is a version (a C int) and records, one after the other; what was never written is zeros. In C, on this machine:

    int name_length;  char tube[name_length];  Jobrec fields;  char body[body_size];

A full record (a put, or a copy that compaction made) has a tube and a body, which ends with CR LF. A short one (bury,
kick, release with a delay, delete) has name_length 0, and neither. Source: beanstalkd's file.c, `readrec` and
`filewrjobfull`; dat.h, `Jobrec`. Nothing in a file is a checksum.
"""

from __future__ import annotations

from enum import IntEnum
from struct import Struct, error
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

#: MAX_TUBE_NAME_LEN: a longer name ends the reading
_NAME_LIMIT = 201


class JobState(IntEnum):
    """A job's state in a record. DELETED is beanstalkd's Invalid; RESERVED is read as READY."""

    DELETED = 0
    READY = 1
    RESERVED = 2
    BURIED = 3
    DELAYED = 4


class Fields(NamedTuple):
    """Jobrec. Times are in nanoseconds (in files of version 5: microseconds)."""

    job: int
    priority: int
    delay: int
    ttr: int
    body_size: int
    created: int
    deadline: int
    reserves: int
    timeouts: int
    releases: int
    buries: int
    kicks: int
    state: int


class Layout(NamedTuple):
    """How one version of beanstalkd's files lays out a record. All is native: byte order, sizes, alignment."""

    length: Struct
    fields: Struct
    #: one second in the unit of its times
    second: int
    #: where a record's state is, from the beginning of its fields
    state: int = Struct("@QIqqiqqIIIII").size


#: by version. 5 is what beanstalkd up to 1.4.6 wrote, and newer ones still read; it wrote no padding at the end
LAYOUTS = {
    7: Layout(Struct("@i"), Struct("@QIqqiqqIIIIIB0q"), 10**9),
    5: Layout(Struct("@N"), Struct("@QIQQiQQIIIIIB"), 10**6),
}
_VERSION = Struct("@i")


class JobRecord(NamedTuple):
    """One record of a file: where its parts begin, and its fields. A short one ends where its body would begin."""

    start: int
    at: int
    body: int
    end: int
    fields: tuple[int, ...]

    def named(self) -> Fields:
        return Fields(*self.fields)


def layout_of(data: bytes) -> Layout | None:
    """The layout of a file with this content; None where beanstalkd skips it: too short, or of an unknown version."""
    return LAYOUTS.get(_VERSION.unpack_from(data)[0]) if len(data) >= _VERSION.size else None


def records(data: bytes, layout: Layout) -> Iterator[JobRecord]:
    """The records that beanstalkd would read, in order, up to where it stops.

    It stops at zeros, at the file's end, and at what cannot be a record. A last record may have a state that does not
    exist, or an end beyond the file's: beanstalkd stops at it, and forgets its job.
    """
    length_at, fields_at = layout.length.unpack_from, layout.fields.unpack_from
    length_size, fields_size = layout.length.size, layout.fields.size
    size, start, made, last_state = len(data), _VERSION.size, tuple.__new__, int(JobState.DELAYED)
    try:
        while True:
            name = length_at(data, start)[0]
            if not 0 <= name < _NAME_LIMIT:
                return
            at = start + length_size + name
            fields = fields_at(data, at)
            body = end = at + fields_size
            if not fields[0]:
                return
            if name and fields[12]:
                end += fields[4]
            yield made(JobRecord, (start, at, body, end, fields))
            if end > size or end < body or fields[12] > last_state:
                return
            start = end
    except error:
        # the file ends within a record, before its body
        return
