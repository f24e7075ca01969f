from __future__ import annotations

import signal
import socket
import threading
from contextlib import closing
from itertools import islice
from typing import TYPE_CHECKING

import greenstalk
import pytest

from glassq.errors import JobNotFound, JobTooBig, NotDurable, QueueError, QueueRefused, QueueUnavailable
from glassq.queues.beanstalk import commands, scan
from glassq.queues.beanstalk.client import BeanstalkClient
from glassq.queues.beanstalk.connection import BeanstalkConnection
from glassq.queues.beanstalk.protocol import JobBody, JobStats, ScanShort
from glassq.settings import QueueSettings
from glassq.values import Duration, QueueUrl
from tests.conftest import Beanstalkd, free_port, wait_for
from tests.queues.binlog import break_binlog, failing
from tests.queues.raw import open_queue
from tests.queues.scripted import Scripted

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.queues.raw import Queue

ALL = frozenset({"ready", "reserved", "delayed", "buried"})


@pytest.fixture(params=["tcp", "unix"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Beanstalkd]:
    running = Beanstalkd(tmp_path, unix=request.param == "unix")
    yield running
    running.stop()


@pytest.fixture
def both(server: Beanstalkd) -> Iterator[Queue]:
    """A queue over TCP, then one over a unix socket."""
    opened = server.queue()
    yield opened
    opened.close()


@pytest.fixture
def other(beanstalkd: Beanstalkd) -> Iterator[Queue]:
    """A second connection."""
    opened = beanstalkd.queue()
    yield opened
    opened.close()


@pytest.fixture
def failing_binlog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Beanstalkd]:
    with failing(tmp_path, monkeypatch) as server:
        yield server


def state(queue: Queue, job_id: int) -> str:
    return queue.stats_job(job_id).state


def scanned(queue: Queue, states: frozenset[str] = ALL) -> list[int]:
    return [found.id for found in queue.scan(states) if isinstance(found, JobStats)]


# -- a job's life, over TCP and over a unix socket ------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(socket, "TCP_KEEPIDLE"), reason="the kernel has its own times")
def test_a_host_that_is_gone_is_noticed_while_a_reserve_waits(beanstalkd: Beanstalkd) -> None:
    with closing(beanstalkd.queue()) as queue:
        queue.connect()
        sock = queue._sock
        assert sock is not None
        idle, every, count = (
            sock.getsockopt(socket.IPPROTO_TCP, option)
            for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
        )
        assert (sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE), idle + every * count <= 20) == (1, True)


def test_a_job_that_is_put_is_reserved_and_deleted(both: Queue) -> None:
    put = both.put(b"ping")
    assert both.reserve(0) == JobBody(put, b"ping")
    assert state(both, put) == "reserved"
    both.delete(put)
    assert both.reserve(0) is None
    with pytest.raises(JobNotFound):
        both.stats_job(put)


@pytest.mark.parametrize(
    "body",
    [b"", b"\r\n", b"a\r\nDELETED\r\n", bytes(range(256)), b"put 0 0 1 1\r\nx\r\n", b"\x00" * 1000, b"x" * 65_535],
)
def test_a_body_of_any_bytes_comes_back(both: Queue, body: bytes) -> None:
    put = both.put(body)
    assert both.peek(put) == JobBody(put, body)
    assert both.reserve(0) == JobBody(put, body)
    assert both.tubes() == ["default", "glassq"]


def test_a_job_can_be_buried_and_kicked(both: Queue) -> None:
    put = both.put(b"ping")
    both.reserve(0)
    both.bury(put)
    assert (state(both, put), both.reserve(0)) == ("buried", None)
    both.kick(put)
    stats = both.stats_job(put)
    assert (stats.state, stats.buries, stats.kicks) == ("ready", 1, 1)
    assert both.reserve(0) == JobBody(put, b"ping")


