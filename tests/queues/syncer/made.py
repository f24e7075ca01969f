"""beanstalkd's files, made by a test as beanstalkd 1.12 writes them; and what a power cut leaves of one."""

from __future__ import annotations

from dataclasses import dataclass

from glassq.queues.beanstalk.syncer.records import LAYOUTS, Fields, JobState, layout_of, records
from glassq.queues.beanstalk.syncer.torn import SECTOR

VERSION = 7
LAYOUT = LAYOUTS[VERSION]
#: what lies before a record's tube
LENGTH = LAYOUT.length.size
SHORT = LENGTH + LAYOUT.fields.size
SECOND = 10**9
#: some day in 2026
BORN = 1_790_000_000 * SECOND


def fields(job: int, state: JobState = JobState.READY, size: int = 0, **changes: int) -> Fields:
    """A job as its first consumer has it: reserved once."""
    plain = Fields(job, 1, 0, 60 * SECOND, size, BORN + job, BORN + 9 * SECOND, 1, 0, 0, 0, 0, state)
    return plain._replace(**changes)


def full(facts: Fields, body: bytes, tube: bytes = b"mirror") -> bytes:
    """A put, or a copy. `body` ends with CR LF."""
    facts = facts._replace(body_size=len(body))
    return LAYOUT.length.pack(len(tube)) + tube + LAYOUT.fields.pack(*facts) + body


def short(facts: Fields) -> bytes:
    return LAYOUT.length.pack(0) + LAYOUT.fields.pack(*facts)


def filler(job: int, length: int) -> bytes:
    """A put whose record has this length."""
    body = b"f" * (length - len(full(fields(job), b"", b"filler")) - 2) + b"\r\n"
    return full(fields(job), body, b"filler")


@dataclass
class Made:
    """A file with one record in it that begins so many bytes before 512 new ones do."""

    content: bytes
    start: int
    end: int
    #: where beanstalkd's writes of it begin, behind the first
    writes: tuple[int, ...]

    def holes(self) -> list[tuple[int, int]]:
        """All that one lost part of 512 bytes can take from the record, and from what lies behind it in these."""
        first = (self.start // SECTOR + 1) * SECTOR
        begins = {self.start, *self.writes, *range(first, self.end, SECTOR)}
        return [(begin, (begin // SECTOR + 1) * SECTOR) for begin in sorted(begins)]

    def torn(self, hole: tuple[int, int]) -> bytes:
        begin, end = hole
        return self.content[:begin] + bytes(end - begin) + self.content[end:]


def file_with(record: bytes, before: int, spare: int) -> Made:
    """`spare` is the id of a job of no importance; another one lies behind the record, with the next id."""
    head = LAYOUTS[VERSION].length.pack(VERSION)
    start = 3 * SECTOR - before % SECTOR
    content = head + filler(spare, start - len(head)) + record + filler(spare + 1, 700)
    content += bytes(-len(content) % 4096)
    name = LAYOUT.length.unpack_from(record)[0]
    at = start + LENGTH + name
    writes = (at, at + LAYOUT.fields.size) if name else (at,)
    return Made(content, start, start + len(record), (start + LENGTH, *writes) if name else writes)


def replayed(*files: bytes) -> dict[int, tuple[Fields, bytes]]:
    """The jobs that beanstalkd has after it has read these files, in this order, with their bodies."""
    jobs: dict[int, tuple[Fields, bytes]] = {}
    for data in files:
        layout = layout_of(data)
        for record in records(data, layout) if layout else ():
            facts = record.named()
            whole = record.end > record.body
            if facts.job not in jobs and not whole:
                continue
            if facts.state == JobState.DELETED or facts.state > JobState.DELAYED or record.end > len(data):
                jobs.pop(facts.job, None)
            else:
                jobs[facts.job] = (facts, data[record.body : record.end] if whole else jobs[facts.job][1])
    return jobs
