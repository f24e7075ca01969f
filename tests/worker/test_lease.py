from __future__ import annotations

import os
import signal
import socket
import threading
import time
from contextlib import suppress
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from glassq import delivery as envelope
from glassq.errors import DeadlineExceeded, Interrupted, LeaseLost, QueueUnavailable
from glassq.queues.base import Reservation
from glassq.queues.beanstalk.receiver import BeanstalkReceiver
from glassq.settings import QueueSettings
from glassq.values import Duration
from glassq.worker import lanes
from glassq.worker.fork import fork
from glassq.worker.lease import Lease
from glassq.worker.scoreboard import Scoreboard
from tests.conftest import wait_for
from tests.queues.raw import open_queue
from tests.syncers import prover_beside

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import Beanstalkd
    from tests.queues.raw import Queue

TTR = 5
# Longer than any test: whoever waits so long was not woken.
FOREVER = 60.0
DELIVERY = envelope.new("mirror", b"ping", {})


class Held:
    """A job held by a lease whose keeper runs. `work` is an attempt in the main thread, as the consumer makes it."""

    def __init__(self, server: Beanstalkd) -> None:
        self.queue = open_queue(QueueSettings(url=server.url, ttr=Duration(TTR)))
        self.job = self.queue.put(b"ping")
        self.queue.reserve(0)
        self.board = Scoreboard(1)
        self.cold = False
        self.lease = Lease(BeanstalkReceiver(self.queue, prover_beside(self.queue.url)), TTR, self.board.slots[0])
        self.lease.start_keeper(cold=lambda: self.cold, orphaned=lambda: None)

    def work(self, handler: Callable[[], object], *, within: float = FOREVER, job: int | None = None) -> None:
        self.start(within, job)
        try:
            handler()
        finally:
            self.lease.forbid_interrupts()
            self.lease.end()

    def start(self, within: float, job: int | None = None) -> None:
        reservation = Reservation(str(job or self.job), self.queue.tube, b"", TTR)
        over = time.monotonic() + within
        self.lease.start(reservation, DELIVERY, deadline=over, hard=over + FOREVER)

    def beats(self, number: int) -> None:
        """Returns once the keeper has looked at everything so many times."""
        for _ in range(number):
            last = self.board.status(0).beat
            wait_for(lambda last=last: self.board.status(0).beat > last, "the keeper to beat")


@pytest.fixture
def held(beanstalkd: Beanstalkd) -> Iterator[Held]:
    before = signal.getsignal(signal.SIGALRM)
    made = Held(beanstalkd)
    yield made
    made.lease.stop_keeper()
    made.queue.close()
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def look(beanstalkd: Beanstalkd) -> Iterator[Queue]:
    opened = beanstalkd.queue()
    yield opened
    opened.close()


def test_a_lease_is_renewed_while_the_handler_runs(held: Held, look: Queue) -> None:
    def left() -> int:
        return look.stats_job(held.job).time_left

    def handler() -> None:
        wait_for(lambda: left() < TTR - 1, "some of the lease to pass")
        wait_for(lambda: left() >= TTR - 1, "the lease to be renewed")

    held.work(handler)
    assert look.stats_job(held.job).state == "reserved"
    held.queue.delete(held.job)


def _sleep() -> None:
    time.sleep(FOREVER)


def _read_a_pipe() -> None:
    read, write = os.pipe()
    try:
        os.read(read, 1)
    finally:
        os.close(read)
        os.close(write)


def _wait_for_a_lock() -> None:
    lock = threading.Lock()
    with lock:
        lock.acquire(timeout=FOREVER)


def _receive() -> None:
    one, other = socket.socketpair()
    with one, other:
        one.recv(1)


def _count() -> None:
    while True:
        pass


def _swallow_exceptions() -> None:
    while True:
        with suppress(Exception):
            time.sleep(FOREVER)


WAITS = [_sleep, _read_a_pipe, _wait_for_a_lock, _receive, _count, _swallow_exceptions]


@pytest.mark.parametrize("handler", WAITS, ids=lambda handler: handler.__name__.strip("_"))
def test_a_deadline_ends_a_handler_whatever_it_waits_in(held: Held, handler: Callable[[], None]) -> None:
    with pytest.raises(DeadlineExceeded):
        held.work(handler, within=0.1)
    held.queue.delete(held.job)


def test_a_cold_stop_ends_a_handler_at_once(held: Held) -> None:
    def handler() -> None:
        held.cold = True
        _sleep()

    with pytest.raises(Interrupted):
        held.work(handler)
    held.queue.release(held.job)


