"""Queues that share the work by weight: what a child reserves from, on a real queue, and its turns on their own.

Everything is counted in jobs and in commands, never in time.
"""

from __future__ import annotations

import itertools
import os
import signal
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from glassq import delivery as envelope
from glassq.queues.beanstalk.protocol import JobStats
from glassq.worker.bucket import LOCK_TIMEOUT, Limit
from glassq.worker.kept import KEPT_CHECK
from glassq.worker.plan import PoolPlan
from glassq.worker.shares import PROBE, QueueLimiter, Share
from glassq.worker.throttle import Throttle
from tests.conftest import wait_for
from tests.worker.conftest import Bench, made
from tests.worker.pools import PoolRun

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from tests.conftest import Beanstalkd
    from tests.queues.raw import Queue

PAY, MAIL = "pay", "mail"


def a_look_each_time() -> Iterator[float]:
    """A clock by which it is time for a probe whenever somebody asks."""
    return itertools.count(0.0, 2 * PROBE)


def bench_of(queue: Queue, *shares: Share, main: int = 1, probes: bool = False, **more: object) -> Bench:
    ticks = a_look_each_time()
    clock = (lambda: next(ticks)) if probes else (lambda: 0.0)
    return Bench(queue, shares=(Share(queue.tube, main), *shares), clock=clock, **more)  # type: ignore[arg-type]


def fill(look: Queue, tube: str, count: int, do: str = "done") -> None:
    for _ in range(count):
        look.put(envelope.encode(replace(made(do), tube=tube)), tube=tube)


def left(look: Queue, tube: str) -> list[JobStats]:
    states = frozenset({"ready", "reserved", "delayed", "buried"})
    return [found for found in look.scan(states, tube) if isinstance(found, JobStats)]


def commands(look: Queue) -> Counter[str]:
    """How many commands of each kind the server has got."""
    stats = look._call(lambda client: client.stats())
    return Counter(
        {name[4:]: int(value) for name, value in stats.items() if name[:4] == "cmd-" and name != "cmd-stats"}
    )


@pytest.mark.parametrize("ahead", [True, False])
@pytest.mark.parametrize(("main", "weight", "expected"), [(1, 1, 12), (1, 3, 18), (3, 1, 6), (1, 11, 22)])
def test_queues_that_wait_share_the_work_by_their_weights(
    queue: Queue, look: Queue, main: int, weight: int, expected: int, ahead: bool
) -> None:
    fill(look, queue.tube, 30)
    fill(look, PAY, 30)
    bench = bench_of(queue, Share(PAY, weight), main=main)
    # the first jobs show which queues have some
    first = bench.work_ahead(4) if ahead else [bench.consumer.work_one(0) for _ in range(4)]
    assert len(first) == 4
    done = len(bench.ledger.entries)
    if ahead:
        bench.work_ahead(24)
    else:
        assert all(bench.consumer.work_one(0) for _ in range(24))
    found = Counter(entry.tube for entry in bench.ledger.entries[done : done + 24])
    assert abs(found[PAY] - expected) <= 1
    assert found[PAY] + found[queue.tube] == 24


def test_a_payment_does_not_stand_behind_two_thousand_pushes(queue: Queue, look: Queue) -> None:
    fill(look, queue.tube, 2_000)
    bench = bench_of(queue, Share(PAY), probes=True)
    assert set(bench.work_ahead(5)) == {queue.tube}
    fill(look, PAY, 1)
    # one may have been reserved ahead before it came
    assert PAY in bench.work_ahead(2)
    assert set(bench.work_ahead(20)) == {queue.tube}


def test_between_two_looks_an_empty_queue_costs_no_command(queue: Queue, look: Queue) -> None:
    """A child that works one queue alone sends a delete and a reserve a job, and looks at it while it is new."""
    fill(look, queue.tube, 60)
    bench = bench_of(queue, Share(PAY), Share(MAIL))
    bench.work_ahead(4)
    before = commands(look)
    bench.work_ahead(20)
    assert commands(look) - before == Counter({"reserve-with-timeout": 20, "delete": 20, "stats-job": 20})


def test_all_queues_are_emptied_and_an_idle_child_waits_for_all_of_them(queue: Queue, look: Queue) -> None:
    fill(look, queue.tube, 3)
    fill(look, PAY, 7)
    fill(look, MAIL, 5)
    bench = bench_of(queue, Share(PAY, 100), Share(MAIL))
    assert Counter(bench.work_ahead(15)) == {queue.tube: 3, PAY: 7, MAIL: 5}
    rounds = [bench.consumer.work_one(0) for _ in range(6)]
    assert rounds == [False] * 6
    before = commands(look)
    assert not bench.consumer.work_one(0)
    # no loop: one reserve, of all tubes
    assert commands(look) - before == Counter({"reserve-with-timeout": 1})
    for tube in (MAIL, queue.tube, PAY):
        fill(look, tube, 1)
        assert bench.consumer.work_one(0)
        assert bench.ledger.entries[-1].tube == tube