def test_a_delayed_job_waits_and_can_be_reserved_by_its_id(both: Queue) -> None:
    put = both.put(b"ping", delay=100)
    stats = both.stats_job(put)
    assert (stats.state, stats.delay) == ("delayed", 100)
    assert 0 < stats.time_left <= 100
    assert both.reserve(0) is None
    assert both.reserve_job(put) == JobBody(put, b"ping")


def test_a_released_job_is_ready_again_at_once_or_after_its_delay(both: Queue) -> None:
    put = both.put(b"ping")
    both.reserve(0)
    both.release(put)
    assert (state(both, put), both.stats_job(put).releases) == ("ready", 1)
    both.reserve(0)
    both.release(put, delay=60)
    assert (state(both, put), both.stats_job(put).delay) == ("delayed", 60)


def test_a_touch_renews_the_lease(server: Beanstalkd) -> None:
    settings = QueueSettings(url=server.url, ttr=Duration("5s"))
    queue = open_queue(settings)
    put = queue.put(b"ping")
    queue.reserve(0)
    wait_for(lambda: queue.stats_job(put).time_left < 4, "some of the lease to pass")
    queue.touch(put)
    assert queue.stats_job(put).time_left >= 4
    assert queue.stats_job(put).ttr == 5
    queue.close()


def test_what_is_reserved_is_ready_again_once_the_connection_is_closed(server: Beanstalkd, both: Queue) -> None:
    put = both.put(b"ping")
    both.reserve(0)
    both.close()
    wait_for(lambda: state(both, put) == "ready", "the job to come back")
    assert both.stats_job(put).lost == 0
    both.reserve(0)
    assert both.stats_job(put).lost == 1


def test_what_the_lost_attempts_are_is_told_from_releases_buries_and_kicks(both: Queue) -> None:
    put = both.put(b"ping")
    both.reserve(0)
    both.release(put)
    both.reserve(0)
    both.bury(put)
    both.kick(put)
    both.reserve(0)
    assert both.stats_job(put).lost == 0


def test_a_tube_is_counted(both: Queue) -> None:
    for number in range(4):
        both.put(b"%d" % number)
    both.put(b"later", delay=100)
    first, second = both.reserve(0), both.reserve(0)
    assert first is not None
    assert second is not None
    both.bury(first.id)
    counts = both.stats_tube()
    assert (counts.ready, counts.reserved, counts.delayed, counts.buried) == (2, 1, 1, 1)
    assert (counts.name, counts.paused_for, counts.waiting) == ("glassq", 0, 0)


def test_a_tube_that_does_not_exist_counts_nothing(both: Queue) -> None:
    counts = both.stats_tube("nobody.home")
    assert (counts.name, counts.ready, counts.reserved, counts.delayed, counts.buried) == ("nobody.home", 0, 0, 0, 0)


def test_a_job_for_another_tube_does_not_move_the_next_ones(both: Queue) -> None:
    elsewhere, here = both.put(b"e", tube="else"), both.put(b"h")
    assert both.stats_job(elsewhere).tube == "else"
    assert both.stats_job(here).tube == "glassq"
    assert both.reserve(0) == JobBody(here, b"h")
    assert both.reserve(0) is None


def test_the_oldest_ready_job_is_the_one_reserved_next(both: Queue) -> None:
    assert both.peek_first("ready") is None
    first, _ = both.put(b"1"), both.put(b"2")
    assert both.peek_first("ready") == JobBody(first, b"1")
    assert both.stats_job(first).state == "ready"
    assert both.peek_first("ready", "else") is None
    assert both.reserve(0) == JobBody(first, b"1")


def test_the_server_tells_whether_it_writes_to_disk(server: Beanstalkd, both: Queue) -> None:
    stats = both.stats()
    assert (stats.durable, stats.draining) == (True, False)
    assert stats.version
    assert both.stats_job(both.put(b"ping")).file > 0
    server.stop()
    server.start(durable=False)
    with pytest.raises(QueueUnavailable):
        both.stats()
    assert both.stats().durable is False
    assert both.stats_job(both.put(b"ping")).file == 0


