from __future__ import annotations

import itertools
import os
import signal
import struct
import time
from collections import defaultdict
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from glassq.errors import SettingsError
from glassq.worker.bucket import MIN_PACE, Limit
from glassq.worker.throttle import IDLE_PAUSE, MAX_PAUSE, MIN_PAUSE, RESERVE_WAIT, Admission, Throttle
from tests.conftest import wait_for
from tests.thorough import examples

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from glassq.worker.throttle import TubeLimiter

PINGS, TUBE, OTHER = "glassq", "glassq.push.default", "glassq.push.mail"


class Clock:
    """A time that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Pool:
    """A throttle with limiters for the same tubes, all in this process."""

    def __init__(self, *limits: Limit, free: Sequence[str] = (PINGS,), limiters: int = 4) -> None:
        self.clock = Clock()
        self.throttle = Throttle(32, 4, clock=self.clock)
        self.throttle.set(limits)
        tubes = [limit.tube for limit in limits]
        self.limiters = [self.throttle.limiter(slot, free, tubes) for slot in range(limiters)]

    def burst(self, limiter: TubeLimiter | None = None, *, slow_down: bool = False) -> int:
        """How many jobs of TUBE one child begins before it has to wait."""
        limiter = limiter or self.limiters[0]
        for count in itertools.count():
            if TUBE not in limiter.admit().tubes:
                limiter.release_tokens()
                return count
            limiter.start(TUBE)
            limiter.finish(slow_down=slow_down)
        raise AssertionError

    def holders(self) -> int:
        """How many children can hold a right to TUBE at the same time."""
        count = sum(TUBE in limiter.admit().tubes for limiter in self.limiters)
        for limiter in self.limiters:
            limiter.release_tokens()
        return count

    def overload(self, times: int = 1) -> None:
        """So many halvings, with a token for each."""
        for _ in range(times):
            self.clock.now += 1.0
            while TUBE not in self.limiters[0].admit().tubes:
                self.clock.now += 1.0
            self.limiters[0].start(TUBE)
            self.limiters[0].finish(slow_down=True)


def busiest(moments: Sequence[tuple[float, float]], limit: Limit) -> float:
    """How many jobs more than the limit allows began within the worst of all windows; 0 or less where it was kept.

    A moment is the time just before a job began and the time just after.
    """
    ends = sorted(after for _, after in moments)
    starts = sorted(before for before, _ in moments)
    return max(
        j - i + 1 - limit.bucket - limit.rate * (ends[j] - starts[i])
        for i, j in itertools.combinations_with_replacement(range(len(starts)), 2)
    )


# -- tokens -----------------------------------------------------------------------------------------------------------


def test_a_pool_without_limits_is_always_told_the_same() -> None:
    pool = Pool()
    limiter = pool.limiters[0]
    assert limiter.admit() == Admission((PINGS,), None)
    assert limiter.admit() is limiter.admit()
    limiter.start(PINGS)
    limiter.finish(slow_down=True)
    assert limiter.admit() == Admission((PINGS,), None)


def test_a_full_bucket_is_delivered_at_once_and_then_at_the_rate() -> None:
    pool = Pool(Limit(TUBE, rate=5.0, bucket=10))
    assert pool.burst() == 10
    for _ in range(20):
        pool.clock.now += 0.4
        assert pool.burst() == 2
    pool.clock.now += 3600
    assert pool.burst() == 10


@given(rate=st.floats(0.01, 100), bucket=st.integers(1, 20), seconds=st.floats(1, 20))
@example(rate=1 / 0.052, bucket=1, seconds=60.0)
@settings(max_examples=examples(25), deadline=None)
def test_who_looks_when_told_to_gets_all_that_the_limit_allows(rate: float, bucket: int, seconds: float) -> None:
    pool = Pool(Limit(TUBE, rate, bucket))
    count, over = 0, pool.clock.now + seconds
    while pool.clock.now <= over:
        admission = pool.limiters[0].admit()
        if TUBE in admission.tubes:
            pool.limiters[0].start(TUBE)
            count += 1
        else:
            pool.clock.now += RESERVE_WAIT if admission.wait is None else admission.wait
        pool.limiters[0].finish()
    assert bucket + 0.99 * rate * seconds - 1 <= count <= bucket + rate * (pool.clock.now - 1000) + 1e-6


def test_a_right_that_is_held_keeps_others_from_the_token_and_uses_none() -> None:
    pool = Pool(Limit(TUBE, rate=1.0, bucket=2))
    first, second, third, _ = pool.limiters
    assert [TUBE in limiter.admit().tubes for limiter in (first, second, third)] == [True, True, False]
    pool.clock.now += 60
    assert TUBE not in third.admit().tubes
    first.release_tokens()
    assert TUBE in third.admit().tubes
    second.release_tokens()
    third.finish()
    assert pool.burst() == 2


def test_a_job_of_one_tube_gives_back_what_was_held_for_the_others() -> None:
    pool = Pool(Limit(TUBE, 1.0, 1), Limit(OTHER, 1.0, 1))
    first, second, *_ = pool.limiters
    assert first.admit().tubes == (PINGS, TUBE, OTHER)
    assert second.admit().tubes == (PINGS,)
    first.start(OTHER)
    assert second.admit().tubes == (PINGS, TUBE)
    first.finish()
    first.admit()
    first.start(PINGS)
    assert pool.burst(pool.limiters[2]) == 0, "the second child holds it still"


def test_a_job_that_came_without_a_right_is_made_up_for() -> None:
    pool = Pool(Limit(TUBE, 1.0, 1))
    for limiter in pool.limiters:
        limiter.start(TUBE)
        limiter.finish()
    pool.clock.now += 3.9
    assert pool.burst() == 0
    pool.clock.now += 0.2
    assert pool.burst() == 1


def test_a_clock_that_stands_runs_back_or_leaps_gives_no_more_than_a_bucket() -> None:
    pool = Pool(Limit(TUBE, 10.0, 3))
    pool.clock.now -= 100
    assert (pool.burst(), pool.burst()) == (3, 0)
    pool.clock.now -= 100
    assert pool.burst() == 0
    pool.clock.now += 1e6
    assert pool.burst() == 3


# -- how many at once -------------------------------------------------------------------------------------------------


def test_no_more_run_at_once_than_the_limit_says() -> None:
    pool = Pool(Limit(TUBE, 100.0, 100, max_running=2))
    first, second, third, _ = pool.limiters
    for limiter in (first, second):
        assert TUBE in limiter.admit().tubes
        limiter.start(TUBE)
    assert TUBE not in third.admit().tubes
    first.finish()
    assert TUBE in third.admit().tubes
    assert TUBE not in first.admit().tubes, "the place is held"
    third.release_tokens()
    assert TUBE in first.admit().tubes


# -- when to look again -----------------------------------------------------------------------------------------------


def test_a_token_that_is_due_soon_is_looked_for_then() -> None:
    pool = Pool(Limit(TUBE, 50.0, 1))
    pool.burst()
    assert pool.limiters[0].admit() == Admission((PINGS,), pytest.approx(0.02))
    pool.clock.now += 0.019
    assert pool.limiters[0].admit() == Admission((PINGS,), MIN_PAUSE)
    pool.clock.now += 0.001
    assert pool.limiters[0].admit() == Admission((PINGS, TUBE), None)


def test_other_tubes_are_looked_at_often_until_a_token_is_due() -> None:
    pool = Pool(Limit(TUBE, 1 / 0.9, 1))
    pool.burst()
    assert pool.limiters[0].admit().wait == pytest.approx(MAX_PAUSE)


@pytest.mark.parametrize(("rate", "bucket", "most"), [(0.0, 5, None), (0.5, 1, None), (5.0, 5, 0)])
def test_what_is_far_off_does_not_keep_a_reserve_from_waiting(rate: float, bucket: int, most: int | None) -> None:
    for free, settled in [((PINGS,), None), ((), IDLE_PAUSE)]:
        pool = Pool(Limit(TUBE, rate, bucket, most), free=free)
        pool.burst()
        for _ in range(10):
            admission = pool.limiters[0].admit()
            pool.limiters[0].finish()
        assert admission == Admission(free, settled)


def test_who_finds_others_in_the_way_looks_soon_and_then_ever_later() -> None:
    pool = Pool(Limit(TUBE, 50.0, 1))
    first, second, *_ = pool.limiters
    first.admit()
    waits = [second.admit().wait for _ in range(6)]
    assert waits == [MIN_PAUSE, 2 * MIN_PAUSE, 4 * MIN_PAUSE, 8 * MIN_PAUSE, None, None]
    second.start(PINGS)
    second.finish()
    assert second.admit().wait == MIN_PAUSE


# -- the dead and the stopped -----------------------------------------------------------------------------------------


def test_what_a_dead_child_held_and_ran_is_free_and_what_it_used_is_used() -> None:
    pool = Pool(Limit(TUBE, 0.001, 3, max_running=2))
    first, second, third, _ = pool.limiters
    first.admit()
    first.start(TUBE)
    second.admit()
    assert TUBE not in third.admit().tubes
    pool.throttle.clear(0)
    pool.throttle.clear(1)
    assert pool.burst(third) == 2


def told(child: Callable[[], object]) -> int:
    """Forks a process that does this and ends; returns its pid."""
    pid = os.fork()
    if pid == 0:
        with suppress(BaseException):
            child()
        os._exit(0)
    return pid


class Trap:
    """The machine's clock, in which one process is hit by a signal: limits read it in the lock, at the very middle."""

    def __init__(self, number: signal.Signals) -> None:
        self.number = number
        self.pid = 0

    def __call__(self) -> float:
        if os.getpid() == self.pid:
            os.kill(self.pid, self.number)
        return time.monotonic()

    def spring(self, act: Callable[[], object]) -> int:
        """Forks a process that is hit when it next reads the clock in `act`; returns its pid, once it is hit."""

        def child() -> None:
            self.pid = os.getpid()
            act()

        pid = told(child)
        os.waitpid(pid, os.WUNTRACED)
        return pid