@pytest.mark.parametrize(("do", "state"), [("retry", "delayed"), ("bury", "buried")])
def test_what_is_put_again_stays_in_its_queue(queue: Queue, look: Queue, do: str, state: str) -> None:
    fill(look, PAY, 1, do)
    bench = bench_of(queue, Share(PAY))
    assert bench.consumer.work_one(0)
    (job,) = left(look, PAY)
    assert (job.state, envelope.decode(look.peek(job.id).body).tube) == (state, PAY)


def test_the_limits_of_push_queues_hold_beside_the_shares(queue: Queue, look: Queue) -> None:
    bench = bench_of(queue, Share(PAY, 3), probes=True, limits=(Limit("few", 1e-6, 2),))
    for tube in ("few", "few", "few", queue.tube, PAY, PAY):
        fill(look, tube, 1)
    assert sum(bench.consumer.work_one(0) for _ in range(30)) == 5
    assert Counter(entry.tube for entry in bench.ledger.entries) == {"few": 2, queue.tube: 1, PAY: 2}
    assert len(left(look, "few")) == 1


def test_deliveries_that_go_on_to_another_tube_take_no_turn_from_their_queue(queue: Queue, look: Queue) -> None:
    bench = bench_of(queue, Share(PAY), limits=(Limit("endpoints", 1e6, 100),), leads_to="endpoints")
    fill(look, queue.tube, 6)
    fill(look, PAY, 6)
    for _ in range(60):
        bench.consumer.work_one(0)
    assert Counter(entry.tube for entry in bench.ledger.entries) == {"endpoints": 12}


# -- turns -------------------------------------------------------------------------------------------------------------


class Model:
    """A limiter, and queues of which it knows only what it is told: whether a reserve found a job, and where."""

    def __init__(self, weights: Sequence[int]) -> None:
        self.now = 0.0
        self.ready = dict.fromkeys(["main", *(f"q{number}" for number in range(1, len(weights)))], 0)
        # the order of their jobs: the oldest is given first
        self.jobs: list[str] = []
        shares = [Share(tube, weight) for tube, weight in zip(self.ready, weights, strict=True)]
        throttle = Throttle(1)
        self.limiter = QueueLimiter(throttle.limiter(0, ["main"], []), shares, throttle.place(0, []), lambda: self.now)
        self.held = ""

    def take(self, tubes: Sequence[str]) -> str:
        found = next((tube for tube in self.jobs if tube in tubes), "")
        if found:
            self.jobs.remove(found)
        return found

    def round(self, *, ahead: bool) -> str:
        """One round of a child; the tube of the job that it worked, "" if it found none and would have waited."""
        for _ in range(len(self.ready) + 2):
            has_next = bool(self.held)
            admission = self.limiter.admit(has_next)
            found, self.held = (self.held, "") if has_next else (self.take(admission.tubes), "")
            if found:
                self.limiter.start(found)
                self.held = self.take(self.limiter.ahead()) if ahead else ""
                self.limiter.finish()
                return found
            self.limiter.nothing_came()
            self.limiter.finish()
            if admission.wait is None:
                return ""
        raise AssertionError("a busy loop: it neither found a job nor waited")


@given(
    st.lists(st.integers(1, 5), min_size=1, max_size=4),
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 6), st.booleans(), st.booleans()), max_size=30),
)
def test_no_job_is_left_behind_and_no_child_waits_while_there_is_one(
    weights: list[int], events: list[tuple[int, int, bool, bool]]
) -> None:
    model, put, got = Model(weights), Counter[str](), Counter[str]()
    for which, count, probe, ahead in events:
        tube = list(model.ready)[which % len(weights)]
        model.jobs += [tube] * count
        put[tube] += count
        model.now += 2 * PROBE * probe
        waiting = bool(model.jobs or model.held)
        found = model.round(ahead=ahead)
        assert bool(found) == waiting
        got[found] += bool(found)
    while found := model.round(ahead=False):
        got[found] += 1
    assert +got == +put


def test_a_queue_saves_nothing_up_while_it_is_empty_and_owes_nothing_for_what_it_got_alone() -> None:
    model = Model([1, 1])
    model.jobs = ["main"] * 100
    assert {model.round(ahead=True) for _ in range(50)} == {"main"}
    model.jobs += ["q1"] * 100
    model.now += 2 * PROBE
    found = Counter(model.round(ahead=True) for _ in range(21))
    assert abs(found["main"] - found["q1"]) <= 2
    # and the other way round: what it was given alone is no debt
    model.jobs = ["q1"] * 60
    for _ in range(50):
        model.round(ahead=True)
    model.jobs = ["main"] * 40 + ["q1"] * 40
    model.now += 2 * PROBE
    found = Counter(model.round(ahead=True) for _ in range(21))
    assert abs(found["main"] - found["q1"]) <= 2


# -- children that are kept --------------------------------------------------------------------------------------------