def test_the_newest_job_is_known_and_asking_leaves_nothing(both: Queue) -> None:
    assert both.max_job_id() == 0
    put = both.put(b"ping")
    assert both.max_job_id() >= put
    assert scanned(both) == [put]
    assert both.stats_tube("glassq.probe").delayed == 0


# -- scan -----------------------------------------------------------------------------------------------------------


def test_a_scan_finds_the_tubes_jobs_in_these_states_newest_first(queue: Queue) -> None:
    ready = [queue.put(b"r") for _ in range(3)]
    queue.put(b"elsewhere", tube="else")
    delayed = queue.put(b"d", delay=100)
    job = queue.reserve(0)
    assert job is not None
    queue.bury(job.id)
    assert scanned(queue) == [delayed, *ready[::-1]]
    assert scanned(queue, frozenset({"buried"})) == [ready[0]]
    assert scanned(queue, frozenset({"ready", "delayed"})) == [delayed, ready[2], ready[1]]
    assert scanned(queue, frozenset({"reserved"})) == []


def test_a_scan_ends_as_soon_as_it_has_found_what_the_counts_promised(queue: Queue) -> None:
    old = [queue.put(b"old") for _ in range(10)]
    for job_id in old[1:]:
        queue.delete(job_id)
    new = [queue.put(b"new", delay=100) for _ in range(3)][::-1]
    looked = list(queue.scan(frozenset({"delayed"})))
    newest = queue.max_job_id() - 1
    assert [found.id for found in looked if isinstance(found, JobStats)] == new
    assert [found for found in looked if not isinstance(found, JobStats)] == [(0, newest)]
    assert scanned(queue, frozenset({"ready"})) == [old[0]]


def test_a_scan_tells_how_far_it_is(queue: Queue) -> None:
    queue.put(b"the next, which is seen at once")
    second = queue.put(b"")
    for _ in range(2_100):
        queue.delete(queue.put(b""))
    looked = list(queue.scan(ALL))
    progress = [found for found in looked if not isinstance(found, JobStats)]
    assert [done for done, _ in progress] == [0, 2_000]
    assert {whole for _, whole in progress} == {2_102}
    assert second in [found.id for found in looked if isinstance(found, JobStats)]


@pytest.mark.parametrize("left_out", [0, 1], ids=["enough hints", "one too few"])
def test_a_scan_of_hints_tells_how_far_it_is_as_well(
    queue: Queue, left_out: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan, "PROGRESS_EVERY", 100)
    jobs = [queue.put(b"", delay=100) for _ in range(210)]
    looked = list(queue.scan(frozenset({"delayed"}), hints=jobs[left_out:]))
    assert {found.id for found in looked if isinstance(found, JobStats)} == set(jobs)
    progress = [found for found in looked if isinstance(found, tuple) and found[0]]
    assert all(done <= whole for done, whole in progress)
    # where a search has to follow, what the hints gave is yielded at the end, which takes as long
    assert len(progress) >= (4 if left_out else 2)


def looked_at(queue: Queue, hints: list[int], *tubes: str) -> tuple[list[int], int]:
    """The ids of the buried jobs as a scan with these hints finds them, and how many ids it searched, at least."""
    looked = list(queue.scan(frozenset({"buried"}), *tubes, hints=hints))
    searched = [found for found in looked if isinstance(found, tuple)]
    return [found.id for found in looked if isinstance(found, JobStats)], len(searched)


def test_a_scan_of_several_tubes_is_one_newest_first(queue: Queue) -> None:
    ids = [queue.put(b"", tube=tube) for tube in ("one", "two", "three", "one", "two")]
    assert [found.id for found in queue.scan(ALL, "one", "two") if isinstance(found, JobStats)] == [
        ids[4], ids[3], ids[1], ids[0],
    ]  # fmt: skip


