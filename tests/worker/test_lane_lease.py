"""What ends an attempt in a lane, where no signal can: a look of the main thread, or a lost lease."""

from __future__ import annotations

import threading
import time
from contextlib import nullcontext
from typing import TYPE_CHECKING

import pytest
from urllib3.connection import HTTPConnection
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError

from glassq import delivery as envelope
from glassq.errors import DeadlineExceeded, Interrupt, Interrupted, LeaseLost
from glassq.push.http_client import HttpClient, connect_within, split
from glassq.push.http_request import HttpRequest
from glassq.queues.base import Reservation
from glassq.queues.beanstalk.receiver import BeanstalkReceiver
from glassq.worker.lane_lease import LaneLease
from glassq.worker.scoreboard import Scoreboard
from tests.conftest import wait_for
from tests.push.targets import Target

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.queues.raw import Queue

TTR = 5.0
DELIVERY = envelope.new("mirror", b"ping", {})
FOREVER = 1_000.0


class Held:
    """A job that a lane's lease holds; the test is the child's main thread, and its keeper."""

    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        self.changes: list[int] = []
        board = Scoreboard(1, crews=1, lanes=1)
        self.lease = LaneLease(BeanstalkReceiver(queue), TTR, board.slots[1].lanes[0], self.changes.append)
        job = queue.put(b"ping")
        queue.reserve(0)
        now = time.monotonic()
        reservation = Reservation(str(job), queue.tube, b"", TTR)
        self.lease.start(reservation, DELIVERY, deadline=now + FOREVER, hard=now + 2 * FOREVER)


@pytest.fixture
def held(queue: Queue) -> Iterator[Held]:
    yield Held(queue)


def overrun(held: Held) -> None:
    held.lease.check(time.monotonic() + 2 * FOREVER, cold=False)


def stop_cold(held: Held) -> None:
    held.lease.check(time.monotonic(), cold=True)


def lose(held: Held) -> None:
    held.queue.close()
    held.lease.extend(time.monotonic() + TTR)


WAYS: dict[str, tuple[Callable[[Held], None], type[Interrupt]]] = {
    "the deadline": (overrun, DeadlineExceeded),
    "a cold stop": (stop_cold, Interrupted),
    "a lost lease": (lose, LeaseLost),
}


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("way", WAYS)
def test_what_waits_is_stopped_once_and_the_interrupt_takes_the_place_of_what_it_raises(
    held: Held, way: str, before: bool
) -> None:
    end, interrupt = WAYS[way]
    stopped = []
    if before:
        end(held)
    with pytest.raises(interrupt), held.lease.stoppable(lambda: stopped.append(1)):
        if not before:
            end(held)
        end(held)
        assert held.lease.pending() is interrupt
        raise ValueError("the socket was shut")
    assert stopped == [1]
    held.lease.end()
    assert held.changes == [1, -1]


def test_a_lease_is_extended_and_an_attempt_that_is_over_is_not_stopped(held: Held) -> None:
    held.lease.extend(time.monotonic() + TTR)
    assert held.lease.pending() is None
    with held.lease.stoppable(lambda: pytest.fail("it is not stopped")):
        pass
    held.lease.end()
    overrun(held)
    assert held.lease.pending() is None


@pytest.mark.parametrize("answer", ["instead=hang", "drip=0.01"])
def test_a_request_that_has_no_end_is_ended(held: Held, answer: str) -> None:
    """Also where bytes come and come, so that no timeout of the socket ever passes."""
    with Target() as target:
        origin, path = split(f"{target.url}/?{answer}")

        def end() -> None:
            wait_for(lambda: target.asked, "the request to come")
            overrun(held)

        thread = threading.Thread(target=end)
        thread.start()
        client = HttpClient()
        with pytest.raises(DeadlineExceeded):
            client.send(origin, HttpRequest("GET", path, {}, b""), lambda: FOREVER, held.lease.stoppable)
        thread.join()
        client.close()


def test_a_connection_that_does_not_come_about_has_a_deadline_though_looking_its_name_up_has_none() -> None:
    class Waits(HTTPConnection):
        """As one whose name no server answers for."""

        def connect(self) -> None:
            go_on.wait()

    go_on = threading.Event()
    with pytest.raises(ConnectTimeoutError):
        connect_within(0.01, Waits("x"), lambda stop: nullcontext())
    go_on.set()
    connect_within(FOREVER, Waits("x"), lambda stop: nullcontext())
    with pytest.raises(NewConnectionError):
        connect_within(FOREVER, HTTPConnection("127.0.0.1", 1), lambda stop: nullcontext())


def test_threads_share_the_connections_of_a_client() -> None:
    client = HttpClient()
    both = threading.Barrier(2)
    with Target() as target:
        origin, path = split(f"{target.url}/")
        target.on_request = lambda _asked: None

        def send() -> None:
            both.wait()
            for _ in range(20):
                assert client.send(origin, HttpRequest("GET", path, {}, b""), lambda: FOREVER).status == 200

        threads = [threading.Thread(target=send) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(target.asked) == 40
        assert target.connections <= 2
        client.close()