class Pool:
    """Children of a pool of four: their limiters, all in this process."""

    def __init__(self, *kept: Limit) -> None:
        self.now = 0.0
        self.throttle = Throttle(8, 8, clock=lambda: self.now)
        self.throttle.set(kept)
        self.tubes = [limit.tube for limit in kept]

    def child(self, slot: int) -> QueueLimiter:
        shares = [Share("main"), *(Share(tube) for tube in self.tubes)]
        place = self.throttle.place(slot, self.tubes)
        return QueueLimiter(self.throttle.limiter(slot, ["main"], []), shares, place, lambda: self.now)


def places(tube: str, count: int) -> Limit:
    return Limit(tube, 1e6, max(1, count), count)


def kept_for(children: Sequence[QueueLimiter], pool: Pool) -> list[str]:
    """For which tube each child is kept; "" for those that take all."""
    pool.now += 2 * KEPT_CHECK
    admitted = [child.admit().tubes for child in children]
    return [tubes[0] if len(tubes) == 1 else "" for tubes in admitted]


def test_as_many_children_are_kept_as_the_settings_say_and_the_dead_are_replaced() -> None:
    pool = Pool(places(PAY, 2), places(MAIL, 1))
    children = [pool.child(slot) for slot in range(4)]
    assert kept_for(children, pool) == [PAY, PAY, MAIL, ""]
    assert [list(child.ahead()) for child in children[:3]] == [[PAY], [PAY], [MAIL]]
    assert not any(child.patient for child in children)
    # the parent saw the second one die, and its successor came late
    pool.throttle.clear(1)
    assert kept_for([children[3]], pool) == [PAY]
    children[1] = pool.child(1)
    assert kept_for(children, pool) == [PAY, "", MAIL, PAY]


def test_fewer_places_after_a_reload_free_the_children_that_are_too_many() -> None:
    pool = Pool(places(PAY, 2))
    children = [pool.child(slot) for slot in range(3)]
    assert kept_for(children, pool) == [PAY, PAY, ""]
    pool.throttle.set([places(PAY, 1)])
    assert sorted(kept_for(children, pool)) == ["", "", PAY]
    pool.throttle.set([places(PAY, 0)])
    assert kept_for(children, pool) == ["", "", ""]


def test_a_child_with_a_job_in_hand_finishes_it_before_it_is_kept() -> None:
    pool = Pool(places(PAY, 1))
    first, second = pool.child(0), pool.child(1)
    assert kept_for([first, second], pool) == [PAY, ""]
    second.start("main")
    # a look at the empty queue alone is due first
    assert [set(second.ahead()) for _ in range(2)] == [{PAY}, {"main", PAY}]
    pool.throttle.clear(0)
    pool.now += 2 * KEPT_CHECK
    assert set(second.admit(has_next=True).tubes) == {"main", PAY}
    second.start("main")
    assert second.ahead() == (PAY,)


def test_a_new_child_waits_for_the_lock_rather_than_take_another_queues_job() -> None:
    pool = Pool(places(PAY, 1))
    held = threading.Event()

    def hold() -> None:
        with pool.throttle.gates.locked() as locked:
            assert locked
            held.set()
            time.sleep(5 * LOCK_TIMEOUT)

    holder = threading.Thread(target=hold)
    holder.start()
    assert held.wait(10)
    assert kept_for([pool.child(0)], pool) == [PAY]
    holder.join()


def test_a_burst_takes_no_child_that_is_kept_and_a_queue_that_is_gone_is_still_worked(
    tmp_path: Path, beanstalkd: Beanstalkd, look: Queue
) -> None:
    pay, gone = (f"{look.tube}.queue.{name}" for name in (PAY, "gone"))
    with PoolRun(tmp_path, beanstalkd, look, processes=3) as run:
        run.write_settings(more=f"[worker.queues.{PAY}]\nchildren = 1\n")
        run.put("left-behind", tube=gone)
        run.start().ready()
        wait_for(lambda: bool(run.story("end")), f"the queue that is gone to be worked\n{run.log()}")
        for number in range(4):
            run.put(f"push{number}", "hold")
        wait_for(lambda: len(run.story("start")) == 3, "the burst to take the children that are left")
        run.put("payment1", tube=pay)
        wait_for(lambda: len(run.story("end")) == 2, f"the payment to be worked\n{run.log()}")
        kept = run.story("end")[-1][1]
        os.kill(kept, signal.SIGKILL)
        run.put("payment2", tube=pay)
        wait_for(lambda: len(run.story("end")) == 3, f"another child to be kept\n{run.log()}")
        assert [name for name, _, _ in run.story("end")] == ["left-behind", "payment1", "payment2"]
        assert run.story("end")[-1][1] != kept
        # of four pushes two are held, and the others wait
        assert len(run.story("start")) == 5
        run.let_go()


def test_where_there_are_no_more_children_than_are_kept_none_is() -> None:
    """An operator may take children away with SIGTTOU."""
    plan = PoolPlan(
        lambda _: lambda _slot, _throttle: 0, processes=4, drain=1.0, kept=(places(PAY, 2), places(MAIL, 1))
    )
    for processes, kept in ((4, [2, 1]), (3, [0, 0]), (1, [0, 0]), (5, [2, 1])):
        assert [limit.max_running for limit in plan.all_limits(processes)] == kept
