"""Several tubes on one connection: reserving from some, then from others; their first jobs; pausing one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from glassq.errors import QueueError, QueueRefused
from tests.conftest import wait_for
from tests.queues.binlog import without_memory

if TYPE_CHECKING:
    from glassq.queues.base import WaitingState as Waiting
    from tests.conftest import Beanstalkd
    from tests.queues.raw import Queue


STATES: tuple[Waiting, ...] = ("ready", "delayed", "buried")


def reserved(queue: Queue, *tubes: str) -> bytes | None:
    job = queue.reserve(0, tubes)
    if job is None:
        return None
    queue.delete(job.id)
    return job.body


def test_a_job_comes_out_of_any_tube_that_is_named_and_of_no_other(queue: Queue) -> None:
    for tube in ("a", "b", "c"):
        queue.put(tube.encode(), tube=tube)
    assert sorted(filter(None, (reserved(queue, "a", "b") for _ in range(3)))) == [b"a", b"b"]
    assert reserved(queue, "c") == b"c"


def test_where_none_is_named_it_is_the_queues_own(queue: Queue) -> None:
    queue.put(b"other", tube="other")
    queue.put(b"own")
    assert reserved(queue, "other") == b"other"
    assert reserved(queue) == b"own"
    assert reserved(queue) is None


def test_a_new_connection_watches_what_is_asked_for(queue: Queue, beanstalkd: Beanstalkd) -> None:
    queue.put(b"1", tube="a")
    assert reserved(queue, "a") == b"1"
    queue.close()
    queue.put(b"2", tube="a")
    queue.put(b"own")
    assert reserved(queue, "a") == b"2"
    assert reserved(queue, "a") is None
    watcher = beanstalkd.queue()
    wait_for(lambda: watcher.stats_tube().ready == 1, "the job of the own tube to be left alone")
    watcher.close()


def test_a_packet_on_a_new_connection_watches_what_is_asked_for(queue: Queue) -> None:
    queue.put(b"own")
    queue.put(b"1", tube="a")
    assert reserved(queue, "a") == b"1"
    queue.close()
    _, jobs = queue.put_and_reserve([(b"2", "a")], [], ["a"], 2)
    assert [job.body for job in jobs] == [b"2"]


@pytest.mark.parametrize("command", ["reserve", "delete_and_reserve", "put_and_reserve"])
def test_what_the_server_refused_to_watch_is_asked_for_again(
    queue: Queue, beanstalkd: Beanstalkd, command: str
) -> None:
    queue.put(b"own")
    job = queue.put(b"1", delay=3600)
    with without_memory(beanstalkd):
        if command == "reserve":
            with pytest.raises(QueueRefused):
                queue.reserve(0, [queue.tube, "a"])
        elif command == "delete_and_reserve":
            assert queue.delete_and_reserve([job], [queue.tube, "a"]) == ([None], [])
        else:
            assert queue.put_and_reserve([], [], [queue.tube, "a"], 1) == ([], [])
    assert reserved(queue) == b"own"
    queue.put(b"2", tube="a")
    assert reserved(queue, queue.tube, "a") == b"2"


def test_a_bad_name_is_refused_before_anything_is_sent(queue: Queue) -> None:
    with pytest.raises(QueueError, match="bad tube name"):
        queue.reserve(0, ["a\r\ndelete 1"])
    with pytest.raises(QueueError, match="bad tube name"):
        queue.peek_first("ready", "a\r\ndelete 1")
    with pytest.raises(QueueError, match="bad tube name"):
        queue.pause(1, "a 1\r\ndelete 1\r\n")


def test_the_first_job_in_each_state_is_seen_and_stays_as_it_is(queue: Queue) -> None:
    for body, delay in ((b"ready first", 0), (b"ready next", 0), (b"later", 3600), (b"sooner", 1800)):
        queue.put(body, delay=delay, tube="a")
    for body in (b"buried first", b"buried next"):
        queue.bury(queue.reserve_job(queue.put(body, tube="a")).id)
    heads = {state: queue.peek_first(state, "a") for state in STATES}
    assert {state: job and job.body for state, job in heads.items()} == {
        "ready": b"ready first",
        "delayed": b"sooner",
        "buried": b"buried first",
    }
    counts = queue.stats_tube("a")
    assert (counts.ready, counts.delayed, counts.buried, counts.reserved) == (2, 2, 2, 0)


def test_a_tube_without_such_a_job_has_no_first_one(queue: Queue) -> None:
    queue.put(b"other", tube="other")
    assert [queue.peek_first(state) for state in STATES] == [None, None, None]
    assert [queue.peek_first(state, "nobody") for state in STATES] == [None, None, None]
    assert queue.peek_first("ready", "other") is not None


def test_nothing_is_reserved_from_a_paused_tube_until_it_goes_on(queue: Queue, beanstalkd: Beanstalkd) -> None:
    queue.put(b"kept", tube="a")
    queue.put(b"free", tube="b")
    assert queue.pause(3600, "a")
    assert 3500 < queue.stats_tube("a").paused_for <= 3600
    assert reserved(queue, "a", "b") == b"free"
    assert reserved(queue, "a", "b") is None
    other = beanstalkd.queue()
    assert other.pause(0, "a")
    other.close()
    assert queue.stats_tube("a").paused_for == 0
    assert reserved(queue, "a") == b"kept"


def test_a_tube_that_does_not_exist_cannot_be_paused(queue: Queue) -> None:
    assert not queue.pause(3600, "nobody")
    assert queue.stats_tube("nobody").paused_for == 0


@pytest.mark.parametrize("seconds", [-1, 1 << 32, 1.5, True, "1\r\ndelete 1"])
def test_a_pause_of_no_whole_number_of_seconds_is_refused(queue: Queue, seconds: int) -> None:
    queue.put(b"x", tube="a")
    with pytest.raises(QueueError, match="bad seconds"):
        queue.pause(seconds, "a")
    assert queue.stats_tube("a").paused_for == 0


def test_a_tube_may_be_paused_for_as_long_as_the_protocol_allows(queue: Queue) -> None:
    queue.put(b"x", tube="a")
    assert queue.pause((1 << 32) - 1, "a")
    assert queue.stats_tube("a").paused_for > 100 * 365 * 86_400
