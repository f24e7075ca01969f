"""Reserving from several tubes on one connection, and from others the next time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from glassq.errors import QueueError
from tests.conftest import wait_for

if TYPE_CHECKING:
    from glassq.queues import Queue
    from tests.conftest import Beanstalkd


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


def test_a_bad_name_is_refused_before_anything_is_sent(queue: Queue) -> None:
    with pytest.raises(QueueError, match="bad tube name"):
        queue.reserve(0, ["a\r\ndelete 1"])