@pytest.mark.parametrize("do", ["admit", "start"])
def test_a_child_killed_in_the_lock_leaves_all_as_it_was(do: str) -> None:
    trap = Trap(signal.SIGKILL)
    throttle = Throttle(4, clock=trap)
    throttle.set([Limit(TUBE, 0.001, 3, max_running=1)])
    limiters = [throttle.limiter(slot, [PINGS], [TUBE]) for slot in range(4)]
    if do == "start":
        limiters[0].admit()
    trap.spring(limiters[0].admit if do == "admit" else lambda: limiters[0].start(TUBE))
    throttle.clear(0)
    for _ in range(3 if do == "admit" else 2):
        assert TUBE in limiters[1].admit().tubes
        limiters[1].start(TUBE)
        limiters[1].finish()
    assert TUBE not in limiters[1].admit().tubes


def test_a_child_stopped_in_the_lock_does_not_stop_the_others_nor_the_parent() -> None:
    trap = Trap(signal.SIGSTOP)
    throttle = Throttle(4, clock=trap)
    limit = Limit(TUBE, 0.001, 3)
    throttle.set([limit])
    stopped, other, *late = [throttle.limiter(slot, [PINGS], [TUBE]) for slot in range(4)]
    for limiter in late:
        assert TUBE in limiter.admit().tubes
    pid = trap.spring(stopped.admit)
    try:
        admissions = [other.admit() for _ in range(6)]
        assert {admission.tubes for admission in admissions} == {(PINGS,)}
        assert admissions[0].wait == MIN_PAUSE
        assert admissions[-1].wait is None
        for limiter in late:
            limiter.start(TUBE)
            limiter.finish()
        throttle.set([limit])
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    throttle.clear(0)
    assert TUBE in other.admit().tubes
    other.start(TUBE)
    other.finish()
    assert TUBE not in other.admit().tubes, "what was used without the lock is used"