def test_hints_that_are_right_spare_the_search(queue: Queue) -> None:
    jobs = [buried(queue) for _ in range(4)]
    assert looked_at(queue, [jobs[2], jobs[0], jobs[3], jobs[1]]) == (jobs[::-1], 0)


def test_hints_that_are_wrong_do_no_harm(queue: Queue) -> None:
    jobs = [buried(queue) for _ in range(4)]
    ready, elsewhere = queue.put(b"ready"), queue.put(b"elsewhere", tube="else")
    wrong = [ready, elsewhere, 4_711, jobs[1], jobs[1]]
    assert looked_at(queue, wrong)[0] == [jobs[1], jobs[3], jobs[2], jobs[0]]
    assert looked_at(queue, [jobs[1], 4_711]) == (jobs[::-1], 1)


def test_one_that_was_buried_first_is_found_without_a_search(queue: Queue) -> None:
    first = buried(queue)
    for _ in range(5):
        queue.put(b"ready")
    assert looked_at(queue, []) == ([first], 0)


def test_a_scan_changes_no_job(queue: Queue) -> None:
    puts = [queue.put(b"ping", delay=delay) for delay in (0, 0, 100)]
    job = queue.reserve(0)
    assert job is not None
    queue.bury(job.id)

    def counters() -> list[tuple[object, ...]]:
        found = [queue.stats_job(job_id) for job_id in puts]
        return [(s.state, s.reserves, s.releases, s.buries, s.kicks, s.timeouts, s.delay) for s in found]

    before = counters()
    assert len(scanned(queue)) == 3
    assert counters() == before


def test_a_scan_of_an_empty_tube_is_empty(queue: Queue) -> None:
    assert list(queue.scan(ALL)) == []


def drain(beanstalkd: Beanstalkd, queue: Queue) -> None:
    beanstalkd.send(signal.SIGUSR1)
    wait_for(lambda: queue.stats().draining, "the server to drain")


def buried(queue: Queue) -> int:
    put = queue.put(b"b")
    queue.reserve_job(put)
    queue.bury(put)
    return put


def test_a_scan_finds_the_same_while_the_server_takes_no_jobs(beanstalkd: Beanstalkd, queue: Queue) -> None:
    first = buried(queue)
    ready = [queue.put(b"r") for _ in range(5)]
    queue.put(b"elsewhere", tube="else")
    last = buried(queue)
    delayed = queue.put(b"d", delay=100)
    drain(beanstalkd, queue)
    assert scanned(queue) == [delayed, last, *ready[::-1], first]
    assert scanned(queue, frozenset({"buried"})) == [last, first]
    assert not [found for found in queue.scan(ALL) if isinstance(found, ScanShort)]
    with pytest.raises(QueueRefused):
        queue.max_job_id()


def test_a_scan_while_no_jobs_are_taken_finds_ids_of_before_a_restart(beanstalkd: Beanstalkd, queue: Queue) -> None:
    for _ in range(300):
        queue.delete(queue.put(b""))
    jobs = [buried(queue)]
    for _ in range(300):
        queue.delete(queue.put(b""))
    jobs += [buried(queue), queue.put(b"d", delay=100), queue.put(b"d", delay=50)]
    beanstalkd.stop(signal.SIGKILL)
    beanstalkd.start()
    with pytest.raises(QueueUnavailable):
        queue.stats()
    # as if there had never been a job
    assert queue.stats().jobs == 0
    drain(beanstalkd, queue)
    assert scanned(queue) == jobs[::-1]


def test_a_scan_that_cannot_find_all_says_how_many_it_found(
    beanstalkd: Beanstalkd, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan, "MAX_SEARCH", 200)
    near = buried(queue)
    for _ in range(300):
        queue.delete(queue.put(b""))
    buried(queue)
    beanstalkd.stop()
    beanstalkd.start()
    with pytest.raises(QueueUnavailable):
        queue.stats()
    drain(beanstalkd, queue)
    assert [found for found in queue.scan(frozenset({"buried"})) if not isinstance(found, tuple)][1:] == [
        ScanShort(found=1, promised=2, looked=200)
    ]
    assert scanned(queue, frozenset({"buried"})) == [near]