def test_a_job_that_is_no_longer_ours_ends_its_handler(held: Held) -> None:
    with pytest.raises(LeaseLost):
        held.work(_sleep, job=held.job + 1)


def test_a_queue_that_is_gone_ends_the_handler(beanstalkd: Beanstalkd, held: Held, look: Queue) -> None:
    def handler() -> None:
        beanstalkd.stop(signal.SIGKILL)
        beanstalkd.start()
        _sleep()

    with pytest.raises(LeaseLost):
        held.work(handler)
    look.close()
    assert look.stats_job(held.job).state == "ready"


def break_tend(held: Held, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def tend() -> None:
        raise error

    monkeypatch.setattr(held.lease._receiver, "tend", tend)


def test_a_connection_that_breaks_while_it_is_tended_ends_the_handler(
    held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_tend(held, monkeypatch, QueueUnavailable("broken"))
    with pytest.raises(LeaseLost):
        held.work(lambda: held.beats(3))
    held.beats(2)


def test_a_stop_is_a_stop_though_the_connection_is_broken(held: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    break_tend(held, monkeypatch, QueueUnavailable("broken"))
    held.cold = True
    with pytest.raises(Interrupted):
        held.work(lambda: held.beats(3))


def _keep_plain() -> None:
    receiver: Any = SimpleNamespace(tend=lambda: 1 / 0)
    lease = Lease(receiver, TTR, Scoreboard(1).slots[0])
    lease.start(Reservation("1", "tube", b"", TTR), DELIVERY, deadline=FOREVER * FOREVER, hard=FOREVER * FOREVER)
    lease._run_keeper(lambda: False, lambda: None)


def _keep_lanes() -> None:
    lane: Any = SimpleNamespace(lease=SimpleNamespace(extend=lambda _now: 1 / 0))
    all_lanes: Any = [lane]
    lanes._keep(all_lanes, threading.Event())


@pytest.mark.parametrize("keep", [_keep_plain, _keep_lanes])
def test_a_keeper_that_fails_ends_its_process(keep: Callable[[], None]) -> None:
    def main() -> int:
        with suppress(ZeroDivisionError):
            keep()
        return 0

    _, status = os.waitpid(fork(main), 0)
    assert os.waitstatus_to_exitcode(status) == 1


def test_an_interrupt_comes_once_so_that_a_handler_can_clean_up(held: Held) -> None:
    cleaned = []

    def handler() -> None:
        try:
            _sleep()
        finally:
            held.beats(3)
            cleaned.append(True)

    with pytest.raises(DeadlineExceeded):
        held.work(handler, within=0.5)
    assert cleaned == [True]


def test_nothing_interrupts_once_the_handler_is_over(held: Held) -> None:
    held.start(0.4)
    held.lease.forbid_interrupts()
    held.beats(3)
    held.lease.end()
    held.beats(3)


def test_an_interrupt_that_was_on_its_way_when_the_handler_came_back_interrupts_nothing(held: Held) -> None:
    held.start(0.1)
    # it is sent while the handler runs, and comes when that is over
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
    try:
        wait_for(lambda: signal.SIGALRM in signal.sigpending(), "the interrupt")
        held.lease.forbid_interrupts()
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
    held.lease.end()
    held.queue.delete(held.job)


def test_an_overrun_of_one_job_does_not_hit_the_next(held: Held) -> None:
    held.start(0.4)
    held.lease.forbid_interrupts()
    held.beats(3)
    held.lease.end()
    held.work(lambda: held.beats(3))


def test_the_heart_beats_while_the_handler_has_the_main_thread(held: Held) -> None:
    held.work(lambda: held.beats(2))


def test_after_it_is_given_up_a_job_is_not_renewed(held: Held, look: Queue) -> None:
    held.work(lambda: None)
    wait_for(lambda: look.stats_job(held.job).time_left <= TTR - 3, "the lease to run down")


def test_without_its_keeper_a_lease_does_nothing(beanstalkd: Beanstalkd, queue: Queue) -> None:
    lease = Lease(BeanstalkReceiver(queue, prover_beside(queue.url)), TTR, Scoreboard(1).slots[0])
    lease.start(Reservation("1", queue.tube, b"", TTR), DELIVERY, deadline=time.monotonic() - 1, hard=0.0)
    lease.forbid_interrupts()
    lease.end()
    lease.stop_keeper()