def test_a_process_that_a_handler_forks_takes_nothing_with_it() -> None:
    throttle = Throttle(4)
    throttle.set([Limit(TUBE, 0.001, 2, max_running=1)])
    limiter, other, *_ = [throttle.limiter(slot, [PINGS], [TUBE]) for slot in range(4)]
    limiter.admit()
    limiter.start(TUBE)
    os.waitpid(told(lambda: None), 0)
    assert TUBE not in other.admit().tubes
    limiter.finish()
    assert TUBE in other.admit().tubes


# -- an overloaded target ---------------------------------------------------------------------------------------------


def test_an_overloaded_target_halves_rate_and_bucket_once_a_second() -> None:
    pool = Pool(Limit(TUBE, 8.0, 8))
    assert pool.burst(slow_down=True) == 5, "one, and half a bucket"
    pool.clock.now += 0.5
    assert pool.burst(slow_down=True) == 2, "four a second still"
    pool.clock.now += 0.5
    assert pool.burst(slow_down=True) == 2
    pool.clock.now += 0.5
    assert pool.burst() == 1, "two a second"


def test_a_tube_is_never_slowed_to_less_than_a_small_part() -> None:
    pool = Pool(Limit(TUBE, 64.0, 64))
    pool.overload(20)
    pool.burst()
    pool.clock.now += 0.9
    assert pool.burst() == 0
    pool.clock.now += 0.2
    assert pool.burst() == 64 * MIN_PACE


def test_a_slowed_tube_recovers_with_good_answers() -> None:
    pool = Pool(Limit(TUBE, 16.0, 16))
    pool.overload(2)
    rates = []
    for _ in range(14):
        pool.burst()
        pool.clock.now += 1.0
        rates.append(pool.burst())
    assert rates == sorted(rates)
    assert (rates[0], rates[-1]) == (4, 16)