def test_a_search_ends_when_what_it_looks_for_is_worked_meanwhile(
    beanstalkd: Beanstalkd, queue: Queue, other: Queue
) -> None:
    jobs = [queue.put(b"1"), queue.put(b"2")]
    drain(beanstalkd, queue)
    going = queue.scan(ALL)
    assert next(going) == (0, scan.MAX_SEARCH)
    other.delete(jobs[1])
    rest = list(going)
    assert [found.id for found in rest if isinstance(found, JobStats)] == [jobs[0]]
    assert not isinstance(rest[-1], ScanShort)


@pytest.mark.parametrize("seen", [{1}, {7}, {1, 2, 3}, {2, 9, 10, 40}, {5, 1_000}])
def test_a_search_looks_at_every_id_once_and_first_around_those_seen(seen: set[int]) -> None:
    looked = list(islice(scan._outwards(seen), 3_000))
    assert len(set(looked)) == 3_000
    assert min(looked) == 1
    assert set(range(1, max(seen))) <= set(looked)
    assert {max(1, each - 1) for each in seen} <= set(looked[: 4 * len(seen)])


def test_the_server_counts_who_works_and_what_it_takes(queue: Queue, other: Queue) -> None:
    before = queue.stats()
    assert (before.workers, before.jobs, before.max_job, before.files) == (0, 0, 65_535, 1)
    queue.put(b"1")
    other.reserve(0)
    after = queue.stats()
    assert (after.workers, after.jobs) == (1, 1)


def test_a_probe_tells_that_the_binlog_has_failed(failing_binlog: Beanstalkd) -> None:
    queue = failing_binlog.queue()
    assert queue.probe_durability().file > 0
    break_binlog(failing_binlog)
    with pytest.raises(NotDurable, match="its binlog failed"):
        queue.probe_durability()
    assert queue.probe_durability().file == 0
    queue.close()


def test_a_scan_skips_jobs_that_vanish_while_it_goes(queue: Queue, other: Queue) -> None:
    jobs = [queue.put(b"") for _ in range(2 * scan.FIRST)]
    going = queue.scan(ALL)
    next(going)
    # it asks about so many at once
    other.delete(jobs[1])
    assert [found.id for found in going if isinstance(found, JobStats)] == [*jobs[:1:-1], jobs[0]]


# -- what the queue refuses -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("act", ["delete", "kick", "peek", "stats_job", "reserve_job", "touch", "release", "bury"])
def test_a_job_that_is_not_there_is_not_found(queue: Queue, act: str) -> None:
    with pytest.raises(JobNotFound):
        getattr(queue, act)(4711)
    assert queue.put(b"still in step") == 1


@pytest.mark.parametrize("act", ["touch", "release", "bury", "delete"])
def test_a_job_that_another_one_holds_is_not_ours(queue: Queue, other: Queue, act: str) -> None:
    put = queue.put(b"ping")
    other.reserve(0)
    with pytest.raises(JobNotFound):
        getattr(queue, act)(put)
    assert state(queue, put) == "reserved"


def test_a_job_that_is_too_big_is_refused_and_the_connection_stays_in_step(queue: Queue) -> None:
    held = queue.put(b"held")
    queue.reserve(0)
    with pytest.raises(JobTooBig, match="larger than beanstalkd takes"):
        queue.put(b"x" * 65_536)
    queue.touch(held)
    assert queue.peek(queue.put(b"small")).body == b"small"


def test_a_draining_server_takes_no_job_and_still_gives_what_it_has(beanstalkd: Beanstalkd, queue: Queue) -> None:
    put = queue.put(b"before")
    beanstalkd.send(signal.SIGUSR1)
    wait_for(lambda: queue.stats().draining, "the server to drain")
    with pytest.raises(QueueRefused, match="draining"):
        queue.put(b"after")
    assert queue.reserve(0) == JobBody(put, b"before")


