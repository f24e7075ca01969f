"""Records that a power cut tore, at each place where one can be torn."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from glassq.queues.beanstalk.syncer.prepare import prepare
from glassq.queues.beanstalk.syncer.records import LAYOUTS, JobState
from glassq.queues.beanstalk.syncer.torn import SECTOR, History, find_ends
from tests.queues.syncer.made import BORN, LAYOUT, SECOND, SHORT, Made, fields, file_with, full, replayed, short
from tests.queues.syncer.plain import jobs_on, ping
from tests.thorough import examples

if TYPE_CHECKING:
    from pathlib import Path

BODY = ping(1) + b"\r\n"
BURIED = {"state": JobState.BURIED, "buries": 1}
DELAYED = {"state": JobState.DELAYED, "releases": 1, "delay": 3600 * SECOND, "deadline": BORN + 3600 * SECOND}
KICKED = {"state": JobState.READY, "buries": 1, "kicks": 1}
# A job before, and what the record that is torn makes of it.
CHANGES = {"bury": ({}, BURIED), "kick": (BURIED, KICKED), "delayed release": ({}, DELAYED)}


def cut(*files: bytes) -> list[bytes]:
    """The files as --prepare leaves them."""
    ends = [find_ends(data) for data in files]
    history = History(doubt.job for found in ends for doubt in found.doubts)
    places = [history.decide(data, found) for data, found in zip(files, ends, strict=True)]
    return [data if place is None else data[:place] for data, place in zip(files, places, strict=True)]


def older(job: int, **changes: int) -> bytes:
    """A file that is on disk, with a job of glassq."""
    put = full(fields(job, reserves=0, deadline=0), BODY)
    return LAYOUT.length.pack(7) + put + (short(fields(job, size=len(BODY), **changes)) if changes else b"")


def check_torn(directory: Path, made: list[tuple[int, bytes, Made]], holes: dict[int, tuple[int, int]]) -> set[int]:
    """A real beanstalkd has each job whole after --prepare. Returns those that it has not without it.

    Each of `made` is a job, its file that is on disk, and the file with the record that the hole is torn into.
    """
    directory.mkdir()
    for number, (_, before, _) in enumerate(made, 1):
        (directory / f"binlog.{number}").write_bytes(before)
    for number, (job, _, file) in enumerate(made, len(made) + 1):
        (directory / f"binlog.{number}").write_bytes(file.torn(holes[job]))
    blind = jobs_on(directory)
    assert all("cut off at byte" in line for line in prepare(directory, "boot"))
    seen = jobs_on(directory)
    for job, _, _ in made:
        assert job in seen, f"{holes[job]}: job {job} is gone"
        assert seen[job][2] == BODY[:-2], f"{holes[job]}: job {job} is not whole"
    return {job for job, _, _ in made if job not in blind or blind[job][2] != BODY[:-2]}


@pytest.mark.parametrize("kind", CHANGES)
def test_a_job_outlives_its_torn_record(tmp_path: Path, kind: str) -> None:
    before, after = CHANGES[kind]
    made, holes, must_go = [], {}, set()
    numbers = count(1)
    for place in range(1, SHORT):
        # once the end is lost, once the beginning
        for lost in (1, 0):
            job = next(numbers)
            record = short(fields(job, size=len(BODY), **after))
            file = file_with(record, place, 1000 + 2 * job)
            made.append((job, older(job, **before), file))
            border = file.start + place
            holes[job] = (border, border + SECTOR) if lost else (file.start, border)
            if lost and 12 <= place <= SHORT - 4:
                must_go.add(job)
    gone = check_torn(tmp_path / "binlog", made, holes)
    assert must_go <= gone, "without the look at torn ends they must be gone, or this test proves nothing"


def test_a_job_outlives_its_torn_copy(tmp_path: Path) -> None:
    made, holes, must_go = [], {}, set()
    numbers = count(1)
    for place in (*range(1, 120, 3), *range(120, SECTOR, 40)):
        job = next(numbers)
        record = full(fields(job, **BURIED), BODY)
        file = file_with(record, place, 4000)
        for hole in file.holes():
            job = next(numbers)
            record = full(fields(job, **BURIED), BODY)
            file = file_with(record, place, 4000 + 2 * job)
            made.append((job, older(job), file))
            holes[job] = hole
            if hole[0] >= file.writes[-1]:
                must_go.add(job)
    gone = check_torn(tmp_path / "binlog", made, holes)
    assert must_go <= gone, "without the look at torn ends they must be emptied, or this test proves nothing"
    assert len(must_go) > 50


def test_a_torn_put_is_not_served_as_a_job_of_zeros() -> None:
    for place in range(1, SECTOR + 1):
        file = file_with(full(fields(1), BODY), place, 100)
        for hole in file.holes():
            _, left = cut(older(2), file.torn(hole))
            jobs = replayed(left)
            # without its header nothing shows whose it was
            if 1 in jobs and not (hole[0] == file.writes[-1] and hole[1] - hole[0] >= BODY.index(b"}\n") + 1):
                assert jobs[1][1] == BODY, (place, hole)
            assert 100 in jobs, (place, hole)


def test_a_body_of_another_program_is_compared_with_its_older_form() -> None:
    body = bytes(range(1, 256)) * 8 + b"\r\n"
    zeros = b"any" + bytes(2000) + b"thing\r\n"
    head = LAYOUT.length.pack(7)
    for place in range(1, SECTOR, 5):
        # zeros of its own are no hole, with an older form and without one
        kept = file_with(full(fields(1), zeros), place, 100).content
        assert cut(head + full(fields(1), zeros), kept)[1] == kept
        assert cut(kept) == [kept]
        file = file_with(full(fields(1), body), place, 100)
        for hole in file.holes():
            files = cut(head + full(fields(1), body), file.torn(hole))
            assert replayed(*files)[1][1] == body, (place, hole)


def test_only_a_last_delete_may_be_undone() -> None:
    """Its end may be zeros of its own or the lost end of a bury: the job is worked again, and nothing else is lost."""
    for place in range(1, SHORT):
        delete = short(fields(1, JobState.DELETED, len(BODY)))
        file = file_with(delete, place, 100)
        whole = file.content
        assert cut(older(1), whole) == [older(1), whole], "a record stands behind it"
        last = whole[: file.end]
        _, left = cut(older(1), last)
        assert left in (last, last[: file.start])
        assert (left == last) == (place not in range(61, 81)), place
        assert cut(last) == [last], "nothing is there that it could have deleted"


def test_what_is_damaged_and_has_no_hole_stays() -> None:
    record = full(fields(1), BODY)
    at = record.index(BODY) + 200
    flipped = record[:at] + bytes([record[at] ^ 1]) + record[at + 1 :]
    for place in range(1, SECTOR, 3):
        content = file_with(flipped, place, 100).content
        assert cut(content) == [content]


def test_a_file_that_ends_within_a_record_is_cut_where_it_did_not_grow_in_time() -> None:
    # beanstalkd would forget the job that the older file has
    file = file_with(full(fields(1), BODY), 200, 100)
    short_of = file.content[: file.start + 200]
    assert replayed(older(1), short_of).keys() == {100}
    assert replayed(*cut(older(1), short_of)).keys() == {1, 100}


def test_files_of_another_version_are_left_alone() -> None:
    for version in (0, 6, 8):
        content = LAYOUT.length.pack(version) + full(fields(1), BODY)[:300] + bytes(1000)
        assert cut(content) == [content]
    assert cut(b"", b"\7", b"\7\0\0\0") == [b"", b"\7", b"\7\0\0\0"]


records_of_a_server = st.lists(
    st.tuples(st.sampled_from(["put", "copy", "bury", "kick", "release", "delete", "foreign"]), st.integers(0, 900)),
    min_size=1,
    max_size=40,
)


class Server:
    """Writes files as beanstalkd would, for whatever it is told."""

    def __init__(self) -> None:
        self.jobs: dict[int, tuple[dict[str, int], bytes]] = {}
        self.written: list[bytes] = []
        self._next = 1

    def act(self, what: str, number: int) -> None:
        alive = sorted(self.jobs)
        if what in ("put", "foreign") or not alive:
            job, self._next = self._next, self._next + 1
            body = ping(job, 50 + number) if what == "put" else b"%d" % job * (1 + number // 3)
            self.jobs[job] = ({"reserves": 0, "deadline": 0}, body + b"\r\n")
            self.written.append(full(fields(job, reserves=0, deadline=0), self.jobs[job][1]))
            return
        job = alive[number % len(alive)]
        facts, body = self.jobs[job]
        changes = {"bury": BURIED, "kick": KICKED, "release": DELAYED, "delete": {"state": JobState.DELETED}}.get(
            what, {}
        )
        facts = {**facts, **({"reserves": 1, "deadline": BORN} if changes else {}), **changes}
        if what == "copy":
            self.written.append(full(fields(job, **facts), body))
        else:
            self.written.append(short(fields(job, size=len(body), **facts)))
        self.jobs[job] = (facts, body)
        if what == "delete":
            del self.jobs[job]


def after_power_cut(server: Server, safe: int, data: st.DataObject) -> bytes:
    """A file of which the first `safe` bytes were synced, each 512 bytes as they were at some moment since."""
    content = LAYOUT.length.pack(7) + b"".join(server.written)
    moments, start = [4], 4
    for record in server.written:
        # a full record is written in four parts, a short one in two
        name = record[0]
        moments += [start + 4, start + 4 + name, start + SHORT + name] if name else [start + 4]
        start += len(record)
        moments.append(start)
    disk = bytearray(content + bytes(-len(content) % 4096))
    for sector in range(0, len(disk), SECTOR):
        moment = max(safe, data.draw(st.sampled_from(moments)))
        keep = min(max(moment - sector, 0), SECTOR)
        disk[sector + keep : sector + SECTOR] = bytes(SECTOR - keep)
    return bytes(disk)


@settings(max_examples=examples(10), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=records_of_a_server, data=st.data())
def test_beanstalkd_reads_what_we_read(tmp_path: Path, steps: list[tuple[str, int]], data: st.DataObject) -> None:
    server = Server()
    for step in steps:
        server.act(*step)
    disk = after_power_cut(server, 4, data)
    binlog = tmp_path / "binlog"
    binlog.mkdir(exist_ok=True)
    (binlog / "binlog.1").write_bytes(disk)
    there = {job: body for job, (_, _, body) in jobs_on(binlog).items()}
    assert there == {job: body[:-2] for job, (_, body) in replayed(disk).items()}


@settings(max_examples=examples(100), deadline=None)
@given(steps=records_of_a_server, synced=st.integers(0, 40), data=st.data())
def test_whatever_a_power_cut_leaves_every_job_that_was_synced_is_there_and_whole(
    steps: list[tuple[str, int]], synced: int, data: st.DataObject
) -> None:
    server = Server()
    proven: dict[int, tuple[dict[str, int], bytes]] = {}
    head = LAYOUT.length.pack(7)
    safe = len(head)
    deleted: set[int] = set()
    for number, step in enumerate(steps):
        if number <= synced:
            proven, safe = dict(server.jobs), len(head) + sum(map(len, server.written))
            deleted.clear()
        before = set(server.jobs)
        server.act(*step)
        deleted |= before - set(server.jobs)
    content = head + b"".join(server.written)
    disk = after_power_cut(server, safe, data)
    (left,) = cut(disk)
    assert len(left) >= safe or content[len(left) : safe] in server.written
    jobs = replayed(left)
    for job, (_, body) in proven.items():
        if job not in deleted:
            assert job in jobs
            assert jobs[job][1] == body


@settings(max_examples=examples(100), deadline=None)
@given(steps=records_of_a_server, at=st.integers(0, 9000), garbage=st.binary(max_size=900), end=st.integers(0, 30000))
def test_garbage_never_ends_it_and_what_stands_before_stays(
    steps: list[tuple[str, int]], at: int, garbage: bytes, end: int
) -> None:
    server = Server()
    for step in steps:
        server.act(*step)
    content = LAYOUT.length.pack(7) + b"".join(server.written)
    (left,) = cut(content)
    assert left == content or content[len(left) :] == server.written[-1]
    damaged = (content[:at] + garbage + content[at + len(garbage) :])[:end]
    before = 4
    for record in server.written:
        if before + len(record) > min(at, end):
            break
        before += len(record)
    (left,) = cut(damaged)
    assert damaged.startswith(left)
    assert len(left) >= min(before, len(damaged)) or damaged[len(left) : before] in server.written


def test_files_of_beanstalkds_older_format_are_read_as_well(tmp_path: Path) -> None:
    """Version 5: a longer length of the name, times in microseconds, nothing behind the state."""
    layout = LAYOUTS[5]

    def facts(job: int, state: JobState, size: int, **changes: int) -> bytes:
        made = fields(job, state, size, created=BORN // 1000 + job, ttr=60 * 10**6, deadline=BORN // 1000)
        return layout.fields.pack(*made._replace(**changes))

    head = LAYOUT.length.pack(5)
    name = layout.length.pack(6) + b"mirror"
    content = b"".join(name + facts(job, JobState.READY, len(BODY)) + BODY for job in (1, 2))
    whole = head + content + layout.length.pack(0) + facts(2, JobState.DELETED, len(BODY))
    assert cut(whole) == [whole]
    length = layout.length.size + layout.fields.size
    for place in range(20, length):
        # so that 512 new bytes begin so many bytes behind the beginning of the bury
        spare = b"s" * (4 * SECTOR - place - len(head + content + name) - layout.fields.size - 2) + b"\r\n"
        before = head + content + name + facts(3, JobState.READY, len(spare)) + spare
        bury = layout.length.pack(0) + facts(1, JobState.BURIED, len(BODY), buries=1)
        assert (len(before) + place) % SECTOR == 0
        disk = before + bury[:place] + bytes(SECTOR)
        assert 1 not in replayed(disk)
        assert cut(disk) == [before]
    (tmp_path / "binlog").mkdir()
    (tmp_path / "binlog" / "binlog.1").write_bytes(whole)
    assert jobs_on(tmp_path / "binlog") == {1: ("mirror", "ready", BODY[:-2])}