def test_a_slowed_tube_recovers_with_time() -> None:
    pool = Pool(Limit(TUBE, 64.0, 64))
    pool.overload(3)
    pool.clock.now += 30.0
    pool.limiters[0].admit()
    pool.limiters[0].release_tokens()
    pool.clock.now += 5.0
    pool.limiters = pool.limiters[:1]
    assert pool.burst() == 16
    pool.clock.now += 60.0
    pool.burst()
    pool.clock.now += 2.0
    assert pool.burst() == 64


# -- a reload ---------------------------------------------------------------------------------------------------------


def test_a_reload_changes_the_limit_and_keeps_the_tokens() -> None:
    pool = Pool(Limit(TUBE, 1.0, 5), Limit(OTHER, 1.0, 5))
    pool.burst()
    pool.clock.now += 3
    pool.throttle.set([Limit(TUBE, 100.0, 20, max_running=1)])
    assert pool.burst() == 3, "three seconds at the old rate"
    pool.clock.now += 0.1
    assert pool.burst() == 10
    pool.limiters[0].admit()
    assert TUBE not in pool.limiters[1].admit().tubes
    pool.limiters[0].release_tokens()
    assert OTHER in pool.limiters[0].admit().tubes, "children of before still know it"


def test_a_tube_with_rate_0_rests_until_a_reload() -> None:
    pool = Pool(Limit(TUBE, 0.0, 5))
    assert pool.burst() == 0
    pool.clock.now += 3600
    assert pool.burst() == 0
    pool.throttle.set([Limit(TUBE, 1.0, 5)])
    assert pool.burst() == 5


def test_children_of_before_and_after_a_reload_share_a_limit() -> None:
    pool = Pool(Limit(TUBE, 0.001, 4))
    pool.throttle.set([Limit("glassq.push.new", 1.0, 1), Limit(TUBE, 0.001, 4)])
    after = pool.throttle.limiter(7, [PINGS], ["glassq.push.new", TUBE])
    assert after.admit().tubes == (PINGS, "glassq.push.new", TUBE)
    after.start(TUBE)
    assert pool.burst() == 3


def test_more_tubes_than_there_is_memory_for_change_nothing() -> None:
    pool = Pool(Limit(TUBE, 1.0, 1))
    many = [Limit(f"tube{number}", 1.0, 1) for number in range(4)]
    with pytest.raises(SettingsError, match="more than 4 tubes"):
        pool.throttle.set([Limit(TUBE, 1.0, 9), *many])
    pool.clock.now += 100
    assert pool.burst() == 1
    pool.throttle.set(many[:3])


# -- whatever happens -------------------------------------------------------------------------------------------------

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["admit", "start", "release", "finish", "overloaded", "dies"]),
        st.integers(0, 3),
        st.sampled_from([0.0, 0.0, 0.0, 1e-3, 0.03, 0.4, 1.0, 40.0]),
    ),
    max_size=60,
)


@given(
    steps=STEPS,
    limit=st.builds(
        Limit, st.just(TUBE), st.floats(0.01, 50), st.integers(1, 6), st.one_of(st.none(), st.integers(1, 4))
    ),
)
@settings(max_examples=examples(100), deadline=None)
def test_no_window_has_more_than_the_limit_allows_and_nothing_is_lost(
    steps: list[tuple[str, int, float]], limit: Limit
) -> None:
    pool = Pool(limit)
    held: dict[int, bool] = defaultdict(bool)
    running: set[int] = set()
    begun: list[tuple[float, float]] = []
    for step, slot, seconds in steps:
        pool.clock.now += seconds
        limiter = pool.limiters[slot]
        if step == "admit" and slot not in running:
            held[slot] = TUBE in limiter.admit().tubes
        elif step == "start" and held.pop(slot, False):
            limiter.start(TUBE)
            running.add(slot)
            begun.append((pool.clock.now, pool.clock.now))
        elif step == "release" and slot not in running:
            limiter.release_tokens()
            held.pop(slot, None)
        elif step in ("finish", "overloaded"):
            limiter.finish(slow_down=step == "overloaded")
            held.pop(slot, None)
            running.discard(slot)
        elif step == "dies":
            pool.throttle.clear(slot)
            pool.limiters[slot] = pool.throttle.limiter(slot, [PINGS], [TUBE])
            held.pop(slot, None)
            running.discard(slot)
        assert limit.max_running is None or len(running) <= limit.max_running
    assert not begun or busiest(begun, limit) <= 1e-6
    for slot in range(4):
        pool.throttle.clear(slot)
    pool.limiters = [pool.throttle.limiter(slot, [PINGS], [TUBE]) for slot in range(10, 18)]
    for _ in range(3):
        # a slowed tube has its full bucket only when time has made up for it
        pool.clock.now += 300 + limit.bucket / limit.rate
        pool.holders()
    assert pool.holders() == min(limit.bucket, limit.max_running or limit.bucket)