def test_a_server_without_a_disk_is_refused_where_durability_is_required(beanstalkd: Beanstalkd) -> None:
    queue = beanstalkd.queue(require_durable=True)
    queue.put(b"kept")
    beanstalkd.stop()
    beanstalkd.start(durable=False)
    with pytest.raises(QueueUnavailable):
        queue.put(b"cut off")
    for _ in range(2):
        with pytest.raises(QueueRefused, match="writes nothing to disk"):
            queue.put(b"not kept")
    beanstalkd.stop()
    beanstalkd.start()
    assert queue.put(b"kept") > 0
    queue.close()


# -- what never reaches the server ----------------------------------------------------------------------------------

BAD_TUBES = ["a b", "-a", "a\r\ndelete 1", "a\n", "ü", "a" * 201, "a\0"]


@pytest.mark.parametrize("name", BAD_TUBES)
def test_a_bad_tube_name_is_refused_before_anything_is_sent(name: str) -> None:
    with Scripted(b"") as server:
        queue = quick(server.url)
        for act in (
            lambda: queue.put(b"x", tube=name),
            lambda: queue.stats_tube(name),
            lambda: queue.peek_first("ready", name),
            lambda: list(queue.scan(ALL, name)),
        ):
            with pytest.raises(QueueError, match="bad tube name"):
                act()
        assert server.received == []
    with pytest.raises(QueueError, match="bad tube name"):
        BeanstalkConnection("beanstalk://127.0.0.1:1", name, ttr=5, connect_timeout=1, timeout=1)


@pytest.mark.parametrize("number", [-1, 1 << 32, 1.5, True, "1", "1\r\ndelete 1", None])
def test_a_bad_number_is_refused_before_anything_is_sent(number: int) -> None:
    with Scripted(b"") as server:
        queue = quick(server.url)
        with pytest.raises(QueueError, match="bad delay"):
            queue.put(b"x", delay=number)
        with pytest.raises(QueueError, match="bad delay"):
            queue.release(1, delay=number)
        with pytest.raises(QueueError, match="bad timeout"):
            queue.reserve(number)
        assert server.received == []
    with pytest.raises(QueueError, match="bad ttr"):
        BeanstalkConnection("beanstalk://127.0.0.1:1", "glassq", ttr=number, connect_timeout=1, timeout=1)


@pytest.mark.parametrize("job_id", [-1, 1 << 64, 1.5, True, "1", "1\r\nput 0 0 9 0", None])
@pytest.mark.parametrize("act", ["delete", "kick", "peek", "stats_job", "reserve_job", "touch", "release", "bury"])
def test_a_bad_job_id_is_refused_before_anything_is_sent(act: str, job_id: int) -> None:
    with Scripted(b"") as server:
        queue = quick(server.url)
        with pytest.raises(QueueError, match="bad job id"):
            getattr(queue, act)(job_id)
        assert server.received == []


def test_a_bad_argument_costs_nobody_the_job_he_holds(queue: Queue) -> None:
    put = queue.put(b"ping")
    queue.reserve(0)
    with pytest.raises(QueueError):
        queue.put(b"x", delay=-1)
    queue.touch(put)


# -- a connection that breaks ---------------------------------------------------------------------------------------


def quick(url: str, timeout: str = "2s") -> Queue:
    return open_queue(QueueSettings(url=QueueUrl(url), connect_timeout=Duration("1s"), timeout=Duration(timeout)))


def test_nobody_listening_is_said_with_the_address() -> None:
    port = free_port()
    with pytest.raises(QueueUnavailable, match=f"beanstalkd at 127.0.0.1:{port}: Connection refused"):
        quick(f"beanstalk://127.0.0.1:{port}").stats()


