"""Quick jobs on PostgreSQL: several come with one statement, and their ends go with the next."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from glassq.errors import JobNotFound, QueueError, QueueUnavailable
from glassq.queues import open_producer, open_receiver
from glassq.queues.base import NewJob
from glassq.queues.postgres import receiver as receiving
from glassq.queues.postgres.receiver import MOST
from glassq.settings import Settings
from tests.conftest import wait_for
from tests.queues.raw_postgres import fresh_url

if TYPE_CHECKING:
    from collections.abc import Iterator

    from glassq.queues.base import Receiver, Reservation
    from glassq.values import QueueUrl
    from tests.postgres import PostgresServer

TUBE, JOBS = "tube", 60


class Quick:
    """A receiver, its queue with JOBS jobs, and what was told of ends for which nobody waited."""

    def __init__(self, server: PostgresServer, url: QueueUrl) -> None:
        self._server = server
        self._settings = replace(Settings(), queue=replace(Settings().queue, url=url))
        self._database = str(url).rpartition("/")[2]
        self.failures: list[QueueError] = []
        with closing(open_producer(self._settings)) as producer:
            producer.put([NewJob("key", b"%d" % number, TUBE) for number in range(JOBS)], within=20)
        self.receiver = self.another()

    def another(self) -> Receiver:
        return open_receiver(self._settings)

    def take(self) -> Reservation:
        held = self.receiver.reserve([TUBE], 0)
        assert held is not None
        self.receiver.begin()
        return held

    def end(self, held: Reservation) -> None:
        self.receiver.complete(held, then=[TUBE], failed=self.failures.append)

    def work(self, jobs: int) -> list[int]:
        numbers = []
        for _ in range(jobs):
            held = self.take()
            numbers.append(int(held.body))
            self.end(held)
        return numbers

    def there(self, state: int) -> list[int]:
        """The numbers of the jobs in this state, by id."""
        asked = f"SELECT convert_from(body, 'UTF8')::int FROM glassq_jobs WHERE state = {state} ORDER BY id"
        return [int(str(number)) for (number,) in self.execute(asked)]

    def execute(self, statement: str) -> list[tuple[object, ...]]:
        return self._server.execute(statement, self._database)


@pytest.fixture
def quick(postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Quick]:
    # a loaded machine is slow
    monkeypatch.setattr(receiving, "QUICK", 60.0)
    made = Quick(postgres, fresh_url(postgres))
    with closing(made.receiver):
        yield made


def test_they_come_in_packets_that_grow_to_a_limit_and_each_is_worked_once(quick: Quick) -> None:
    worked, most = [], 0
    for _ in range(JOBS):
        worked += quick.work(1)
        # what the scoreboard is told covers what a dead child would have held beside the job in hand
        assert len(quick.there(1)) <= quick.receiver.unproven + 1
        most = max(most, len(quick.there(1)))
    assert worked == list(range(JOBS))
    assert 1 < most <= 2 * MOST
    assert quick.receiver.reserve([TUBE], 0) is None
    assert (quick.there(0), quick.there(1), quick.failures, quick.receiver.unproven) == ([], [], [], 0)


def test_what_waits_behind_a_slow_one_goes_back_and_what_is_done_is_deleted(
    quick: Quick, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert quick.work(4) == [0, 1, 2, 3]
    slow = quick.take()
    quick.receiver.tend()
    assert quick.there(0)[0] > 5, "it may still be quick"
    monkeypatch.setattr(quick.receiver._ahead, "_until", 0.0)  # type: ignore[attr-defined]
    told: list[list[str]] = []
    monkeypatch.setattr(quick.receiver._waker, "tell", told.append)  # type: ignore[attr-defined]
    quick.receiver.tend()
    assert told == [[TUBE]], "with one statement, and those that wait hear of it once"
    assert (quick.there(1), quick.there(0)) == ([4], list(range(5, JOBS)))
    assert quick.receiver.unproven == 0
    quick.end(slow)
    assert (int(quick.take().body), quick.there(1)) == (5, [5]), "the next one comes alone"


def test_what_has_waited_for_half_of_its_lease_is_reserved_anew(quick: Quick, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quick.receiver, "_lease", 0.1)
    quick.work(2)
    over = "SELECT bool_and(lease_until < clock_timestamp()) FROM glassq_jobs WHERE state = 1"
    wait_for(lambda: quick.execute(over) == [(True,)], "the leases to end")
    monkeypatch.setattr(quick.receiver, "_lease", 60.0)
    held = quick.take()
    left = f"SELECT lease_until > clock_timestamp() FROM glassq_jobs WHERE id = {held.ref}"
    assert (held.body, held.losses, quick.execute(left)) == (b"2", 0, [(True,)])
    assert quick.failures == []


def test_what_was_ended_by_its_receiver_and_not_deleted_yet_is_worked_again_if_that_dies(quick: Quick) -> None:
    """At least once; who has got it looks for the evidence, as the loss is counted."""
    quick.work(10)
    open_ones = quick.there(1)
    assert len(open_ones) > 1
    # the server ends its session, as a dead client's would end
    quick.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'glassq receiver'")
    other = quick.another()
    with closing(other):
        again = []
        while (held := other.reserve([TUBE], 0)) is not None and int(held.body) < 20:
            again.append((int(held.body), held.losses))
            other.complete(held)
    assert sorted(number for number, losses in again if losses) == [each for each in open_ones if each < 20]
    with pytest.raises((QueueUnavailable, JobNotFound)):
        quick.work(MOST)
    quick.receiver.close()
    assert quick.failures
    assert all(isinstance(each, QueueUnavailable) for each in quick.failures)


def test_an_end_that_came_too_late_is_told(quick: Quick) -> None:
    quick.work(4)
    late = quick.take()
    quick.end(late)
    assert quick.failures == []
    # another has it by now
    quick.execute(f"UPDATE glassq_jobs SET token = token + 1 WHERE id = {late.ref}")
    quick.receiver.finish()
    assert [type(each) for each in quick.failures] == [JobNotFound]
    assert int(late.body) in quick.there(1)


def test_without_leave_the_answer_is_awaited_and_one_comes_with_it(quick: Quick) -> None:
    for number in range(5):
        held = quick.take()
        assert int(held.body) == number
        quick.receiver.complete(held, then=[TUBE])
        assert quick.there(1) == [number + 1]


def test_who_takes_the_leave_back_gets_no_more_while_some_wait(quick: Quick) -> None:
    quick.work(4)
    held = quick.take()
    before = quick.there(1)
    quick.receiver.complete(held, then=[TUBE])
    assert quick.there(1) == before[1:]


def test_what_is_done_is_deleted_before_somebody_waits_for_more(quick: Quick) -> None:
    quick.work(3)
    last = quick.take()
    assert quick.there(1) == [2, 3], "one is done, one is in hand"
    quick.receiver.release(last)
    assert (int(quick.take().body), quick.there(1)) == (3, [3])


def test_a_fork_tells_nothing_of_its_parents_jobs(quick: Quick) -> None:
    quick.work(10)
    quick.receiver.close_inherited()
    assert (quick.failures, quick.receiver.has_next) == ([], False)