# -- real processes ---------------------------------------------------------------------------------------------------

MOMENT = struct.Struct("@dd")


class Children:
    """Processes that work one tube, of which there is always a job, and tell of each one when it began."""

    def __init__(self, limit: Limit) -> None:
        self.limit = limit
        self.throttle = Throttle(32)
        self.throttle.set([limit])
        self.pids: dict[int, int] = {}
        self._pid = os.getpid()
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        self._begun: list[tuple[float, float]] = []

    def start(self, slot: int) -> None:
        self.pids[slot] = told(lambda: self._work(slot))

    def _work(self, slot: int) -> None:
        limiter = self.throttle.limiter(slot, [PINGS], [self.limit.tube])
        while os.getppid() == self._pid:
            admission = limiter.admit()
            if self.limit.tube in admission.tubes:
                before = time.monotonic()
                limiter.start(self.limit.tube)
                os.write(self._write, MOMENT.pack(before, time.monotonic()))
                limiter.finish()
            else:
                limiter.finish()
                time.sleep(RESERVE_WAIT if admission.wait is None else admission.wait)

    def kill(self, slot: int) -> None:
        pid = self.pids.pop(slot)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        self.throttle.clear(slot)

    def begun(self) -> list[tuple[float, float]]:
        with suppress(BlockingIOError):
            while data := os.read(self._read, 1 << 16):
                self._begun += MOMENT.iter_unpack(data)
        return self._begun

    def holders(self, slots: range) -> int:
        """How many new children can hold a right at once."""
        limiters = [self.throttle.limiter(slot, [PINGS], [self.limit.tube]) for slot in slots]
        count = sum(self.limit.tube in limiter.admit().tubes for limiter in limiters)
        for limiter in limiters:
            limiter.release_tokens()
        return count

    def close(self) -> None:
        for slot in list(self.pids):
            self.kill(slot)
        os.close(self._read)
        os.close(self._write)


@contextmanager
def children(limit: Limit, count: int = 4) -> Iterator[Children]:
    made = Children(limit)
    try:
        for slot in range(count):
            made.start(slot)
        yield made
    finally:
        made.close()


def test_four_children_together_keep_to_one_limit_and_reach_it() -> None:
    limit = Limit(TUBE, 50.0, 10)
    with children(limit) as pool:
        wait_for(pool.begun, "a job to begin")
        started = pool.begun()[0][0]
        wait_for(lambda: pool.begun()[-1][0] > started + 3, "three seconds of work")
        begun = [moment for moment in pool.begun() if moment[1] <= started + 3]
    assert busiest(begun, limit) <= 1e-6
    assert len(begun) > 0.7 * (10 + 50 * 3)


def test_children_killed_at_random_leave_all_tokens_and_places_to_the_others() -> None:
    limit = Limit(TUBE, 200.0, 12, max_running=12)
    with children(limit) as pool:
        for number in range(60):
            seen = len(pool.begun())
            wait_for(lambda seen=seen: len(pool.begun()) > seen, "jobs to begin")
            pool.kill(number % 4)
            pool.start(number % 4)
        for slot in list(pool.pids):
            pool.kill(slot)
        assert busiest(pool.begun(), limit) <= 1e-6
        wait_for(lambda: pool.holders(range(12, 28)) == 12, "the bucket to be full")


def test_a_stopped_child_keeps_no_more_than_its_own_right_and_place() -> None:
    limit = Limit(TUBE, 100.0, 3, max_running=3)
    with children(limit, 0) as pool:
        limiter = pool.throttle.limiter(0, [PINGS], [TUBE])
        pool.pids[0] = told(lambda: (limiter.admit(), os.kill(os.getpid(), signal.SIGSTOP)))
        os.waitpid(pool.pids[0], os.WUNTRACED)
        assert pool.holders(range(12, 28)) == 2
        for slot in (1, 2, 3):
            pool.start(slot)
        wait_for(lambda: len(pool.begun()) > 30, "the others to go on")
        for slot in list(pool.pids):
            pool.kill(slot)
        wait_for(lambda: pool.holders(range(12, 28)) == 3, "the bucket to be full")
