"""Jobs that are worked in no time: they come several in a packet, and nobody waits for the answers to their ends."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from glassq.errors import JobNotFound, QueueError, QueueUnavailable
from glassq.queues.base import ALL_STATES
from glassq.queues.beanstalk import receiver as receiving
from glassq.queues.beanstalk.connection import BeanstalkConnection
from glassq.queues.beanstalk.protocol import JobStats
from glassq.queues.beanstalk.receiver import MOST_QUICK, BeanstalkReceiver
from tests.conftest import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from glassq.queues.base import Reservation
    from tests.conftest import Beanstalkd

TUBE = "glassq"
JOBS = 100


class Quick:
    """A receiver, a look at its queue, and what was told of ends that nobody has waited for."""

    def __init__(self, server: Beanstalkd) -> None:
        self.connection = BeanstalkConnection(server.url, TUBE, ttr=60, connect_timeout=20, timeout=20)
        self.receiver = BeanstalkReceiver(self.connection)
        self.look = server.queue()
        self.failures: list[QueueError] = []
        for number in range(JOBS):
            self.look.put(b"%d" % number, tube=TUBE)

    def take(self) -> Reservation:
        held = self.receiver.reserve([TUBE], 0)
        assert held is not None
        self.receiver.begin()
        return held

    def work(self, jobs: int) -> None:
        for _ in range(jobs):
            self.end(self.take())

    def end(self, held: Reservation) -> None:
        self.receiver.complete(held, then=[TUBE], failed=self.failures.append)

    @property
    def reserved(self) -> int:
        return self.look.stats_tube(TUBE).reserved

    def there(self) -> dict[int, tuple[str, int]]:
        found = [each for each in self.look.scan(ALL_STATES, TUBE) if isinstance(each, JobStats)]
        return {int(self.look.peek(each.id).body): (each.state, each.lost) for each in found}


@pytest.fixture
def quick(beanstalkd: Beanstalkd, monkeypatch: pytest.MonkeyPatch) -> Iterator[Quick]:
    # a loaded machine is slow
    monkeypatch.setattr(receiving, "QUICK", 60.0)
    made = Quick(beanstalkd)
    with closing(made.look), closing(made.receiver):
        yield made


def test_they_come_in_packets_that_grow_to_a_limit_and_each_is_worked_once(quick: Quick) -> None:
    held, most = [], []
    for _ in range(JOBS):
        reservation = quick.take()
        held.append(int(reservation.body))
        quick.end(reservation)
        quick.connection.end_deletes()
        # what the scoreboard is told covers what a dead child would have held beside the job in hand
        most.append(quick.reserved)
        assert quick.reserved <= quick.receiver.unproven + 1
    assert held == list(range(JOBS))
    assert (max(most), most[:8]) == (MOST_QUICK, [1, 2, 1, 4, 3, 2, 1, 8])
    assert quick.receiver.reserve([TUBE], 0) is None
    assert (quick.there(), quick.failures, quick.receiver.unproven) == ({}, [], 0)


def test_who_finds_few_asks_for_few(quick: Quick) -> None:
    quick.work(JOBS - 2)
    rest = quick.take(), quick.look.reserve(0, [TUBE])
    assert rest[1] is None
    quick.end(rest[0])
    quick.work(1)
    quick.look.put(b"0", tube=TUBE)
    quick.look.put(b"1", tube=TUBE)
    quick.end(quick.take())
    assert quick.reserved == 1


def test_what_waits_behind_a_slow_one_goes_back_and_has_lost_nothing(
    quick: Quick, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick.work(2)
    slow = quick.take()
    assert quick.reserved == 2
    quick.receiver.tend()
    assert quick.reserved == 2, "it may still be quick"
    monkeypatch.setattr(quick.receiver._ahead, "_until", 0.0)
    quick.receiver.tend()
    assert quick.there() == {number: ("reserved" if number == 2 else "ready", 0) for number in range(2, JOBS)}
    quick.end(slow)
    assert (quick.take().body, quick.reserved) == (b"3", 1), "the next one comes alone"


def test_what_has_waited_for_half_of_its_lease_is_reserved_anew(quick: Quick, monkeypatch: pytest.MonkeyPatch) -> None:
    quick.work(1)
    monkeypatch.setattr(receiving, "SHORTEST_LEASE", 0.0)
    quick.work(1)
    assert quick.reserved == 2
    held = quick.take()
    assert (held.body, quick.reserved) == (b"2", 1)
    assert quick.look.stats_job(int(held.ref)).releases == 1


def test_after_a_slow_one_the_next_comes_alone(quick: Quick, monkeypatch: pytest.MonkeyPatch) -> None:
    quick.work(7)
    slow = quick.take()
    assert not quick.receiver.has_next
    monkeypatch.setattr(quick.receiver._ahead, "_until", 0.0)
    quick.end(slow)
    assert quick.reserved == 1


def test_none_waits_behind_the_next_handler_for_long(quick: Quick, monkeypatch: pytest.MonkeyPatch) -> None:
    quick.work(8)
    held = quick.receiver.reserve([TUBE], 0)
    assert held is not None
    assert quick.reserved == 8
    monkeypatch.setattr(quick.receiver._ahead, "_until", 0.0)
    quick.receiver.begin()
    assert quick.reserved == 1


def test_what_was_ended_is_gone_though_its_consumer_dies_at_once(quick: Quick) -> None:
    quick.work(10)
    # the kernel closes what a dead process had open; nothing else is sent
    quick.receiver.close_inherited()
    wait_for(lambda: quick.reserved == 0, "the end of the connection")
    assert sorted(quick.there()) == list(range(10, JOBS))
    assert quick.failures == []


def test_an_end_does_not_wait_for_a_slow_job_after_it(quick: Quick) -> None:
    quick.work(8)
    for ended in (9, 10, 11):
        quick.work(1)
        # as the keeper of the next one's lease does
        quick.receiver.tend()
        assert sorted(quick.there()) == list(range(ended, JOBS))
    assert quick.failures == []


def test_an_end_that_came_too_late_is_told(quick: Quick) -> None:
    quick.work(4)
    late = quick.take()
    # another consumer has it by now
    quick.connection._call(lambda client: client.send(b"release %b 1 0\r\n" % late.ref.encode()))
    quick.connection._call(lambda client: client.expect(b"RELEASED"))
    other = quick.look.reserve(20, [TUBE])
    assert other is not None
    assert str(other.id) == late.ref
    quick.end(late)
    assert quick.failures == []
    quick.receiver.tend()
    assert [type(each) for each in quick.failures] == [JobNotFound]
    quick.work(3)
    assert len(quick.failures) == 1


def test_a_connection_that_breaks_before_the_answers_tells_of_each(quick: Quick) -> None:
    quick.work(6)
    assert quick.connection.begun_deletes == 2
    quick.connection.close()
    assert [type(each) for each in quick.failures] == [QueueUnavailable] * 2
    wait_for(lambda: quick.reserved == 0, "the end of the connection")
    quick.work(1)
    assert sorted(quick.there()) == list(range(7, JOBS))


def test_without_leave_the_answer_is_awaited_and_one_comes_with_it(quick: Quick) -> None:
    quick.work(8)
    held = quick.take()
    assert quick.reserved == 8
    quick.receiver.complete(held, then=[TUBE])
    assert (quick.reserved, quick.connection.begun_deletes) == (7, 0)
