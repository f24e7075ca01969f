"""A consumer on several tubes: some with limits, some that a route leads to, some whose handler brings its own rule."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace

from glassq import delivery as envelope
from glassq.errors import Retry
from glassq.queues.beanstalk.protocol import JobStats
from glassq.routes import retry_policy
from glassq.worker.bucket import UNLIMITED, Limit
from tests.worker.conftest import Bench, made
from tests.worker.test_shares import commands

if TYPE_CHECKING:
    from glassq.delivery import Delivery
    from glassq.routes import Context, Result
    from tests.queues.raw import Queue

ALL = frozenset({"ready", "reserved", "delayed", "buried"})
# so slow that no second token comes while a test runs
SLOW = 1e-6


def jobs(look: Queue, tube: str) -> list[JobStats]:
    return [found for found in look.scan(ALL, tube) if isinstance(found, JobStats)]


def put(look: Queue, tube: str, do: str = "done") -> Delivery:
    delivery = made(do)
    look.put(envelope.encode(delivery), tube=tube)
    return delivery


def work(bench: Bench) -> bool:
    """One round without waiting; whether a job was worked."""
    return bench.consumer.work_one(0)


def test_a_tube_gives_as_many_as_its_bucket_holds_and_no_attempt_is_burnt(queue: Queue, look: Queue) -> None:
    bench = Bench(queue, limits=(Limit("few", SLOW, 2),))
    waiting = [put(look, "few") for _ in range(3)]
    assert [work(bench) for _ in range(5)] == [True, True, False, False, False]
    assert [each.id for each in bench.seen] == [each.id for each in waiting[:2]]
    (left,) = jobs(look, "few")
    assert (left.state, left.reserves, left.releases) == ("ready", 0, 0)


def test_a_limited_tube_costs_one_packet_a_job(queue: Queue, look: Queue) -> None:
    """Its next job is reserved with the end of the one before."""
    bench = Bench(queue, limits=(Limit("some", UNLIMITED, 2, 2),))
    for _ in range(20):
        put(look, "some")
    before = commands(look)
    assert bench.work_ahead(20) == ["some"] * 20
    spent = commands(look) - before
    assert (spent["reserve-with-timeout"], spent["delete"]) == (21, 20)


def test_a_consumer_that_ends_gives_back_what_it_reserved_ahead_and_its_claim(queue: Queue, look: Queue) -> None:
    bench = Bench(queue, limits=(Limit("few", SLOW, 2),))
    other = bench.throttle.limiter(1, free=[], limited=["few"])
    for _ in range(2):
        put(look, "few")
    bench.work_ahead(1)
    assert other.admit().tubes == ()
    bench.consumer.close()
    assert other.admit().tubes == ("few",)
    assert [job.state for job in jobs(look, "few")] == ["ready"]


def test_a_tube_over_its_limit_holds_up_no_other(queue: Queue, look: Queue) -> None:
    bench = Bench(queue, limits=(Limit("few", SLOW, 1), Limit("paused", 0, 1)))
    for tube in ("few", "few", "paused"):
        put(look, tube)
    look.put(envelope.encode(made("done")))
    assert sum(work(bench) for _ in range(6)) == 2
    assert (len(jobs(look, "few")), len(jobs(look, "paused")), jobs(look, queue.tube)) == (1, 1, [])


@pytest.mark.parametrize(("do", "state"), [("retry", "delayed"), ("bury", "buried")])
def test_what_is_put_again_stays_in_its_tube(queue: Queue, look: Queue, do: str, state: str) -> None:
    bench = Bench(queue, limits=(Limit("other", 100, 10),))
    delivery = put(look, "other", do)
    assert work(bench)
    (job,) = jobs(look, "other")
    assert (job.state, envelope.decode(look.peek(job.id).body).id) == (state, delivery.id)
    assert bench.ledger.entries[0].tube == "other"
    assert jobs(look, queue.tube) == []


def test_a_delivery_goes_on_to_the_tube_its_route_leads_to_and_is_worked_there(queue: Queue, look: Queue) -> None:
    bench = Bench(queue, limits=(Limit("endpoints", 100, 1),), leads_to="endpoints")
    delivery = put(look, queue.tube)
    assert work(bench)
    assert (bench.seen, bench.ledger.entries) == ([], [])
    (moved,) = jobs(look, "endpoints")
    assert envelope.decode(look.peek(moved.id).body) == replace(delivery, tube="endpoints")
    assert jobs(look, queue.tube) == []
    assert work(bench)
    assert [(each.id, each.attempt) for each in bench.seen] == [(delivery.id, 1)]
    assert jobs(look, "endpoints") == []


class Every:
    """A rule: so many seconds after each failure, until the first attempt is `patience` old."""

    def __init__(self, patience: float) -> None:
        self.patience = patience
        self.asked: list[tuple[int, float]] = []

    def after(self, failures: int, age: float) -> float | None:
        self.asked.append((failures, age))
        return 7.0 * failures if age <= self.patience else None


def test_a_handlers_own_rule_takes_the_place_of_the_pools(queue: Queue, look: Queue) -> None:
    rule = Every(3600)

    def handle(_delivery: Delivery, _context: Context) -> Result:
        raise Retry("no")

    bench = Bench(queue, handler=retry_policy(lambda _delivery, _context: rule)(handle))
    put(look, queue.tube)
    for failures in range(1, 6):
        assert work(bench)
        (job,) = jobs(look, queue.tube)
        assert (job.state, job.delay) == ("delayed", 7 * failures)
        following = envelope.decode(look.peek(job.id).body)
        assert following.failures == failures
        look.kick(job.id)
    ages = [age for _, age in rule.asked]
    assert [failures for failures, _ in rule.asked] == [1, 2, 3, 4, 5]
    assert ages == sorted(ages)
    assert following.tried is not None
    assert following.tried >= following.received


def test_what_a_rule_gives_up_is_buried_with_what_the_handler_told(queue: Queue, look: Queue) -> None:
    def handle(_delivery: Delivery, _context: Context) -> Result:
        raise Retry("answered 502", detail={"status": 502, "body": "caf\udce9", "odd": {1, 2}})

    bench = Bench(queue, handler=retry_policy(lambda _delivery, _context: Every(-1))(handle))
    put(look, queue.tube)
    assert work(bench)
    (job,) = jobs(look, queue.tube)
    buried = envelope.decode(look.peek(job.id).body)
    assert (job.state, buried.buried) == ("buried", "answered 502 (gave up after 1 attempt)")
    (evidence,) = buried.evidence
    assert (evidence.detail["status"], evidence.detail["body"]) == (502, "caf?")
    look.kick(job.id)
    assert work(bench)
    (job,) = jobs(look, queue.tube)
    again = envelope.decode(look.peek(job.id).body)
    assert (len(again.evidence), again.attempt) == (2, 2)


def test_an_overloaded_target_slows_its_tube(queue: Queue, look: Queue) -> None:
    def handle(_delivery: Delivery, _context: Context) -> Result:
        raise Retry("answered 503", slow_down=True)

    bench = Bench(queue, limits=(Limit("some", SLOW, 8),), handler=handle)
    for _ in range(8):
        put(look, "some")
    rounds = 0
    while work(bench):
        rounds += 1
    # a bucket of eight, halved by the first answer: what is left of it is four at the most
    assert 1 <= rounds <= 5


def test_a_kicked_delivery_whose_route_leads_elsewhere_is_moved_and_worked(queue: Queue, look: Queue) -> None:
    before = Bench(queue)
    put(look, queue.tube, "bury")
    assert work(before)
    (buried,) = jobs(look, queue.tube)
    look.kick(buried.id)
    bench = Bench(queue, limits=(Limit("endpoints", 100, 1),), leads_to="endpoints", handler=lambda *_: "done")
    assert work(bench)
    assert work(bench)
    assert jobs(look, "endpoints") == []
    assert [entry.state for entry in bench.ledger.entries] == ["done"]


class Broken:
    """A rule that is no help."""

    def __init__(self, says: object) -> None:
        self.says = says

    def after(self, failures: int, age: float) -> Any:
        if isinstance(self.says, Exception):
            raise self.says
        return self.says


@pytest.mark.parametrize(
    ("says", "longest"),
    [(RuntimeError("a bug"), 30), ("soon", 30), (1e12, 2**32), (float("inf"), 2**32), (float("nan"), 0), (-5, 0)],
)
def test_a_rule_that_is_broken_costs_neither_the_process_nor_the_evidence(
    queue: Queue, look: Queue, says: object, longest: int
) -> None:
    bench = Bench(queue, handler=retry_policy(lambda _delivery, _context: Broken(says))(_refuse))
    put(look, queue.tube)
    assert work(bench)
    (job,) = jobs(look, queue.tube)
    assert job.delay <= longest
    assert envelope.decode(look.peek(job.id).body).evidence[0].message == "no"


def _refuse(_delivery: Delivery, _context: Context) -> Result:
    raise Retry("no")


def test_while_a_tube_is_over_its_limit_it_is_not_looked_at_all_the_time(queue: Queue, look: Queue) -> None:
    bench = Bench(queue, limits=(Limit("some", 1, 1),))
    for _ in range(2):
        put(look, "some")
    assert work(bench)
    over, rounds = time.monotonic() + 0.5, 0
    while time.monotonic() < over:
        work(bench)
        rounds += 1
    # a round that finds nothing waits for 5 ms at the least; without that there are thousands
    assert rounds <= 100