def test_a_socket_that_is_not_there_is_said_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(QueueUnavailable, match=f"beanstalkd at {tmp_path}/no.sock: No such file"):
        quick(f"beanstalk://{tmp_path}/no.sock").stats()


def test_a_socket_path_that_no_system_takes_is_said_in_words(tmp_path: Path) -> None:
    with pytest.raises(QueueUnavailable, match="path too long"):
        quick(f"beanstalk://{tmp_path}/{'a' * 200}.sock").stats()


def test_a_connection_that_comes_up_too_slowly_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
        address = server.getsockname()
        # the kernel's queue of connections is full: the next one hangs
        waiting = [socket.socket() for _ in range(4)]
        for sock in waiting:
            sock.setblocking(False)
            sock.connect_ex(address)
        with pytest.raises(QueueUnavailable, match="no answer in time"):
            quick(f"beanstalk://127.0.0.1:{address[1]}", timeout="500ms").stats()
        for sock in waiting:
            sock.close()


def test_after_a_restart_the_next_call_works_with_its_tube(server: Beanstalkd, both: Queue) -> None:
    put = both.put(b"before")
    both.put(b"elsewhere", tube="else")
    server.stop(signal.SIGKILL)
    with pytest.raises(QueueUnavailable):
        both.reserve(0)
    with pytest.raises(QueueUnavailable):
        both.reserve(0)
    server.start()
    assert both.reserve(0) == JobBody(put, b"before")
    assert both.stats_job(both.put(b"after")).tube == "glassq"


def test_a_server_that_dies_during_a_reserve_is_noticed(beanstalkd: Beanstalkd, queue: Queue, other: Queue) -> None:
    def end() -> None:
        wait_for(lambda: other.stats_tube().waiting == 1, "the reserve to wait")
        beanstalkd.stop(signal.SIGKILL)

    thread = threading.Thread(target=end)
    thread.start()
    with pytest.raises(QueueUnavailable):
        queue.reserve(30)
    thread.join()


def test_a_frozen_server_is_given_up_and_later_used_again(server: Beanstalkd) -> None:
    queue = server.queue(timeout=0.2)
    put = queue.put(b"ping")
    server.send(signal.SIGSTOP)
    with pytest.raises(QueueUnavailable, match="no answer in time"):
        queue.peek(put)
    server.send(signal.SIGCONT)
    # the late answer to the peek must not be taken for this one's
    wait_for(lambda: answers(queue), "the server to answer again")
    assert queue.stats_job(put).id == put
    assert queue.reserve(0) == JobBody(put, b"ping")
    queue.close()


def answers(queue: Queue) -> bool:
    try:
        return bool(queue.tubes())
    except QueueUnavailable:
        return False


def test_what_a_broken_connection_held_is_worked_by_the_next_one(beanstalkd: Beanstalkd, other: Queue) -> None:
    queue = beanstalkd.queue(timeout=0.2)
    put = queue.put(b"ping")
    queue.reserve(0)
    beanstalkd.send(signal.SIGSTOP)
    with pytest.raises(QueueUnavailable):
        queue.touch(put)
    beanstalkd.send(signal.SIGCONT)
    assert other.reserve(5) == JobBody(put, b"ping")


STATS = b'---\nid: 7\ntube: "glassq"\nstate: ready\n'
# What a server can be seen to say when it dies in a reply, or is none.
GARBLED = {
    "nothing": b"",
    "half a line": b"INSERT",
    "a number cut off": b"INSERTED 12",
    "no carriage return": b"INSERTED 12\n",
    "an empty line": b"\r\n",
    "no number": b"INSERTED\r\n",
    "too many numbers": b"INSERTED 1 2\r\n",
    "words for a number": b"INSERTED twelve\r\n",
    "another reply": b"DELETED\r\n",
    "another protocol": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "binary": b"\xff\xfe\x00\r\n",
}


