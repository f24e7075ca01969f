"""The pool's side on a line that breaks: its queue object, and a real glassq-worker."""

from __future__ import annotations

import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from glassq.errors import QueueUnavailable
from glassq.queues.beanstalk import connection
from glassq.queues.beanstalk.protocol import JobBody
from glassq.settings import QueueSettings
from glassq.values import Duration, QueueUrl
from tests.conftest import wait_for
from tests.proxy import BACK, FREEZE, PASS, THERE, Fault, Proxy
from tests.queues.raw import open_queue
from tests.worker.pools import PoolRun

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import FrameType

    from tests.conftest import Beanstalkd
    from tests.queues.raw import Queue


@pytest.fixture
def worker(proxy: Proxy) -> Iterator[Queue]:
    """A consumer's connection, through the proxy."""
    opened = open_queue(QueueSettings(url=QueueUrl(proxy.url), timeout=Duration("10s")))
    yield opened
    opened.close()


@pytest.fixture
def hasty(proxy: Proxy) -> Iterator[Queue]:
    """One that gives up after a second."""
    opened = open_queue(QueueSettings(url=QueueUrl(proxy.url), timeout=Duration("1s")))
    yield opened
    opened.close()


# What ends after seconds has ended by then, on the busiest machine; what is waited for byte by byte has not.
IN_TIME = 40.0


def answers(queue: Queue) -> bool:
    with suppress(QueueUnavailable):
        return bool(queue.tubes())
    return False


# -- one connection -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("softly", [False, True], ids=["RST", "FIN"])
def test_a_job_whose_reply_is_cut_at_any_byte_comes_whole_the_next_time(
    worker: Queue, queue: Queue, proxy: Proxy, softly: bool
) -> None:
    put = queue.put(b"ping")
    reply = len(b"RESERVED 1 4\r\nping\r\n")
    for cut in range(reply):
        worker.tubes()
        proxy.living()[-1].set(Fault(cut=cut, softly=softly, ways=BACK))
        with pytest.raises(QueueUnavailable):
            worker.reserve(1)
        # a fresh connection that watches the same tube
        assert worker.reserve(30) == JobBody(put, b"ping")
        worker.release(put)
    assert queue.stats_tube().ready == 1


@pytest.mark.parametrize("act", ["delete", "touch", "release", "bury"])
def test_a_command_whose_reply_is_lost_leaves_the_job_done_or_to_be_done_again(
    worker: Queue, queue: Queue, proxy: Proxy, act: str
) -> None:
    put = queue.put(b"ping")
    worker.reserve(30)
    proxy.living()[-1].set(Fault(cut=0, ways=BACK))
    with pytest.raises(QueueUnavailable):
        getattr(worker, act)(put)
    after = {"delete": (0, 0), "touch": (1, 0), "release": (1, 0), "bury": (0, 1)}[act]

    def counts() -> tuple[int, int]:
        found = queue.stats_tube()
        return found.ready, found.buried

    wait_for(lambda: counts() == after, f"{after} ready and buried jobs")


def test_a_reserve_that_freezes_ends_in_time_and_its_job_is_not_kept(
    worker: Queue, hasty: Queue, queue: Queue, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "_RESERVE_SLACK", 1.0)
    wait_for(lambda: answers(hasty), "the connection")
    proxy.set(Fault(freeze=True, ways=BACK))
    put = queue.put(b"ping")
    # 1 s of its own, 1 s for a reply, 1 s for one that is late; the rest for a busy machine
    started = time.monotonic()
    with pytest.raises(QueueUnavailable, match="no answer in time"):
        hasty.reserve(1)
    assert time.monotonic() - started < IN_TIME
    proxy.set(PASS)
    assert worker.reserve(30) == JobBody(put, b"ping")


@pytest.mark.parametrize("ways", [BACK, THERE], ids=["replies", "requests"])
def test_what_drips_in_slowly_is_given_up_in_time(hasty: Queue, proxy: Proxy, ways: frozenset[str]) -> None:
    # the whole answer would take minutes
    proxy.set(Fault(drip=0.4, ways=ways))  # type: ignore[arg-type]
    started = time.monotonic()
    with pytest.raises(QueueUnavailable, match="no answer in time"):
        hasty.stats()
    assert time.monotonic() - started < IN_TIME


