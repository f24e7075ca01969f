"""Connections that are lent: to one thread at a time, in the process that made them, alive as far as can be told."""

from __future__ import annotations

import gc
import os
import threading
import time
from typing import TYPE_CHECKING

import pytest

from glassq import connections as pool_module
from glassq.connections import ConnectionPool
from glassq.errors import JobNotFound, QueueError, QueueUnavailable
from glassq.queues.beanstalk.connection import BeanstalkConnection
from tests.proxy import FREEZE, PASS, Proxy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import Beanstalkd

PATIENCE = 20.0


class Counted(ConnectionPool):
    """A pool that counts what it made."""

    def __init__(self, url: str, timeout: float = PATIENCE, **limits: float) -> None:
        self.made: list[BeanstalkConnection] = []

        def connect() -> BeanstalkConnection:
            self.made.append(BeanstalkConnection(url, "glassq", ttr=60, connect_timeout=timeout, timeout=timeout))
            return self.made[-1]

        super().__init__(connect, **limits)


@pytest.fixture
def pool(beanstalkd: Beanstalkd) -> Iterator[Counted]:
    opened = Counted(beanstalkd.url)
    yield opened
    opened.close()


def soon() -> float:
    return time.monotonic() + PATIENCE


def test_a_connection_is_lent_again_after_it_was_given_back(pool: Counted) -> None:
    for _ in range(3):
        with pool.lend(soon()) as connection:
            connection.put(b"ping")
    assert len(pool.made) == 1


def test_two_at_once_have_one_each(pool: Counted) -> None:
    with pool.lend(soon()) as first, pool.lend(soon()) as second:
        assert first is not second
    with pool.lend(soon()) as again:
        # the one used last is the likeliest to live
        assert again is first
    assert len(pool.made) == 2


def test_many_threads_never_share_one(pool: Counted) -> None:
    lent: set[BeanstalkConnection] = set()
    shared: list[BeanstalkConnection] = []

    def work() -> None:
        for _ in range(20):
            with pool.lend(soon()) as connection:
                if connection in lent:
                    shared.append(connection)
                lent.add(connection)
                connection.put(b"ping")
                lent.discard(connection)

    threads = [threading.Thread(target=work) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert shared == []
    assert len(pool.made) <= 5


@pytest.mark.parametrize("call", [lambda one: one.delete(4711), lambda one: one.peek(4711)], ids=["delete", "peek"])
def test_a_job_that_is_not_there_costs_no_connection(
    pool: Counted, call: Callable[[BeanstalkConnection], object]
) -> None:
    for _ in range(2):
        with pytest.raises(JobNotFound), pool.lend(soon()) as connection:
            call(connection)
    assert len(pool.made) == 1


def test_whatever_else_went_wrong_ends_the_connection(pool: Counted) -> None:
    for error in (QueueError("odd"), ValueError("ours"), KeyboardInterrupt()):
        with pytest.raises(type(error)), pool.lend(soon()):
            raise error
    assert len(pool.made) == 3


def test_a_child_makes_its_own_and_leaves_its_parents_alone(pool: Counted) -> None:
    with pool.lend(soon()) as connection:
        connection.put(b"ping")
        assert connection.reserve(0)
    child = os.fork()
    if not child:
        try:
            with pool.lend(soon()) as own:
                told = own.stats_tube()
            os._exit(0 if len(pool.made) == 2 and own is not connection and told.reserved == 1 else 1)
        finally:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    with pool.lend(soon()) as same:
        assert same is connection
        # in step, and what it holds is still its own
        assert same.stats_tube().reserved == 1


def test_one_that_broke_while_it_lay_idle_is_mended_before_it_is_lent(
    beanstalkd: Beanstalkd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_module, "IDLE", 0.0)
    with Proxy(beanstalkd.port) as proxy:
        pool = Counted(proxy.url)
        with pool.lend(soon()) as connection:
            connection.put(b"before")
        proxy.reset()
        with pool.lend(soon()) as again:
            assert again is connection
            again.put(b"after")
        assert again.stats_tube().ready == 2
        pool.close()


def test_one_that_was_used_a_moment_ago_is_not_asked_first(pool: Counted, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[BeanstalkConnection] = []
    monkeypatch.setattr(pool_module, "_test", asked.append)
    monkeypatch.setattr(pool_module, "IDLE", 1000.0)
    for _ in range(3):
        with pool.lend(soon()):
            pass
    assert asked == []
    monkeypatch.setattr(pool_module, "IDLE", 0.0)
    with pool.lend(soon()):
        pass
    assert asked == pool.made


def test_nothing_goes_on_past_the_deadline_and_the_next_one_has_its_own(beanstalkd: Beanstalkd) -> None:
    with Proxy(beanstalkd.port) as proxy:
        pool = Counted(proxy.url)
        with pool.lend(soon()) as connection:
            connection.put(b"ping")
        proxy.set(FREEZE)
        with pytest.raises(QueueUnavailable, match="no answer in time"), pool.lend(time.monotonic() + 0.1) as lent:
            lent.stats()
        with pytest.raises(QueueUnavailable, match="no answer in time"), pool.lend(time.monotonic() - 1) as lent:
            lent.stats()
        proxy.set(PASS)
        with pool.lend(soon()) as fresh:
            assert fresh.stats_tube().ready == 1
        pool.close()


def test_nobody_there_is_said_before_anything_is_lent(beanstalkd: Beanstalkd, pool: Counted) -> None:
    beanstalkd.stop()
    lent = False
    with pytest.raises(QueueUnavailable), pool.lend(soon()):
        lent = True
    assert not lent
    beanstalkd.start()
    with pool.lend(soon()) as connection:
        connection.put(b"ping")


def test_closing_ends_what_is_idle_and_leaves_what_is_lent(pool: Counted) -> None:
    with pool.lend(soon()) as lent:
        lent.put(b"ping")
        pool.close()
        lent.put(b"still there")
    with pool.lend(soon()) as again:
        assert again is lent
    pool.close()
    with pool.lend(soon()) as new:
        assert new is not lent


def test_no_more_stay_open_than_may_and_none_for_longer(
    beanstalkd: Beanstalkd, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = Counted(beanstalkd.url, most_idle=2, idle_for=60)
    with pool.lend(soon()), pool.lend(soon()) as second, pool.lend(soon()):
        pass
    assert [is_open(each) for each in pool.made] == [False, True, True]
    later = time.monotonic() + 61
    monkeypatch.setattr(time, "monotonic", lambda: later)
    with pool.lend(later + PATIENCE) as again:
        assert again is second
    assert [is_open(each) for each in pool.made] == [False, True, False]
    pool.close()


def test_one_that_is_not_to_be_kept_is_new_and_ends_with_its_block(pool: Counted) -> None:
    with pool.lend(soon()) as kept:
        pass
    with pool.lend(soon(), keep=False) as alone:
        assert alone is not kept
    assert [is_open(each) for each in pool.made] == [True, False]


def test_what_lies_idle_ends_with_the_pool(beanstalkd: Beanstalkd) -> None:
    pool = Counted(beanstalkd.url)
    with pool.lend(soon()) as connection:
        pass
    assert is_open(connection)
    del pool
    gc.collect()
    assert not is_open(connection)


def is_open(connection: BeanstalkConnection) -> bool:
    return connection._client is not None