@pytest.mark.parametrize("garbled", GARBLED.values(), ids=GARBLED)
def test_a_garbled_reply_ends_the_connection_and_the_next_call_has_a_fresh_one(garbled: bytes) -> None:
    with Scripted(garbled, b"INSERTED 7\r\n") as server:
        queue = quick(server.url)
        with pytest.raises(QueueUnavailable):
            queue.put(b"first")
        assert queue.put(b"second") == 7
        queue.close()
    assert len(server.received) == 2
    assert server.received[1].startswith(b"use glassq\r\nwatch glassq\r\n")


BODIES = {
    "cut off": b"RESERVED 7 10\r\nhalf",
    "end missing": b"RESERVED 7 4\r\nbody",
    "longer than said": b"RESERVED 7 2\r\nbody\r\n",
    "size missing": b"RESERVED 7\r\n",
}


@pytest.mark.parametrize("garbled", BODIES.values(), ids=BODIES)
def test_a_job_whose_body_does_not_come_whole_is_no_job(garbled: bytes) -> None:
    with Scripted(garbled, b"RESERVED 7 4\r\nbody\r\n") as server:
        queue = quick(server.url)
        with pytest.raises(QueueUnavailable):
            queue.reserve(0)
        assert queue.reserve(0) == JobBody(7, b"body")
        queue.close()


def found(text: bytes) -> bytes:
    return b"OK %d\r\n%b\r\n" % (len(text), text)


@pytest.mark.parametrize("text", [STATS, b"", b"---\nid 7\n", b"id: 7\n", b"---\nid: \xff\n"])
@pytest.mark.parametrize("act", ["stats", "stats_job", "stats_tube"])
def test_statistics_that_lack_something_are_a_broken_connection(act: str, text: bytes) -> None:
    with Scripted(found(text), found(b"---\n- default\n")) as server:
        queue = quick(server.url)
        arguments = {"stats": (), "stats_job": (7,), "stats_tube": ("glassq",)}[act]
        with pytest.raises(QueueUnavailable):
            getattr(queue, act)(*arguments)
        assert queue.tubes() == ["default"]
        queue.close()


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        (b"OUT_OF_MEMORY\r\n", "out of memory, or its disk is full"),
        (b"INTERNAL_ERROR\r\n", "internal error"),
        (b"BURIED 7\r\n", "in memory only"),
        (b"DRAINING\r\n", "draining"),
    ],
)
def test_a_put_that_is_not_kept_is_refused(reply: bytes, says: str) -> None:
    with Scripted(reply) as server:
        queue = quick(server.url)
        with pytest.raises(QueueRefused, match=says):
            queue.put(b"x")
        queue.close()


@pytest.mark.parametrize("reply", [b"BAD_FORMAT\r\n", b"UNKNOWN_COMMAND\r\n", b"EXPECTED_CRLF\r\n"])
def test_an_answer_that_should_never_come_ends_the_connection(reply: bytes) -> None:
    with Scripted(reply, b"INSERTED 7\r\n") as server:
        queue = quick(server.url)
        with pytest.raises(QueueError, match="beanstalkd answered"):
            queue.reserve(0)
        assert queue.put(b"x") == 7
        queue.close()


def test_a_closed_queue_can_be_closed_again_and_used_again(queue: Queue) -> None:
    queue.close()
    queue.close()
    assert queue.put(b"ping") == 1


def test_a_job_that_is_deleted_while_it_is_looked_at_is_gone_and_the_connection_stays_in_step() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        client = BeanstalkClient.__new__(BeanstalkClient)
        client._sock, client._reader = ours, ours.makefile("rb")
        theirs.sendall(b"FOUND 7 4\r\nbody`\x06" * 2 + b"FOUND 8 4\r\nbody\r\n")
        command = commands.peek(7)
        for look in (lambda: command.read(client, client.expect(command.expects)), lambda: client.peek(7)):
            with pytest.raises(greenstalk.NotFoundError):
                look()
        assert client.peek(8).body == b"body"