def test_a_big_body_comes_whole_in_many_pieces(worker: Queue, queue: Queue, proxy: Proxy) -> None:
    body = bytes(range(256)) * 200
    put = queue.put(body)
    proxy.set(Fault(drip=0.0, ways=BACK))
    assert worker.reserve(30) == JobBody(put, body)
    worker.delete(put)


class Woken(BaseException):
    """What a signal handler raises."""


def test_a_signal_handler_that_raises_inside_a_command_leaves_no_reply_for_the_next_one(
    worker: Queue, queue: Queue, proxy: Proxy
) -> None:
    def wake(_number: int, _frame: FrameType | None) -> None:
        raise Woken

    put = queue.put(b"ping")
    worker.tubes()
    proxy.set(Fault(delay=3600, ways=BACK))
    before = signal.signal(signal.SIGALRM, wake)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        with pytest.raises(Woken):
            worker.stats_job(put)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    proxy.set(PASS)
    assert worker.peek(put) == JobBody(put, b"ping")


# -- a real pool ----------------------------------------------------------------------------------------------------


@pytest.fixture
def pool(proxy: Proxy, queue: Queue, tmp_path: Path) -> Iterator[PoolRun]:
    # however often the line breaks just then, no delivery is given up
    with PoolRun(tmp_path, proxy, queue, max_lost=1000) as run:
        # what stays silent is known to be so after a second
        run.write_settings(timeout="1s")
        yield run


def done(pool: PoolRun, names: set[str]) -> bool:
    return names <= {name for name, _, _ in pool.story("end")}


FAULTS = {
    "frozen": FREEZE,
    "reply cut": Fault(cut=9, ways=BACK),
    "reply cut softly": Fault(cut=9, softly=True, ways=BACK),
    "request cut": Fault(cut=30, ways=THERE),
    "replies drip": Fault(drip=0.3, ways=BACK),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_after_the_line_is_healed_the_pool_goes_on_with_the_same_child_and_tube(
    pool: PoolRun, proxy: Proxy, queue: Queue, fault: Fault
) -> None:
    # what is broken is known sooner, and tried again sooner
    quick = {"queues.beanstalk.connection._RESERVE_SLACK": 1.0, "worker.consumer.RECONNECT_CAP": 0.5}
    pool.start_with(quick).ready()
    children = pool.children()
    pool.put("before")
    wait_for(lambda: done(pool, {"before"}), "the first ping to be handled")
    known = pool.log().count("queue trouble")
    proxy.set(fault)
    pool.put("during")
    wait_for(lambda: pool.log().count("queue trouble") > known, f"the fault to be noticed\n{pool.log()}")
    proxy.set(PASS)
    pool.put("after")
    wait_for(lambda: done(pool, {"during", "after"}), f"all to be handled\n{pool.log()}")
    wait_for(lambda: queue.stats_tube().ready + queue.stats_tube().reserved == 0, "the queue to be empty")
    assert pool.children() == children
    assert queue.stats_tube().buried == 0
    assert "Traceback" not in pool.log()


def test_resets_while_handlers_run_lose_no_delivery(pool: PoolRun, proxy: Proxy, queue: Queue) -> None:
    pool.start().ready()
    names = {f"ping{number}" for number in range(60)}
    for number, name in enumerate(sorted(names)):
        pool.put(name)
        if number % 5 == 0:
            proxy.reset()
    wait_for(lambda: done(pool, names), f"all to be handled\n{pool.log()}")
    wait_for(lambda: queue.stats_tube().ready + queue.stats_tube().reserved == 0, "the queue to be empty")
    assert (queue.stats_tube().buried, queue.stats_tube().delayed) == (0, 0)


def test_a_pool_that_starts_before_its_queue_waits_without_a_storm_and_then_works(
    pool: PoolRun, proxy: Proxy, beanstalkd: Beanstalkd
) -> None:
    beanstalkd.stop()
    pool.start()
    # a start waits for the queue ten seconds at the least
    wait_for(lambda: len(proxy.times) >= 6, f"six tries\n{pool.log()}")
    pauses = [second - first for first, second in zip(proxy.times, proxy.times[1:], strict=False)]
    # no two children are in step: full jitter up to 0.2, 0.4 ... 5 s
    assert pool.log().count("queue trouble") == 1
    assert all(pause < IN_TIME for pause in pauses)
    assert len({round(pause, 2) for pause in pauses}) > 2
    beanstalkd.start()
    pool.ready()
    pool.put("first")
    wait_for(lambda: done(pool, {"first"}), f"it to be handled\n{pool.log()}")
